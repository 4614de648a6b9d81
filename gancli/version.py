"""The version, which help and the package itself read."""

__version__ = "0.1.0"
