"""The order's record at the edges of a try: before it has a connection, when it returns, and after its success.

Before Airflow 3.3, DAG files load this module, for the callback of a success.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_vidu.common.text import redacted, sentence
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


@contextmanager
def resumes_order(context: Context, log: Any, *, is_durable: bool) -> Iterator[None]:
    """Make an error of the settings retryable if this order was already submitted: its generation is paid for.

    :param is_durable: whether the task keeps a record.
    :raises ViduConfigError: the error raised inside, if nothing was submitted.
    :raises ViduError: otherwise, and if that cannot be looked up; a retry resumes the order.
    """
    try:
        yield
    except ViduConfigError as error:
        from airflow_provider_vidu.orders.records import submitted_id
        from airflow_provider_vidu.tasks.deferral import not_resumed

        try:
            generation_id = submitted_id(context, log, is_durable=is_durable)
        except ViduError as unknown:
            message = f"{sentence(error.reason)} {sentence(unknown.reason)} A retry looks it up again."
            raise error.restated(ViduError, message) from error
        if generation_id:
            raise not_resumed(error, generation_id) from error
        raise


def record_returned(context: Context, log: Any, *, keeps: bool) -> None:
    """Record that the result was returned: if the task runs again after its success, it was cleared.

    :param keeps: whether the record must outlive the task's success.
    """
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
    from airflow_provider_vidu.orders.dry_run import is_dry
    from airflow_provider_vidu.orders.records import store_for

    if not is_dry(getattr(context.get("task"), "is_dry_run", False) is True):
        store_for(context).finished()
