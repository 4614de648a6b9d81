"""Frozen networks that others look through: read, prepared for, and never trained."""
