"""What Airflow has recorded about clips: queries of its database, counts of a run, and XComs kept elsewhere."""
