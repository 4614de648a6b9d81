"""Observers: they look at a run and never touch it."""
