"""The commands `gan train|sample|eval|interpolate`."""
