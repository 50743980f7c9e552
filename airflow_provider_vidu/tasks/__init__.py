"""What our tasks do with Airflow beside their work: wait, end, take turns, render fields, report files and XComs."""
