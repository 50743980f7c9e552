"""Reads a file of prompts for mapped tasks."""

from __future__ import annotations

from typing import Any

from airflow_provider_vidu.batches.reading.files import read_rows
from airflow_provider_vidu.batches.rows import rows_of


def load_prompts(
    path: Any, *, rows_format: str | None = None, storage_conn_id: str | None = None
) -> list[dict[str, Any]]:
    """Return the rows of a file as arguments of ``ViduGenerateOperator``, for ``expand_kwargs``.

    Call it in a task, because it reads a file::

        prompts = task(load_prompts)("s3://bucket/prompts.csv")
        ViduGenerateOperator.partial(task_id="film", model="viduq1").expand_kwargs(prompts)

    A row has the fields that :class:`ViduBatchOperator` documents; ``key`` and ``name`` are dropped.

    :param path: a local path, a URL of an object store, or a path object: JSON lines, CSV or Parquet.
    :param rows_format: ``jsonl``, ``csv`` or ``parquet``; if omitted, the extension decides.
    :param storage_conn_id: the Airflow connection of its store, unless the URL names one.
    :return: one dictionary per row, without empty fields.
    :raises ViduConfigError: when the file, or one of its rows, cannot be read.
    :raises ViduStorageError: when its store failed for a possibly transient reason.
    """
    loaded = []
    for row in rows_of(read_rows(path, rows_format, storage_conn_id), {}):
        if row.problem is not None:
            raise row.problem
        loaded.append({name: value for name, value in row.arguments.items() if value is not None})
    return loaded
