"""Frozen pretrained networks: loaded, given prepared images, never trained."""
