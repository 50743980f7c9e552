"""The order's record at the edges of a try: before it has a connection, when it returns, and after its success.

Before Airflow 3.3, DAG files load this module, for the callback of a success.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_vidu.common.text import redacted, sentence
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


@contextmanager
def resumes_order(context: Context, log: Any, *, is_durable: bool) -> Iterator[None]:
    """Make an error of the settings retryable if this order was, or may have been, submitted: it may be paid for.

    :raises ViduConfigError: the error raised inside, if nothing was submitted.
    :raises ViduError: otherwise, and if that cannot be looked up; a retry resumes the order.
    """
    try:
        yield
    except ViduConfigError as error:
        from airflow_provider_vidu.orders.records import own_record
        from airflow_provider_vidu.tasks.deferral import not_resumed

        try:
            record = own_record(context, log, is_durable=is_durable)
        except ViduError as unknown:
            message = f"{sentence(error.reason)} {sentence(unknown.reason)} A retry looks it up again."
            raise error.restated(ViduError, message) from error
        if record is None:
            raise
        if record.generation_id is not None:
            raise not_resumed(error, record.generation_id) from error
        message = (
            f"{sentence(error.reason)} An earlier try of this task may have submitted a generation: once that is "
            "fixed, a retry searches for it. Without retries left, check the account's generations at the service."
        )
        raise error.restated(ViduError, message) from error


def record_id(context: Context, log: Any, generation_id: str, *, keeps: bool) -> None:
    """Store the id of a task's generation, which could not be stored right after the create; best effort.

    :param keeps: whether the record must outlive the task's success.
    """
    from airflow_provider_vidu.orders.records import own_record, store_for

    try:
        record = own_record(context, log, is_durable=True)
        if record is not None and record.generation_id is None:
            store_for(context, keeps=keeps).save(replace(record, generation_id=generation_id))
    except Exception as error:  # noqa: BLE001 - the wait goes on; a retry searches for it
        log.warning("Could not record generation %s: %s", generation_id, redacted(error))


def record_returned(context: Context, log: Any, *, keeps: bool) -> None:
    """Record that the result was returned: if the task runs again after its success, it was cleared."""
    from airflow_provider_vidu.orders.records import store_for

    try:
        store_for(context, keeps=keeps).returned()
    except Exception as error:  # noqa: BLE001 - the result is paid for; without the record a later clear may reuse it
        log.warning("Could not record that the result was returned: %s", redacted(error))


def forget_order(context: Context) -> None:
    """Forget the order on success, not in ``execute``: a try that fails after that still needs it.

    Airflow 3 calls this after it has recorded the success, Airflow 2 right before. A dry run has no order, so it leaves
    that of an earlier try alone.
    """
    from airflow_provider_vidu.api.dry_run import is_dry
    from airflow_provider_vidu.orders.records import store_for

    if not is_dry(getattr(context.get("task"), "is_dry_run", False) is True):
        store_for(context).finished()
