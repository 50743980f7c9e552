"""The API server alone, on a database of its own: what the clip pages live in. Ends with its standard input."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading


def main(descriptor: int) -> None:
    """Make the database and serve on an inherited socket; ``ready`` is printed when requests are taken."""
    gc.disable()  # while it starts: the collector searched all that was imported again and again, for seconds
    import uvicorn
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils.db import initdb

    initdb()
    DagBundlesManager().sync_bundles_to_db()  # PostgreSQL refuses DAGs without their bundle
    from airflow.api_fastapi.main import app

    class Server(uvicorn.Server):
        async def startup(self, *args, **kwargs):
            await super().startup(*args, **kwargs)
            gc.freeze()
            gc.enable()
            print("ready", flush=True)
            # Nobody reads on: a full pipe would stop the server at its next log line.
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    server = Server(uvicorn.Config(app, log_level="warning"))

    def end() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
