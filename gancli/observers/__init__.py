"""Observers: read a run after each step and never change it."""
