"""Configuration: composing, validating and explaining command lines."""
