"""What the DAG shows of the downloads behind a generation, looked at before the generation is paid for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from airflow_provider_vidu.download_operator import ViduDownloadOperator
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.naming import checked_destination, is_shared, is_template, one_file_for_all

_ELSEWHERE: Final = ("queue", "executor", "executor_config", "run_as_user")
"""Where a task runs: what this worker lacks, another one may have."""


def check_downstream(operator: Any) -> None:
    """Check the destinations of all downloads downstream of a task, as far as they can be checked here and for nothing.

    To be called in a worker, before the order. Found are: no file system for the scheme of a destination, one outside
    of ``[vidu] destination_roots``, a local folder that this user cannot write to, a mapped download whose instances
    would write one file, a destination that is wrong in every run, and settings that no download can use. Nothing is
    written, no store is asked, and no store's package is imported. Whatever only a rendered template shows, or only
    another worker, is left to the download itself.

    :param operator: the task that is about to order a generation; one without a DAG has no downloads.
    :raises ViduConfigError: when a download is bound to fail; nothing has been ordered then.
    """
    for task in _downloads(operator):
        arguments = getattr(task, "partial_kwargs", None)
        is_mapped = arguments is not None
        found = arguments if arguments is not None else vars(task)
        destination = found.get("destination")
        if not isinstance(destination, str) and not hasattr(destination, "parts"):
            continue  # an XCom, or mapped over
        here = all(_place(operator, name) == _place(task, name) for name in _ELSEWHERE)
        if told := _problem(destination, found.get("storage_conn_id"), is_mapped=is_mapped, here=here):
            raise ViduConfigError(
                f"Nothing was ordered: the download {task.task_id!r} behind this task would fail. {told}"
            )


def _downloads(operator: Any) -> Iterator[Any]:
    try:
        tasks = list(operator.get_flat_relatives(upstream=False))
    except Exception:  # noqa: BLE001 - without a DAG (a unit test, an operator inside another) there is nothing behind it
        return
    for task in tasks:
        kind = getattr(task, "operator_class", type(task))
        if isinstance(kind, type) and issubclass(kind, ViduDownloadOperator):
            yield task


def _place(task: Any, name: str) -> Any:
    return getattr(task, name, None) or None


def _problem(destination: Any, conn_id: object, *, is_mapped: bool, here: bool) -> str | None:
    from airflow_provider_vidu.destination import Destination, missing_file_system, options_of
    from airflow_provider_vidu.http_target import deployment_hosts, most_bytes
    from airflow_provider_vidu.local_store import obstacle
    from airflow_provider_vidu.roots import check_destination, local_path

    if is_mapped and is_shared(destination):
        return one_file_for_all(destination)
    is_final = not is_template(str(destination))
    try:
        text = checked_destination(destination) if is_final else str(destination)
    except ViduConfigError as error:
        return error.reason
    if not here:
        return None
    if missing := missing_file_system(text, conn_id if isinstance(conn_id, str) else None):
        return missing.reason
    path = local_path(text)
    try:
        most_bytes()
        deployment_hosts()
        if is_final:
            check_destination(text)
        if is_final and path is not None:
            Destination(text, _final(conn_id), options_of(destination)).place("x" if text.endswith("/") else None)
            return obstacle(path, is_folder=text.endswith("/"))
    except ViduConfigError as error:
        return error.reason
    return None


def _final(conn_id: object) -> str | None:
    """Return a connection that is named as it will be used; a template may render to none."""
    return conn_id if isinstance(conn_id, str) and not is_template(conn_id) and conn_id.strip() else None
