"""The callback route as an ASGI application: every request gets one of a few answers, whatever it holds."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="the route needs the API server of Airflow 3")

from airflow_provider_vidu.tasks.callbacks.tokens import new_address, read_token
from airflow_provider_vidu.ui.callbacks import airflow_assets, airflow_tasks, nudging, routes
from airflow_provider_vidu.ui.callbacks.airflow_assets import UnawaitedOrder
from airflow_provider_vidu.ui.callbacks.airflow_tasks import WaitingTask
from airflow_provider_vidu.ui.callbacks.nudging import Nudger
from airflow_provider_vidu.ui.callbacks.routes import CallbackRoute
from airflow_provider_vidu.ui.callbacks.waking import Waker
from airflow_provider_vidu.ui.threads import Threads
from tests.callback_requests import signed_headers
from tests.properties import properties

KEY = "sk-callbacks"
PATH = "/vidu/callbacks/"


class Service:
    """A route with one task behind it, or with an order that no task waits for."""

    def __init__(
        self, *, key: str | None = KEY, path: str | None = PATH, age: float = 100.0, waits: bool = True
    ) -> None:
        self.instance = uuid4()
        self.address = new_address("https://h.example", self.instance)
        _, digest = read_token(self.address.token) or (None, "")
        arguments = {"generation_id": "911", "callback": digest, "vidu_conn_id": "c"}
        self.task = WaitingTask(self.instance, 1, time.time() - age, arguments)
        self.known = self.task if waits else UnawaitedOrder("c", digest, "911")
        self.resumed = 0
        self.nudged = 0
        self.key = key
        self.broken: Exception | None = None
        threads = Threads(2)
        waker, nudger = Waker(self.find, self.resume, threads), Nudger(self.nudge, threads)
        self.route = CallbackRoute(path, waker, self, nudger)  # type: ignore[arg-type]

    async def get(self, conn_id: str) -> str | None:
        """Return the key, as :class:`Keys` does."""
        return self.key

    def find(self, instances):
        """Return the task, if it is asked for."""
        if self.broken is not None:
            raise self.broken
        return {self.instance: [self.known]} if self.instance in instances else {}

    def resume(self, task, event):
        """Count."""
        self.resumed += 1
        return True

    def nudge(self, ended):
        """Count."""
        assert set(ended) == {("c", "911")}
        self.nudged += 1
        return 1

    async def send(
        self,
        *,
        token: str | None = None,
        method: str = "POST",
        headers=None,
        chunks=(b'{"state":"success"}',),
        pause=0.0,
    ) -> tuple[int, bytes]:
        """Send a request; return status and body of the answer."""
        token = self.address.token if token is None else token
        headers = signed_headers(KEY, PATH + token) if headers is None else headers
        raw = [
            (name.encode("latin-1", "replace"), str(value).encode("latin-1", "replace"))
            for name, value in headers.items()
        ]
        scope = {"type": "http", "method": method, "path_params": {"token": token}, "headers": raw, "query_string": b""}
        left = list(chunks)

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(pause)
            body = left.pop(0) if left else b""
            return {"type": "http.request", "body": body, "more_body": bool(left)}

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await self.route(scope, receive, send)
        return sent[0]["status"], sent[1]["body"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Gather nudges for no longer than one turn of the loop."""
    monkeypatch.setattr(nudging, "GATHER_SECONDS", 0.0)


async def test_a_signed_callback_resumes():
    """Token and signature right: 200 without a body."""
    service = Service()
    assert await service.send() == (200, b"")
    assert service.resumed == 1


async def test_a_large_payload_is_accepted_in_pieces_and_a_huge_one_refused(monkeypatch):
    """The echoed payload may be long; only the beginning is kept."""
    service = Service()
    assert await service.send(chunks=[b"x" * 100_000] * 30) == (200, b"")
    monkeypatch.setattr(routes, "MAX_BODY_BYTES", 1000)
    assert await service.send(chunks=[b"x" * 600] * 2) == (413, b"")
    assert service.resumed == 1


async def test_a_slow_body_ends(monkeypatch):
    """Even the service gets a limited time."""
    monkeypatch.setattr(routes, "BODY_SECONDS", 0.05)
    service = Service()
    assert await service.send(chunks=[b"x"] * 100, pause=0.02) == (408, b"")
    assert service.resumed == 0


