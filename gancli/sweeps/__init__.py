"""Sweeps: launch, record, resume and rank several trainings from one command line."""
