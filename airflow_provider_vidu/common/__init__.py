"""Strings, numbers and types; knows nothing of the rest of this package."""
