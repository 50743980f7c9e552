"""What can go wrong on demand: what a fault does (``actions``), whom it hits (``rules``), refusals by their names."""
