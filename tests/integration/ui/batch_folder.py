"""The folder of a batch as its task leaves it: a journal with some rows of each kind, and files."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from airflow_provider_vidu.batches.jobs import Intent, intended, opened
from airflow_provider_vidu.batches.journal import Journal
from airflow_provider_vidu.batches.leg.beginning import begun
from airflow_provider_vidu.batches.lines import Line
from airflow_provider_vidu.batches.manifest import failed_line, open_of, reused_line, stored_line
from airflow_provider_vidu.batches.rows import Row, rows_of
from airflow_provider_vidu.exceptions import ViduError, ViduPolicyError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.orders.order import Order, OrderRecord
from airflow_provider_vidu.stores.base import StoredRecord
from airflow_provider_vidu.stores.destination import Destination


class BatchFolder:
    """A batch of rows whose keys are ``clip-0``, ``clip-1``, ….

    :param folder: where it keeps its files.
    :param count: how many rows it has.
    :param dag_id: the DAG that runs it.
    """

    def __init__(self, folder: Path, count: int, dag_id: str, name: str = "films-1a2b", conn_id: str = "none") -> None:
        self.folder = folder
        self.name = name
        self.began = time.time() - 600
        prompts = ({"key": f"clip-{n}", "prompt": f"A red kite above the sea, take {n}"} for n in range(count))
        self.rows: list[Row] = rows_of(list(prompts), {"model": "viduq2-turbo"})
        self.place = {
            "batch": name,
            "folder": f"file://{folder}/",
            "manifest": f"file://{folder}/{name}.manifest.jsonl",
            "conn_id": conn_id,
            "rows": count,
        }
        self.journal = Journal(Destination(f"{folder}/", None, None), name, lambda _: None)
        self.journal.open()
        events, _ = begun(self.journal.state, Order(0), self.began, 86_400, is_new=False, dag_id=dag_id)
        self.journal.append(*events)

    def submit(self, *numbers: int) -> None:
        """Let rows be at the service."""
        for n in numbers:
            job = open_of(self.rows[n], f"batch-{n}", self.began + n, None, f"r{n}", credits=20, seed=n)
            self.journal.append(opened(self.rows[n].key, job))

    def send(self, n: int, *, is_lost: bool = False) -> None:
        """Let a row's create be under way, or its outcome unknown."""
        intent = Intent(OrderRecord(0, "r", time.time()), is_lost=is_lost, index=n)
        self.journal.append({"e": "intent", **intended(self.rows[n].key, intent)})

    def store(self, n: int, content: bytes) -> Line:
        """Store the file of a row that is at the service."""
        row, job = self.rows[n], self.journal.state.open[self.rows[n].key]
        path = self.folder / f"{row.key}.mp4"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        record = StoredRecord(f"file://{path}", len(content), digest, "video/mp4", "https://x.example/v", existed=False)
        made = Generation(id=job.id, status="succeeded", credits=20, model="viduq2-turbo", raw={})
        line = stored_line(row, job, made, record, job.at + 60, job.at + 70)
        self.journal.append({"e": "line", "line": line})
        return line

    def reuse(self, n: int, line: Line) -> None:
        """Let a row be served by the file of another one."""
        self.journal.append({"e": "line", "line": reused_line(self.rows[n], line)})

    def fail(self, n: int, error: ViduError | None = None, **known: Any) -> None:
        """Let a row fail that is at the service, by its prompt if no error is given."""
        refused = "The prompt was refused: CreationPolicyViolation."
        error = error or ViduPolicyError(refused, code="CreationPolicyViolation")
        row = self.rows[n]
        line = failed_line(row, error, time.time(), job=self.journal.state.open.get(row.key), **known)
        self.journal.append({"e": "line", "line": line})
