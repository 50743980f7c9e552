"""Where a poll meets a fault: a sandbox, a connection to it, and the ways in which a generation is asked for."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_vidu.events import read_event
from airflow_provider_vidu.exceptions import ViduError, ViduGenerationFailedError, ViduServerError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.polling.retries import Backoff
from airflow_provider_vidu.sandbox import Sandbox
from airflow_provider_vidu.sensors import ViduGenerationSensor
from airflow_provider_vidu.triggers import ViduGenerationTrigger

ID = "911088422699962368"
CONN_ID = "vidu_faults"
KEY = "sk-faults-91ab3c7d"
NATIVE, ENT = "vidu-native", "ent-v2"
BOTH = (NATIVE, ENT)
INTERVAL = 0.02

Result = dict[str, Any]
Arrange = Callable[["World"], None]


@dataclass(frozen=True)
class Fault:
    """A row of the matrix: what goes wrong, and what the user reads.

    :param name: as it stands in the table of faults.
    :param arrange: makes the fault; it stays until the world lifts it.
    :param error: the class of the error when it does not pass.
    :param says: a pattern in its message: what happened or what to do.
    :param tolerated: whether a wait sits it out within its budget, and a single request is repeated.
    :param dialects: those that it makes sense for.
    :param reaches: whether the service counts the requests.
    :param timeout: the connection's, in seconds; small where the fault is silence.
    :param budget: how many failures the connection and the wait tolerate.
    """

    name: str
    arrange: Arrange
    error: type[ViduError] = ViduServerError
    says: str = ""
    tolerated: bool = True
    dialects: tuple[str, ...] = BOTH
    reaches: bool = True
    timeout: float = 10.0
    budget: int = 2

    @property
    def tries(self) -> int:
        """How often the documented schedule asks before it gives up: once, and once more per tolerated failure."""
        return self.budget + 1 if self.tolerated else 1

    @property
    def only_in_a_wait(self) -> bool:
        """Whether a single request sees an answer like any other."""
        return self.error is ViduGenerationFailedError

    @property
    def requests(self) -> int:
        """How many of these the service sees."""
        return self.tries if self.reaches else 0


def answered(status: int = 200, body: Any = None, **action: Any) -> Arrange:
    """Let every query be answered so; without a body it is empty."""
    return acted(status=status, **({} if body is None else {"body": body}), **action)


def acted(**action: Any) -> Arrange:
    """Let the sandbox do this to every query."""
    return lambda world: world.fault(**action)


def rows(faults: list[Fault]) -> Any:
    """Parametrize a test with each fault in each dialect that it makes sense for."""
    return pytest.mark.parametrize(
        ("fault", "dialect"),
        [pytest.param(fault, name, id=f"{fault.name}-{name}") for fault in faults for name in fault.dialects],
    )


class World:
    """A sandbox with one finished generation, the connection to it, and what stands between.

    :param certificates: PEM files by name (``good``, ``stranger``, …), and ``ca``, which has signed them.
    :param settings: further settings of the sandbox.
    """

    kind = "query"
    """The requests that faults hit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, certificates: dict[str, str], **settings: Any) -> None:
        self.certificates = certificates
        self.dialect = NATIVE
        self.timeout, self.budget = 10.0, 2
        self._settings = {"keys": [KEY], "speed": 0, "allowed_hosts": ["vidu.invalid"], **settings}
        self.sandbox = Sandbox(**self._settings).start()
        self._monkeypatch = monkeypatch
        self._mend: Callable[[], None] = self._clear
        self._former: list[Sandbox] = []

    def close(self) -> None:
        """Stop the server."""
        self.sandbox.stop()

    # -- before ------------------------------------------------------------------------------------

    def prepare(self, fault: Fault, dialect: str) -> None:
        """Put the generation and the connection in place, then the fault."""
        self.settle(dialect, timeout=fault.timeout, budget=fault.budget)
        fault.arrange(self)

    def settle(self, dialect: str, *, timeout: float = 10.0, budget: int = 2) -> None:
        """Put a finished generation and a good connection in place."""
        self.dialect, self.timeout, self.budget = dialect, timeout, budget
        self.generation()
        self.connect()

    def generation(self, **fields: Any) -> None:
        """Add the generation; done unless ``states`` says otherwise."""
        done = "completed" if self.dialect == NATIVE else "success"
        self.sandbox.add_generation(ID, dialect=self.dialect, **{"states": [[done, 0]], **fields})

    def connect(self, **fields: Any) -> None:
        """Store the connection; ``host`` and ``password`` as well as extras may be changed."""
        extra = {"timeout": self.timeout, "max_retries": self.budget}
        stored = json.loads(self.sandbox.connection_json(self.dialect, **extra))
        stored |= {name: fields.pop(name) for name in ("host", "password") if name in fields}
        stored["extra"] |= fields
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(stored))

    # -- faults ------------------------------------------------------------------------------------

    def fault(self, *, times: int | None = None, **action: Any) -> None:
        """Let queries be answered like this."""
        self.sandbox.add_fault({"match": {"kind": self.kind}, "times": times, "action": action})

    def stop(self) -> None:
        """Refuse connections until the fault is lifted."""
        self.sandbox.stop()
        self._mend = lambda: self.sandbox.start() and None

    def serve(self, certificate: str | None) -> None:
        """Show another certificate at the same place (None: no TLS at all); lifted, it is the right one."""
        self._replace(certificate)
        port = self.sandbox.url.rpartition(":")[2]
        self.connect(host=f"https://127.0.0.1:{port}", verify=self.certificates["ca"])
        self._mend = lambda: self._replace("good")

    def unresolvable(self) -> None:
        """Give the service a name that does not resolve until the fault is lifted."""
        self._monkeypatch.setenv("NO_PROXY", "*")
        self._monkeypatch.setenv("no_proxy", "*")
        self.connect(host=f"http://vidu.invalid:{self.sandbox.url.rpartition(':')[2]}")
        resolve = socket.getaddrinfo

        def known(host: Any, *args: Any, **kwargs: Any) -> Any:
            return resolve("127.0.0.1" if host in ("vidu.invalid", b"vidu.invalid") else host, *args, **kwargs)

        self._mend = lambda: self._monkeypatch.setattr(socket, "getaddrinfo", known)

    def refuse(self) -> None:
        """Accept another key than the connection's until the fault is lifted."""
        self.sandbox.rotate_keys(["sk-another-key-55e1"])
        self._mend = lambda: self.sandbox.rotate_keys([KEY])

    def lift(self) -> None:
        """Let everything be well again."""
        self._mend()

    def _clear(self) -> None:
        self.sandbox.clear_faults()

    def _replace(self, certificate: str | None) -> None:
        self.sandbox.stop()
        self._former.append(self.sandbox)
        pem = self.certificates[certificate] if certificate else None
        port = int(self.sandbox.url.rpartition(":")[2])
        self.sandbox = Sandbox(**self._settings, port=port, tls=(pem, pem) if pem else None).start()
        self.generation()

    # -- after -------------------------------------------------------------------------------------

    @property
    def queries(self) -> int:
        """How many queries the service has seen; nothing else may reach it."""
        seen = [record for sandbox in (*self._former, self.sandbox) for record in sandbox.requests()]
        assert {record.kind for record in seen} <= {"query"}
        assert all(record.id == ID for record in seen)
        return len(seen)