async def test_bodies_at_once_are_bounded(monkeypatch):
    """Further ones are to be sent again."""
    monkeypatch.setattr(routes, "MAX_BODIES", 1)
    service = Service()
    answers = await asyncio.gather(*(service.send(chunks=[b"x"] * 3, pause=0.02) for _ in range(3)))
    assert sorted(status for status, _ in answers) == [200, 503, 503]


async def test_without_the_option_everything_is_refused():
    """No callback base URL: no task is even looked for."""
    service = Service(path=None)
    service.broken = AssertionError("looked")
    assert await service.send() == (404, b"")


async def test_a_database_that_fails_is_busy():
    """The answer shows nothing of the error, and the service may send again."""
    service = Service()
    service.broken = RuntimeError("password=hunter2")
    assert await service.send() == (503, b"")


async def test_a_callback_that_was_not_accepted_may_be_repeated_with_its_nonce(monkeypatch):
    """Only an accepted one uses its nonce up."""
    service = Service()
    headers = signed_headers(KEY, PATH + service.address.token)
    monkeypatch.setattr(routes, "MAX_BODIES", 0)
    assert await service.send(headers=headers) == (503, b"")
    monkeypatch.undo()
    assert await service.send(headers=headers) == (200, b"")
    assert await service.send(headers=headers) == (200, b"")
    assert service.resumed == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "https://h.example:x",
        "https://me@h.example",
        "https://h/?a=1",
        "https://h/a%20b",
        "https://h/a:b",
    ],
)
def test_a_wrong_base_url_takes_no_callbacks(monkeypatch, text):
    """It is logged, and the pages work on."""
    monkeypatch.setenv("AIRFLOW__VIDU__CALLBACK_BASE_URL", text)
    assert routes._registered_path() is None


def test_a_changed_airflow_takes_no_callbacks(monkeypatch, caplog):
    """If one of Airflow's names is missing, one line says so."""
    monkeypatch.setenv("AIRFLOW__VIDU__CALLBACK_BASE_URL", "https://h.example/team/")
    assert routes._registered_path() == "/team/vidu/callbacks/"
    monkeypatch.setattr(airflow_tasks, "_missing", "cannot import name 'handle_event_submit'")
    assert routes._registered_path() is None
    assert caplog.text.count("handle_event_submit") == 1


@properties(25, suppress_health_check=list(HealthCheck))
@given(
    token=st.one_of(st.text(max_size=60), st.text("abcXYZ019-_", min_size=44, max_size=44)),
    method=st.sampled_from(["POST", "GET", "PUT", "DELETE", "POST\n"]),
    headers=st.dictionaries(
        st.sampled_from(["Date", "x-request-nonce", "X-HMAC-SIGNED-HEADERS", "X-HMAC-SIGNATURE", "X-HMAC-ALGORITHM"]),
        st.text(max_size=40),
    ),
)
def test_fuzzed_requests_are_refused(token, method, headers):
    """Whatever a stranger sends is a 404 without a word, and resumes nothing."""
    service = Service()
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setattr(routes, "REFUSED_SECONDS", 0.0)
        assert asyncio.run(service.send(token=token, method=method, headers=headers)) == (404, b"")
    assert service.resumed == 0


@properties(25, suppress_health_check=list(HealthCheck))
@given(chunks=st.lists(st.binary(max_size=2000), max_size=5))
def test_fuzzed_bodies_of_the_service_resume_at_most_once(chunks):
    """Whatever a signed callback holds, it is answered 200, and the task checks for itself."""
    service = Service()
    assert asyncio.run(service.send(chunks=chunks)) == (200, b"")
    assert service.resumed <= 1


@pytest.mark.parametrize(
    ("body", "resumes"),
    [
        (b'{"state":"success"}', True),
        (b'{"status" : "failed"}', True),
        (b'{"state":"processing","payload":"\\"state\\":\\"success\\""}', False),
        (b'{"payload":"\\"state\\":\\"processing\\"","state":"success"}', True),
        (b'{"state":"Processing"}', False),
        (b'{"state":"cancelled"}', True),
        (b'{"state":7}', True),
        (b"", True),
    ],
)
async def test_only_a_state_that_goes_on_resumes_nothing(body, resumes):
    """An end, an unknown word and an unreadable body make the task check."""
    service = Service()
    assert await service.send(chunks=[body]) == (200, b"")
    assert service.resumed == int(resumes)


