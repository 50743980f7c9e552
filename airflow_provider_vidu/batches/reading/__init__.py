"""Reads the rows of a batch from a file: JSON lines, CSV and Parquet, within limits."""
