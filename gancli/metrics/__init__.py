"""Metrics: numbers about samples, each with its protocol."""
