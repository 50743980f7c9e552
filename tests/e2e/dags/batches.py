"""Batches whose workers are killed from outside: each leg writes down its process."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_vidu.operators import ViduBatchOperator


class FoundOperator(ViduBatchOperator):
    """A batch operator whose legs can be found: a line with process id and memory (bytes) for each of them."""

    def execute(self, context: Any) -> Any:
        """Begin, or resume after a kill."""
        self._note(context)
        return super().execute(context)

    def execute_resumed(self, context: Any, event: dict[str, Any] | None = None) -> Any:
        """Resume after a deferral."""
        self._note(context)
        return super().execute_resumed(context, event)

    def _note(self, context: Any) -> None:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        with Path(context["params"]["legs"]).open("a") as file:
            file.write(f"{os.getpid()} {resident}\n")


PARAMS = {name: Param("/tmp/", type="string") for name in ("rows", "folder", "legs", "conn_id")}

for limit in (12, 50):
    with DAG(f"e2e_batch_{limit}", schedule=None, params=PARAMS):
        FoundOperator(
            task_id="films",
            rows="{{ params.rows }}",
            destination="{{ params.folder }}",
            vidu_conn_id="{{ params.conn_id }}",
            model="m",
            max_in_flight=limit,
            deferrable=True,
            timeout=timedelta(hours=1),
            retries=30,
            retry_delay=timedelta(seconds=1),
        )
