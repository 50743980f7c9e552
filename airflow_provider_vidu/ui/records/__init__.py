"""What Airflow's database says of clips."""
