"""Mapped tasks: the arguments of their instances, and whether two of them share a name."""
