"""What a clip page shows: facts from the records of Airflow, a clip's pieces, live states, and the views of all these."""
