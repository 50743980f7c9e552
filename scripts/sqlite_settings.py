"""SQLite settings of a private Airflow, copied into its home as ``config/airflow_local_settings.py``.

SQLite allows one writer at a time. With the default timeout of Python's driver, five seconds, a scheduler failed with
"database is locked" on a disk that took 0.2 s per commit.

The API server keeps that default. It writes its audit log on the event loop (seen in 3.3.2), and a request that holds
the lock meanwhile cannot end without the loop. That deadlock lasts as long as the timeout: sixty seconds ended a
scheduler that waited, too. The client gets an error, and repeats the request.
"""

import sys
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Engine

#: Exports nothing to Airflow, such as a policy.
__all__: list[str] = []

#: How long a writer waits for another one.
BUSY_TIMEOUT_MS: Final = 5_000 if "api-server" in sys.argv else 60_000


@event.listens_for(Engine, "connect")
def _set_up(connection: Any, _record: object) -> None:
    if "sqlite" not in type(connection).__module__:  # part of the module name of both drivers, sync and async
        return
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    # With a write-ahead log (default of Airflow 3, not 2) the disk is synced once per thousand pages instead of per
    # commit. A power failure may lose the last transactions but does not corrupt the file.
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()