async def test_a_callback_that_no_task_waits_for_nudges():
    """Once, however often the same one is sent; a state that goes on nudges nothing."""
    service = Service(waits=False)
    headers = signed_headers(KEY, PATH + service.address.token)
    assert await service.send(chunks=[b'{"state":"processing"}']) == (200, b"")
    assert service.nudged == 0
    for _ in range(3):
        assert await service.send(headers=headers) == (200, b"")
    assert (service.nudged, service.resumed) == (1, 0)


async def test_a_nudge_needs_token_and_signature(monkeypatch):
    """What is refused for a wait is refused for an order without one, with the same answer."""
    monkeypatch.setattr(routes, "REFUSED_SECONDS", 0.0)
    service = Service(waits=False)
    path = PATH + service.address.token
    secret = new_address("https://h.example", service.instance).token
    for wrong in (
        {"headers": {}},
        {"headers": signed_headers("another", path)},
        {"headers": signed_headers(KEY, path, at=time.time() - 3600)},
        {"headers": signed_headers(KEY, PATH)},
        {"method": "GET"},
        {"token": secret},
        {"token": service.address.token + "="},
    ):
        assert await service.send(**wrong) == (404, b"")
    assert service.nudged == 0
    assert await service.send() == (200, b"")
    assert service.nudged == 1


async def test_a_nudge_that_cannot_be_written_may_be_sent_again():
    """A busy database is a 503 without a word, and the nonce is not used up."""
    service = Service(waits=False)
    headers = signed_headers(KEY, PATH + service.address.token)
    service.route._nudger._nudge = lambda ended: 1 / 0
    assert await service.send(headers=headers) == (503, b"")
    service.route._nudger._nudge = service.nudge
    assert await service.send(headers=headers) == (200, b"")
    assert service.nudged == 1


def test_an_airflow_without_states_still_resumes_tasks(monkeypatch, caplog):
    """Before 3.3, or with another backend, only waits are looked for, and one line says so."""
    caplog.set_level("INFO")
    monkeypatch.setattr(airflow_assets, "_missing", "No module named 'airflow.state'")
    assert routes._finder(PATH) is airflow_tasks.find_waiting
    assert caplog.text.count("airflow.state") == 1
    assert routes._finder(None) is airflow_tasks.find_waiting


def test_a_wait_goes_before_the_order(monkeypatch):
    """An order whose task waits is not looked up: the task is resumed, and its end is its own report."""
    service = Service()
    other = uuid4()
    asked = []

    def find_unawaited(instances):
        asked.append(set(instances))
        return {other: [service.known]}

    monkeypatch.setattr(airflow_tasks, "find_waiting", service.find)
    monkeypatch.setattr(airflow_assets, "find_unawaited", find_unawaited)
    assert routes._find([service.instance, other]) == {service.instance: [service.task], other: [service.known]}
    assert asked == [{other}]


@properties(25, suppress_health_check=list(HealthCheck))
@given(chunks=st.lists(st.binary(max_size=2000), max_size=5))
def test_fuzzed_bodies_of_the_service_nudge_at_most_once(chunks):
    """As for waits: answered 200, and the trigger checks for itself."""
    service = Service(waits=False)
    assert asyncio.run(service.send(chunks=chunks)) == (200, b"")
    assert service.nudged <= 1
    assert service.resumed == 0


def test_tokens_are_unguessable_and_canonical():
    """Two orders of one task instance have different tokens, and a token has one spelling."""
    instance = uuid4()
    one, other = new_address("https://h", instance), new_address("https://h", instance)
    assert one.token != other.token
    assert len(one.token) == 44
    assert read_token(one.token) == (instance, one.digest)
    assert one.token not in repr(one)
    for wrong in (
        one.token + "=",
        one.token[:-1],
        one.token + "A",
        one.token[:-1] + "+",
        "",
        secrets.token_hex(22) + "\n",
    ):
        assert read_token(wrong) is None


@pytest.mark.fault(
    "attacks",
    "callbacks for hundreds of orders whose records hold 64 kB of empty lists",
    outcome="survived",
    side="callbacks",
    seen="they are not parsed",
)
def test_records_of_many_values_are_not_parsed() -> None:
    """Users who may edit task instances write them, and one query reads two hundred; those of orders are read."""
    record = '{"order": 1, "marker": "", "callback": "x", "nudges": "y", "generation_id": "1", "looks": {"a": [%s0]}}'
    began = time.process_time()
    assert [airflow_assets._order(record % ("[]," * 21_000)) for _ in range(200)] == [None] * 200
    assert time.process_time() - began < 1
    assert airflow_assets._order(record % ("[]," * 100)) == UnawaitedOrder("y", "x", "1")
