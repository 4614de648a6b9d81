"""Augmentation of the images that D is shown."""
