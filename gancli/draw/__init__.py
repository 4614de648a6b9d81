"""Samples and pictures of a trained game."""
