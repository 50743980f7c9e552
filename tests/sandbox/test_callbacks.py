"""The sandbox's callbacks: as documented, signed, three tries, and the faults on demand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from airflow_provider_vidu.sandbox import Sandbox
from airflow_provider_vidu.sandbox.server import callbacks
from airflow_provider_vidu.ui.callbacks.signatures import is_signed
from tests.integration.servers import Request, Server, Wire, fixed

TEXT = {"model": "viduq3-turbo", "prompt": "a boat"}


class Receiver:
    """A server that keeps the callbacks it gets, and answers with a status."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.server = Server(self.answer)

    def answer(self, request: Request, wire: Wire) -> None:
        """Keep a request and answer it."""
        body = request.body
        missing = int(request.headers.get("content-length", 0)) - len(body)
        while missing > 0 and (more := wire.sock.recv(65536)):
            body, missing = body + more, missing - len(more)
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, body))
        fixed(self.status, b"")(request, wire)

    def words(self) -> list[str]:
        """Return the states that were reported."""
        return [json.loads(body)["state"] for _, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver."""
    receiver = Receiver()
    with receiver.server:
        yield receiver


@pytest.fixture
def service(monkeypatch) -> Iterator[Sandbox]:
    """Run a sandbox whose generations take a third of a second."""
    monkeypatch.setattr(callbacks, "RETRY_SECONDS", 0.05)
    with Sandbox(speed=50, queue=5, duration=15) as sandbox:
        yield sandbox


def create(service: Sandbox, url: str, **more: Any) -> str:
    """Submit a generation with a callback; return its id."""
    headers = {"Authorization": f"Token {service.key}"}
    body = {**TEXT, "callback_url": url, **more}
    answer = requests.post(f"{service.url}/ent/v2/text2video", json=body, headers=headers, timeout=10)
    answer.raise_for_status()
    return str(answer.json()["task_id"])


def wait_for(condition: Any) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_reports_as_documented(service, receiver):
    """Processing, then success: the query's answer without the id, signed with the key of the create."""
    url = receiver.server.url("/cb/abc")
    create(service, url, payload="mine")
    wait_for(lambda: len(receiver.got) == 2)
    assert receiver.words() == ["processing", "success"]
    headers, raw = receiver.got[1]
    body = json.loads(raw)
    assert "id" not in body
    assert body["payload"] == "mine"
    assert body["creations"][0]["url"].startswith(service.url)
    assert is_signed(service.key, "POST", "/cb/abc", "", headers, time.time())
    assert not is_signed("another", "POST", "/cb/abc", "", headers, time.time())


def test_an_end_is_tried_three_times(service, receiver):
    """Processing once, an end three times, while the delivery fails."""
    receiver.status = 500
    create(service, receiver.server.url("/cb"), prompt="[fail] a boat")
    wait_for(lambda: len(service.callbacks) == 4)  # recorded after the answer
    assert receiver.words() == ["processing", "failed", "failed", "failed"]
    assert [record.attempt for record in service.callbacks] == [1, 1, 2, 3]


def test_it_sends_to_loopback_only(service):
    """Another host gets nothing; the attempt is recorded."""
    create(service, "https://vendor.example/cb")
    wait_for(lambda: service.callbacks)
    assert service.callbacks[0].fault == "not a loopback address"


@pytest.mark.parametrize("action", ["wrong-key", "unsigned", "old-date", "wrong-path"])
def test_signatures_go_wrong_on_demand(service, receiver, action):
    """The fault hits the callback that it names, and the next is right."""
    service.add_callback_fault(action, word="processing")
    create(service, receiver.server.url("/cb"))
    wait_for(lambda: len(receiver.got) == 2)
    signed = [is_signed(service.key, "POST", "/cb", "", headers, time.time()) for headers, _ in receiver.got]
    assert signed == [False, True]


def test_deliveries_go_wrong_on_demand(service, receiver):
    """Lost, doubled, replayed, lying, without JSON: as asked, by the control API too."""
    service.add_callback_fault("lost", word="processing")
    answer = requests.post(f"{service.url}/_sandbox/callback-faults", json={"action": "replayed"}, timeout=10)
    assert answer.json() == {"faults": 2}
    create(service, receiver.server.url("/cb"))
    wait_for(lambda: len(receiver.got) == 2)
    nonces = {headers["x-request-nonce"] for headers, _ in receiver.got}
    assert (receiver.words(), len(nonces)) == (["success", "success"], 1)
    service.add_callback_fault("lying", word="processing")
    service.add_callback_fault("not-json", word="success")
    create(service, receiver.server.url("/cb"))
    wait_for(lambda: len(receiver.got) == 4)
    assert json.loads(receiver.got[2][1])["state"] == "success"
    assert receiver.got[3][1].startswith(b"<html>")
    sent = requests.get(f"{service.url}/_sandbox/callbacks", timeout=10).json()["callbacks"]
    assert sent[0]["fault"] == "lost"
    with pytest.raises(ValueError, match="action must be one of"):
        service.add_callback_fault("nonsense")
