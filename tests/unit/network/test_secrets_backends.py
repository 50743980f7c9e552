"""Whether Airflow's "there is none" is believed: it hides the errors of its secrets backends and of its API server."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_vidu.api.settings import connection
from airflow_provider_vidu.exceptions import (
    ViduConnectionNotFoundError,
    ViduError,
    ViduStorageError,
    ViduTransportError,
)
from airflow_provider_vidu.network import secrets_backends
from airflow_provider_vidu.orders import records
from airflow_provider_vidu.orders.order import OrderRecord
from airflow_provider_vidu.stores.destination import Destination
from tests.versions import AIRFLOW

SECRET = "sk-unit-of-a-vault"


class Vault:
    """A secrets backend that fails as often as it is told to.

    ``down`` is how many look-ups fail, ``kept`` what it holds, ``asked`` counts the look-ups.
    """

    def __init__(self, down: int = 0, kept: dict[str, Any] | None = None) -> None:
        self.down = down
        self.kept = kept or {}
        self.asked = 0

    def get_connection(self, conn_id: str) -> Any:
        """Return a connection, None, or fail with an error that quotes a secret."""
        return self._found(conn_id)

    def get_variable(self, key: str) -> Any:
        """Return a Variable, None, or fail."""
        return self._found(key)

    def _found(self, name: str) -> Any:
        self.asked += 1
        if self.down:
            self.down -= 1
            raise ConnectionError(f"sealed: {SECRET}")
        return self.kept.get(name)


class MetastoreBackend(Vault):
    """Airflow's own backend by its name."""


class EnvironmentVariablesBackend(Vault):
    """Airflow's own backend by its name: a variable that cannot be read is a mistake, not an outage."""


@pytest.fixture
def asks(monkeypatch):
    """Let Airflow ask these backends, and hide their errors, as its own look-ups do."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    def asks(*backends: Vault) -> None:
        def hiding(kind: str, name: str) -> Any:
            for backend in backends:
                try:
                    if (found := getattr(backend, f"get_{kind}")(name)) is not None:
                        return found
                except ConnectionError:
                    continue
            return None

        def get_connection(conn_id: str) -> Any:
            if (found := hiding("connection", conn_id)) is None:
                raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")
            return found

        class Variables:
            @staticmethod
            def get(key: str, **_: Any) -> Any:
                return hiding("variable", key)

        monkeypatch.setattr(secrets_backends, "_backends", lambda: backends)
        monkeypatch.setattr(connection.BaseHook, "get_connection", staticmethod(get_connection))
        monkeypatch.setattr(records, "Variable", Variables)

    return asks


KNOWN = SimpleNamespace(conn_type="vidu", host="gw.example.com", schema=None, password=SECRET, port=None, login=None,
                        extra={})  # fmt: skip


def test_a_backend_that_is_down(asks):
    """The error may be retried and quotes nothing; one that is back at once costs nothing."""
    vault = Vault(99, {"unit_vidu": KNOWN})
    asks(vault)
    with pytest.raises(ViduTransportError, match=r"could not be looked up \(ConnectionError") as caught:
        connection.resolve("unit_vidu")
    assert caught.value.retryable
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    vault.down = 1
    assert connection.resolve("unit_vidu").base_url == "https://gw.example.com"


@pytest.mark.parametrize("backend", [Vault(), MetastoreBackend(), EnvironmentVariablesBackend(99)], ids=["a", "b", "c"])
def test_a_missing_connection(asks, backend):
    """What all backends answer that they do not have is missing, and so is what the environment holds unreadably."""
    asks(backend)
    with pytest.raises(ViduConnectionNotFoundError):
        connection.resolve("unit_vidu")


def test_a_store_whose_connection_cannot_be_looked_up(asks):
    """Nothing is written with the worker's own credentials, and the download may be retried."""
    asks(Vault(99))
    with pytest.raises(ViduStorageError, match=r"'my_aws' could not be looked up \(ConnectionError\)") as caught:
        _ = Destination("s3://bucket/clips/", "my_aws")._file_system
    assert SECRET not in str(caught.value)


def test_a_record_that_could_not_be_looked_up(asks):
    """Taken for missing, it would let a retry pay again. Backends of others are not asked: they hold no record."""
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)
    store = records.VariableStore(ti)
    record = OrderRecord(0, "m", 1.0, generation_id="g1")
    database = MetastoreBackend(99, {store._key: json.dumps(record.to_json())})
    asks(database)
    with pytest.raises(ViduError, match=r"the Variable .* up \(ConnectionError\), so nothing was submitted"):
        store.load()
    database.down = 1
    assert store.load() == record
    database.kept.clear()
    vault = Vault(99)
    asks(vault, database)
    assert store.load() is None
    assert vault.asked == 1


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="Before 3.1, Airflow reports errors of its API server.")
@pytest.mark.parametrize(("kind", "word"), [("connection", "CONNECTION"), ("variable", "VARIABLE")])
def test_an_error_of_the_api_server(monkeypatch, kind, word):
    """Airflow's backend returns None for each of them; only "not found" means that."""
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time import comms, task_runner
    from airflow.sdk.execution_time.secrets.execution_api import ExecutionAPISecretsBackend

    answers = [ErrorType.API_SERVER_ERROR, ErrorType[f"{word}_NOT_FOUND"]]
    supervisor = SimpleNamespace(send=lambda _: comms.ErrorResponse(error=answers.pop(0)))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    monkeypatch.setattr(secrets_backends, "_backends", lambda: [ExecutionAPISecretsBackend()])
    with pytest.raises(AirflowRuntimeError):
        secrets_backends.is_there_after_all(kind, "x")
    assert not secrets_backends.is_there_after_all(kind, "x")
    answers.append(ErrorType.API_SERVER_ERROR)
    assert getattr(ExecutionAPISecretsBackend(), f"get_{kind}")("x") is None  # what is worked around


def test_a_backend_that_is_down_for_a_triggerer(asks, monkeypatch):
    """Its waits continue with the connection that they know; for a missing one they would pause."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    async def get_async(conn_id: str, hook: Any = None) -> Any:
        raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")

    monkeypatch.setattr("airflow.providers.common.compat.connection.get_async_connection", get_async)
    vault = Vault(99, {"unit_vidu": KNOWN})
    asks(vault)
    with pytest.raises(ViduTransportError, match=r"could not be looked up \(ConnectionError"):
        asyncio.run(connection.aresolve("unit_vidu"))
    vault.down = 0
    assert asyncio.run(connection.aresolve("unit_vidu")).base_url == "https://gw.example.com"
    with pytest.raises(ViduConnectionNotFoundError):
        asyncio.run(connection.aresolve("unit_other"))
