"""The clip pages in the Airflow UI: a plugin of the API server, apart from all else in this package.

``plugin`` is what every Airflow process imports; ``app`` holds the routes; ``facts``, ``views`` and ``roots``
decide without I/O; ``store`` reads the metadata database, ``live`` asks the service, ``preview`` opens stored
files and ``media`` sends them. Nothing of the provider imports anything from here.
"""
