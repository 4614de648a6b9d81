"""Objectives and penalties: pure functions of what the discriminator says."""
