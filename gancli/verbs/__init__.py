"""Verbs: what `gan train|sample|eval|interpolate` do."""
