"""Creates whose answer was lost, on a list as the vendor documents it: no payloads, ten entries a page."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.clients.sync_client import SyncClient
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.orders.order import Order, OrderRecord
from airflow_provider_vidu.orders.submission import Submission
from tests.integration.documented import DocumentedService
from tests.integration.orders.test_submission import Memory

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("quick_backoff")]

BODY = {"model": "m", "prompt": "a cat with wings"}


@pytest.fixture
def service(monkeypatch) -> Iterator[DocumentedService]:
    """Run the service, with the default connection to it."""
    with DocumentedService() as running:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", running.connection())
        yield running


def run(
    store: Memory, *, body: dict[str, Any] = BODY, number: int = 0, endpoint: str | None = None, **kwargs: Any
) -> str:
    """Make one try of an order; return the id of its generation."""
    order = Order(number, number, counts_every_clear=True)
    submission = Submission(ViduHook(), store, order, logging.getLogger(), sleep=lambda _: None, **kwargs)
    return submission.generation(body, endpoint).id


def lose(service: DocumentedService, store: Memory, body: dict[str, Any] = BODY) -> str:
    """Make a try whose create is carried out and not answered; return the id."""
    service.loses = 1
    with pytest.raises(exceptions.ViduSubmitUncertainError):
        run(store, body=body)
    return service.tasks[0]["id"]


@pytest.mark.fault(
    "orders",
    "the answer to a create is lost, and the list shows no payloads",
    outcome="survived",
    seen="the retry resumes the wait for the lost generation",
)
@pytest.mark.parametrize("payload", [{}, {"payload": "the user's own"}], ids=["marked", "the user's payload"])
def test_a_lost_create_is_found_behind_newer_ones(service, payload):
    """By model, prompt and time, on whichever page; paid once, also where the order carries no marker of ours."""
    body = {**BODY, **payload}
    store = Memory()
    lost = lose(service, store, body)
    for number in range(230):
        service.add(number, prompt=f"another {number}")
    assert run(store, body=body) == lost
    assert store.load().generation_id == lost
    assert service.creates == 1
    assert len(service.queries) == 3
    assert all("created_at.from" in query for query in service.queries)


def test_a_create_that_never_arrived_is_submitted(service):
    """The whole list since the intent was read and nothing fits: nothing was created, and the retry submits."""
    store = Memory()
    service.add("old", prompt=BODY["prompt"], age=7200)
    for number in range(25):
        service.add(number, prompt=f"another {number}")
    service.drops = 1
    with pytest.raises(exceptions.ViduSubmitUncertainError):
        run(store)
    assert run(store) == "1001"
    assert service.creates == 1


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("one-click/mv", {"images": ["https://m.example/1.png"], "audio_url": "https://m.example/1.mp3"}),
        ("audio-tts", {"text": "hello", "voice_setting_voice_id": "v"}),
        ("/ent/v2/unheard-of", {"prompt": "a cat"}),
    ],
)
def test_absence_from_the_list_proves_nothing_of_what_it_may_not_show(service, endpoint, body):
    """No page says that the list shows these products: an empty list leaves the outcome unknown, nothing is paid."""
    service.unlisted = ("mv", "audio-tts", "unheard-of")
    store = Memory()
    service.loses = 1
    with pytest.raises(exceptions.ViduSubmitUncertainError):
        run(store, body=body, endpoint=endpoint)
    with pytest.raises(exceptions.ViduSubmitUnknownError, match="does not list such generations"):
        run(store, body=body, endpoint=endpoint)
    assert service.creates == 1


def test_twins_are_told_apart_by_their_queries(service):
    """The list shows no payload, the queries of the entries that fit do: the lost one of twenty is found."""
    store = Memory()
    lost = lose(service, store)
    for number in range(19):
        service.add(number, prompt=BODY["prompt"], payload=f"airflow:{number}" if number % 2 else "")
    assert run(store) == lost
    assert service.creates == 1


def test_the_generation_of_a_twin_is_not_taken_over(service):
    """The only entry that fits carries the marker of another order: this order's create never arrived."""
    store = Memory()
    service.drops = 1
    with pytest.raises(exceptions.ViduSubmitUncertainError):
        run(store)
    service.add("twin", prompt=BODY["prompt"], payload="airflow:of-another-task")
    assert run(store) == "1001"


