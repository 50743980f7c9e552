"""Every figure of the provider beside its peers, measured in one run: ``make bench``."""

import os
from pathlib import Path

# Airflow makes its home when it is first imported: inside this folder, not in the user's.
os.environ["AIRFLOW_HOME"] = str(Path(__file__).resolve().parent.parent / "build" / "bench" / "airflow")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
