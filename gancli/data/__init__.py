"""Data: sources of images or points, and the streams that deal them out."""
