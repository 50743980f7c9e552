"""A dry run of a batch (``[vidu] dry_run``): every row is checked, and nothing is sent or stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.batches.rows import Row
from airflow_provider_vidu.batches.settings import Settings
from airflow_provider_vidu.batches.submitting import fields_of
from airflow_provider_vidu.exceptions import ViduBatchFailedError, ViduError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.orders.dry_run import Offline
from airflow_provider_vidu.orders.media import Prepared

_LOGGED: Final = 20
"""How many of the rows that cannot be ordered are logged."""


def dry_batch(settings: Settings, rows: Sequence[Row], batch: str, log: Any) -> dict[str, Any]:
    """Check all rows as far as that is possible without sending anything; return a summary as plain JSON.

    :param log: gets the first rows that cannot be ordered, with their reasons.
    :raises ViduConfigError: when the connection is unusable.
    :raises ViduBatchFailedError: when so many rows cannot be ordered that the batch would fail.
    """
    hook = ViduHook(settings.vidu_conn_id)
    problems = [(row, problem) for row in rows if (problem := _problem(hook, row, settings.storage_conn_id))]
    for row, problem in problems[:_LOGGED]:
        log.warning("Dry run: row %s cannot be ordered: %s", row.key, problem)
    least, good = plan.least_stored(settings.min_success, len(rows)), len(rows) - len(problems)
    if good < least:
        raise ViduBatchFailedError(
            f"Dry run: {len(problems)} of {len(rows)} rows cannot be ordered, and min_success needs {least}. The first "
            f"is {problems[0][0].key}: {problems[0][1].reason}",
            conn_id=settings.vidu_conn_id,
        )
    log.info("Dry run: %d of %d rows would be ordered. Nothing was submitted.", good, len(rows))
    errors = Counter(type(problem).__name__ for _, problem in problems)
    return {"dry_run": True, "batch": batch, "rows": len(rows), "errors": dict(errors.most_common())}


def _problem(hook: ViduHook, row: Row, storage_conn_id: str | None) -> ViduError | None:
    """Return why a row cannot be ordered, as far as that is visible here."""
    dialect = hook.config.dialect
    try:
        fields, endpoint = fields_of(row)
        prepared = Prepared(fields, storage_conn_id)
        try:
            dialect.create(prepared.resolve(Offline(hook)), endpoint)  # type: ignore[arg-type]
        finally:
            prepared.close()
    except ViduError as error:
        return error
    return None
