"""Whether Airflow's "there is none" is true: it says so of a connection or a Variable that it could not look up, too.

Airflow asks one secrets backend after the other, only logs the error of one that fails, and reports as missing what no
other has. Since 3.1 this hides its API server's errors as well, in Airflow 2 those of the database. So before a missing
connection fails a task for good, or a missing record lets it pay, those that may have failed are asked once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

_WITHOUT_OUTAGES: Final = "EnvironmentVariablesBackend"
_API_SERVER: Final = "ExecutionAPISecretsBackend"
_OF_AIRFLOW: Final = (_API_SERVER, "MetastoreBackend")
"""Where Airflow writes Variables: no other backend holds what a task has written."""


def is_there_after_all(kind: Literal["connection", "variable"], name: str) -> bool:
    """Whether a backend has what Airflow has just reported as missing.

    :param name: the connection's id, or the Variable's key.
    :raises Exception: the error of a backend that could not look; its text or its frames may hold secrets.
    """
    for backend in _backends():
        is_asked = type(backend).__name__ in _OF_AIRFLOW if kind == "variable" else True
        if not is_asked or type(backend).__name__ == _WITHOUT_OUTAGES:
            continue
        if type(backend).__name__ == _API_SERVER:
            found = _of_api_server(kind, name)
        else:
            found = backend.get_variable(key=name) if kind == "variable" else backend.get_connection(conn_id=name)
        if found is not None:
            return True
    return False


def kinds_of(error: BaseException) -> str:
    """Return the types of an error and its causes, for a message: a backend's own text may quote what it has read."""
    kinds: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(kinds) < 3:
        kinds.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    return ", because of ".join(kinds)


def _backends() -> Iterable[Any]:
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

        return ensure_secrets_backend_loaded()
    from airflow.configuration import ensure_secrets_loaded

    return ensure_secrets_loaded()


def _of_api_server(kind: Literal["connection", "variable"], name: str) -> Any:
    """Ask the API server without the backend, which returns None for each of its errors."""
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time import comms, task_runner

    request = comms.GetVariable(key=name) if kind == "variable" else comms.GetConnection(conn_id=name)
    answer = task_runner.SUPERVISOR_COMMS.send(request)
    if not isinstance(answer, comms.ErrorResponse):
        return answer
    if answer.error.value.endswith("_NOT_FOUND"):
        return None
    raise AirflowRuntimeError(answer)