@dataclass
class Patience:
    """Stands in for the delays between failed polls: short, counted, and able to end the fault.

    ``lift_after`` that many failures ``lift`` is called.
    """

    lift: Callable[[], None]
    lift_after: int | None = None
    errors: list[ViduError | None] = field(default_factory=list)

    def delay(self, _backoff: Backoff, failures: int, error: ViduError | None = None, _rng: Any = None) -> float:
        """Take the place of ``Backoff.delay``."""
        self.errors.append(error)
        if len(self.errors) == self.lift_after:
            self.lift()
        return 0.01


# -- the ways to ask -------------------------------------------------------------------------------


def sensor(budget: int, *, timeout: float = 60.0, **kwargs: Any) -> ViduGenerationSensor:
    """Make a sensor that polls quickly."""
    return ViduGenerationSensor(
        task_id="wait",
        generation_id=ID,
        vidu_conn_id=CONN_ID,
        poke_interval=INTERVAL,
        timeout=timeout,
        max_failures=budget,
        **kwargs,
    )


def fired(trigger: ViduGenerationTrigger) -> Result:
    """Run a trigger as the triggerer does and return the payload of its only event, as it is stored."""

    async def run() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (event,) = json.loads(json.dumps(asyncio.run(run())))
    return event


class Sync:
    """In a worker: the hook, and the sensor in poke mode."""

    name = "sync"

    def __init__(self, context: Result) -> None:
        self.context = context
        self.hook = ViduHook(CONN_ID)

    def once(self) -> Result:
        """Ask once, by the hook that lives on."""
        return self.hook.get_generation(ID).as_xcom()

    def wait(self, budget: int, **kwargs: Any) -> Result:
        """Wait in the worker: an attempt of the task."""
        return sensor(budget, **kwargs).execute(self.context)

    #: Polls that follow a wait that went well.
    after = 0
    attempt = wait


class Async:
    """On an event loop: the hook's coroutine, and the trigger."""

    name = "async"

    def __init__(self, context: Result) -> None:
        self.context = context
        self.hook = ViduHook(CONN_ID)

    def once(self) -> Result:
        """Ask once, by the hook that lives on."""
        return asyncio.run(self.hook.aget_generation(ID)).as_xcom()

    def wait(self, budget: int, **kwargs: Any) -> Result:
        """Wait on the loop; the event's error is raised as the task that is woken would."""
        trigger = ViduGenerationTrigger(
            generation_id=ID, vidu_conn_id=CONN_ID, poll_interval=INTERVAL, max_failures=budget, **kwargs
        )
        event = fired(trigger)
        assert KEY not in json.dumps(event)
        read_event(event, ID)
        return event

    #: The woken task asks once more, for fresh URLs.
    after = 1

    def attempt(self, budget: int, **kwargs: Any) -> Result:
        """Make an attempt of a deferrable task: a poll in the worker, the trigger, the waking."""
        try:
            return sensor(budget, deferrable=True, **kwargs).execute(self.context)
        except TaskDeferred as left:
            deferred = left
        event = fired(deferred.trigger)
        assert KEY not in json.dumps([event, deferred.trigger.serialize()])
        woken = sensor(budget, deferrable=True, **kwargs)
        return woken.resume_execution(deferred.method_name, {"event": event}, self.context)


Side = Sync | Async


def check(error: ViduError, fault: Fault) -> None:
    """Assert that an error tells the user what he needs, and not what he must not see."""
    told = str(error)
    assert type(error) is fault.error, told
    assert f"generation {ID}" in told
    assert f"connection {CONN_ID}" in told
    assert re.search(fault.says, told), told
    assert KEY not in told + repr(error) + json.dumps(error.details())
    assert error.retryable is fault.tolerated
    assert isinstance(error, AirflowFailException) is not fault.tolerated
