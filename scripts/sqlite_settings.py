"""How a private Airflow uses its SQLite; goes into its home as ``config/airflow_local_settings.py``.

SQLite lets one process write at a time. A scheduler that waited for five seconds, as Python's driver does
unless told otherwise, ends with "database is locked"; seen where the disk took a fifth of a second for
every commit.
"""

from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Engine

#: Nothing for Airflow to take over, such as a policy.
__all__: list[str] = []

BUSY_TIMEOUT_MS: Final = 60_000  # milliseconds that a writer waits for the one before it


@event.listens_for(Engine, "connect")
def _set_up(connection: Any, _record: object) -> None:
    if "sqlite" not in type(connection).__module__:  # the synchronous driver's and the asynchronous one's have it
        return
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    # With a write-ahead log (Airflow 3 asks for it, Airflow 2 does not) the disk is waited for once in a thousand
    # pages instead of at every commit. What a power failure may take is the last transactions; the file stays sound.
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()
