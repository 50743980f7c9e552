"""Every documented answer over real sockets, through both clients: requests and aiohttp."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import ViduError, ViduSubmitUnknownError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.models import Generation
from tests.documented_answers import CREATES, DIALECTS, QUERIES, REFUSALS, Refusal, Row
from tests.loopback import Exchange, Loopback
from tests.rows import each_row

pytestmark = pytest.mark.integration

ASKED = "911088422699962368"
CLIENTS: dict[str, Callable[[str], Generation]] = {
    "requests": lambda asked: ViduHook().get_generation(asked, retries=0),
    "aiohttp": lambda asked: asyncio.run(ViduHook().aget_generation(asked, retries=0)),
}
BOTH_CLIENTS = pytest.mark.parametrize("client", CLIENTS)
BOTH_DIALECTS = pytest.mark.parametrize("dialect", DIALECTS)


class Service(Loopback):
    """Answers every request with the same status and body, and counts."""

    def __init__(self) -> None:
        self.status, self.body, self.requests = 200, b"{}", 0
        super().__init__()

    def serve(self, exchange: Exchange) -> None:
        """Send the answer."""
        exchange.rfile.read(int(exchange.headers.get("Content-Length") or 0))
        self.requests += 1
        exchange.respond(self.status, self.body)

    def answer(self, body: Any, status: int = 200) -> None:
        """Answer so from now on."""
        self.status, self.body, self.requests = status, json.dumps(body).encode(), 0


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    """Run the service once for all rows."""
    with Service() as service:
        yield service


@pytest.fixture
def service(running, monkeypatch) -> Callable[..., Service]:
    """Return a function that sets the answer and the dialect of the default connection."""

    def serve(body: Any, dialect: str, status: int = 200, **extra: Any) -> Service:
        running.answer(body, status)
        stored = running.connected("key-of-documented-answers", **{"dialect": dialect, **extra})
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", stored)
        return running

    return serve


@each_row("row", QUERIES, ids=str)
@BOTH_CLIENTS
@BOTH_DIALECTS
def test_queries(service, row: Row, client: str, dialect: str) -> None:
    """Both clients read every documented answer to a query the same way, under both dialects."""
    service(row.body, dialect)
    asked = row.body.get("id") or ASKED
    found = CLIENTS[client](asked)
    assert found.id == asked
    assert {name: getattr(found, name) for name in row.means} == row.means


@each_row("row", [row for row in CREATES if not row.synchronous], ids=str)
@BOTH_DIALECTS
def test_creates(service, row: Row, dialect: str) -> None:
    """A create is sent once and its id comes back, in whatever form it is answered."""
    server = service(row.body, dialect)
    found = ViduHook().create_generation(model="viduq2", prompt="a cat", endpoint="/any/create")
    assert {name: getattr(found, name) for name in row.means} == row.means
    assert server.requests == 1


@each_row("row", REFUSALS, ids=str)
@BOTH_DIALECTS
def test_refusals(service, row: Refusal, dialect: str) -> None:
    """A refusal is a refusal: only what may have been carried out is called unknown; and nothing is sent twice."""
    server = service(row.body, dialect, row.status)
    with pytest.raises(ViduError) as caught:
        ViduHook().create_generation(model="viduq9-turbo", prompt="a cat", endpoint="/any/create")
    assert type(caught.value) is (ViduSubmitUnknownError if row.unknown else row.error)
    assert caught.value.code == row.code
    assert [part for part in row.says if part not in str(caught.value)] == []
    if row.code == "model_not_found":
        assert str(caught.value).count("viduq9-turbo") == 1
    if row.error.__name__ != "ViduCreditError":  # which asks for the balance as well
        assert server.requests == 1


@each_row("row", REFUSALS, ids=str)
@BOTH_CLIENTS
def test_errors_of_queries(service, row: Refusal, client: str) -> None:
    """Both clients read every documented error answer to a query the same way."""
    service(row.body, "vidu-native", row.status)
    with pytest.raises(ViduError) as caught:
        CLIENTS[client](ASKED)
    assert type(caught.value) is (row.query_error or row.error)
    assert caught.value.generation_id == ASKED


@pytest.mark.parametrize("name", ["video_queue_full", "get_channel_failed", "official_quota"])
def test_a_full_queue_is_asked_again(service, quick_backoff, name: str) -> None:
    """What was certainly not carried out is repeated, up to max_retries."""
    row = next(row for row in REFUSALS if row.name == name)
    server = service(row.body, "vidu-native", row.status, max_retries=2)
    with pytest.raises(row.error):
        ViduHook().create_generation(model="viduq2", prompt="a cat")
    assert server.requests == 3


def test_the_balance(service) -> None:
    """The balance is read under the name of the page's table, too."""
    service({"remaining_credits": [{"type": "metered", "credit_remain": 70}], "packages": []}, "ent-v2")
    assert ViduHook().get_credits().remaining == 70
    assert ViduHook().test_connection()[0]
