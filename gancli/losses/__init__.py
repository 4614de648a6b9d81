"""Adversarial objectives, penalties and further loss terms."""
