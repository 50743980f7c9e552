"""What our tasks do with Airflow beside their work: kills, rendered fields, outlets, lineage, finished generations."""
