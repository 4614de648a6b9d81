"""Sweeps: many trainings from one command line, launched, recorded, resumed and ranked."""
