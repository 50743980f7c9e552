"""The settings of an Airflow connection: its form, its look-up, and what its fields mean."""
