"""The page *Vidu* of Airflow's navigation: what the generations of all DAGs have cost."""
