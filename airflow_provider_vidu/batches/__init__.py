"""Many generations in one task: rows in, files and a manifest out."""
