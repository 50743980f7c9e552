"""The clip pages in the Airflow UI: a plugin of the API server, apart from all else in this package.

``plugin`` is what every Airflow process imports; ``app`` holds the routes and ``pages`` their shells and headers.
``facts``, ``pieces``, ``views`` and ``redirects`` decide without I/O. ``store`` and ``counts`` read the
metadata database, ``references`` what an XCom back end keeps elsewhere, and ``shared`` spares both; ``live`` asks the
service, ``preview`` opens stored files and ``media`` sends them. Nothing of the provider imports anything from here.
"""
