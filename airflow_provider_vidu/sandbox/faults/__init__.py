"""Faults on demand: their effects (``actions``), the requests they hit (``rules``), and refusals by name."""
