"""What a clip page shows: the facts that Airflow has recorded, a clip's pieces, live states, and the views of them."""
