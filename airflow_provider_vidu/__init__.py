"""Airflow provider for Vidu: submit AI-video generations, wait for them without a worker, keep the files."""

__version__ = "0.1.0"