@pytest.mark.fault(
    "orders",
    "the answer to a create is lost, and its twins are on the list",
    outcome="clear error",
    says="It may be one of these",
)
def test_twins_are_named_and_nothing_is_paid(service):
    """Where the queries show no payload either, it is not guessed which is lost, and the error says what to do."""
    service.echoes = False
    store = Memory()
    lost = lose(service, store)
    for number in range(1, 26):
        service.add(number, prompt=BODY["prompt"])
    with pytest.raises(exceptions.ViduSubmitUnknownError, match="It may be one of these") as caught:
        run(store)
    assert "25, 24, 23" in caught.value.reason
    assert "and 6 more" in caught.value.reason
    assert "clear this task: it searches once more" in caught.value.reason
    assert service.creates == 1
    # A clear says it once more, in the new try's own log; the next one orders.
    with pytest.raises(exceptions.ViduSubmitUnknownError, match="clear this task to submit a new one"):
        run(store, number=1)
    assert run(store, number=2) not in (lost, None)


def test_a_clear_with_another_prompt_finds_what_was_lost(service):
    """The record holds what the lost create looks like: it is cancelled, and the new request is submitted."""
    store = Memory()
    lost = lose(service, store)
    assert run(store, number=1, body={**BODY, "prompt": "a dog"}) != lost
    assert service.creates == 2


def test_the_time_of_the_latest_send_counts(service, monkeypatch):
    """A create that was turned away for minutes before it was lost is looked for at the time of its last send."""
    store = Memory()
    saved: list[OrderRecord] = []
    save = store.save
    monkeypatch.setattr(store, "save", lambda record: (saved.append(record), save(record)))
    sent = SyncClient.submit

    def twice(client: SyncClient, body: Any, endpoint: Any, before_send: Any, **options: Any) -> Any:
        before_send()
        return sent(client, body, endpoint, before_send, **options)

    monkeypatch.setattr(SyncClient, "submit", twice)
    run(store)
    assert [record.began for record in saved] == [saved[0].began] * 3
    assert saved[1].at > saved[0].at


def test_what_an_older_version_has_stored(service):
    """Its record knows the marker alone: alike entries are candidates, and an empty list proves absence."""
    old = {"order": 0, "marker": "airflow:m", "at": time.time() - 60, "marked": True, "generation_id": None}
    store = Memory()
    store.stored = {**old, "request": "unknown"}
    service.add("1", prompt="any")
    with pytest.raises(exceptions.ViduSubmitUnknownError, match="one of these: 1"):
        run(store)
    service.tasks.clear()
    assert run(store) == "1001"


def test_the_account_is_listed_page_by_page(service):
    """The hook returns what was asked for, up to the limit; states and times go to the service."""
    for number in range(1, 231):
        service.add(number, state="failed" if number % 2 else "success", age=1000 - number)
    hook = ViduHook()
    assert len(hook.list_generations()) == 230
    assert len(hook.list_generations(limit=30)) == 30
    assert {found.provider_status for found in hook.list_generations(states="failed")} == {"failed"}
    assert service.queries[-1]["states"] == ["failed"]
    newest = service.tasks[9]["created_at"]
    assert len(hook.list_generations(created_from=newest)) == 10
    with pytest.raises(exceptions.ViduConfigError, match="limit"):
        hook.list_generations(limit=-1)
    with pytest.raises(exceptions.ViduConfigError, match="created_to"):
        hook.list_generations(created_to="soon")


@pytest.mark.parametrize("payload", [{}, {"payload": "the user's own"}], ids=["marked", "the user's payload"])
def test_the_list_of_another_account_proves_nothing(service, monkeypatch, payload):
    """A retry whose connection leads elsewhere orders nothing there; set back, it finds what is paid for."""
    body = {**BODY, **payload}
    store = Memory()
    paid = lose(service, store, body)
    own = service.connection()
    with DocumentedService() as other:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", other.connection())
        with pytest.raises(exceptions.ViduSubmitUncertainError, match=r"connection vidu_default \(http.* back"):
            run(store, body=body)
        assert other.tasks == []
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", own)
    assert run(store, body=body) == paid
    assert len(service.tasks) == 1


def test_what_another_accounts_list_cannot_prove_is_given_up_by_a_second_clear(service, monkeypatch):
    """As an inconclusive list is."""
    store = Memory()
    lose(service, store)
    with DocumentedService() as other:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", other.connection())
        with pytest.raises(exceptions.ViduSubmitUnknownError):
            run(store, number=1)
        assert run(store, number=2) == other.tasks[0]["id"]


def test_an_order_by_a_version_that_noted_no_service_is_searched_for(service):
    """Its record names none, and the connection is taken to be the same."""
    store = Memory()
    paid = lose(service, store)
    store.save(replace(store.load(), service=""))
    assert run(store) == paid
