"""The list of tasks: pages, filters, and what its entries hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest

from tests.sandbox.service import INLINE_PNG, Service

DOCUMENTED = {
    *("id", "key_id", "type", "template", "model", "prompt", "images", "duration", "resolution", "aspect_ratio"),
    *("state", "creations", "created_at", "credits"),
}


def listed(service: Service, **query) -> dict:
    """Return the body of a list; a list stands for a repeated parameter."""
    wanted = {name.replace("__", "."): value for name, value in query.items()}
    status, body = service.ent("GET", f"tasks?{urlencode(wanted, doseq=True)}")
    assert status == 200, body
    return body


def ids(body: dict) -> list[str]:
    """Return the ids of a list, in its order."""
    return [task["id"] for task in body["tasks"]]


@pytest.fixture
def crowd(service) -> list[str]:
    """Return the ids of 25 tasks, created a second apart, the newest first."""
    found = []
    for number in range(25):
        service.real += 1
        found.append(service.task(prompt=f"prompt {number}"))
    return found[::-1]


def test_ten_a_page_newest_first(service, crowd) -> None:
    """The token leads from page to page, and is empty on the last."""
    pages, token = [], None
    while token != "":
        body = listed(service, **({"pager__page_token": token} if token else {}))
        pages.append(ids(body))
        token = body["next_page_token"]
    assert pages == [crowd[:10], crowd[10:20], crowd[20:]]


def test_a_new_task_does_not_shift_the_next_page(service, crowd) -> None:
    """A token names a place in the list, not a number of entries."""
    token = listed(service)["next_page_token"]
    service.real += 1
    service.task()
    assert ids(listed(service, pager__page_token=token)) == crowd[10:20]


def test_the_record_names_what_a_list_showed(service, crowd) -> None:
    """One page at a time; a list that arrived in part showed nothing, like any other answer."""
    listed(service)
    service.ent("GET", f"tasks/{crowd[0]}/creations")
    service.core.add_rule({"match": {"kind": "list"}, "action": {"garbage": "truncated-json"}})
    with pytest.raises(json.JSONDecodeError):
        listed(service)
    assert [request.listed for request in service.core.ledger.requests][-3:] == [tuple(crowd[:10]), (), ()]


def test_pages_by_number(service, crowd) -> None:
    """They count from 0; beyond the end there is nothing."""
    assert ids(listed(service, pager__page=1, pager__pagesz=20)) == crowd[20:]
    assert ids(listed(service, pager__page=9)) == []


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("pager.pagesz=101", "PageSizeOutOfRange"),
        ("pager.pagesz=0", "PageSizeOutOfRange"),
        ("pager.pagesz=x", "FieldInvalid"),
        ("pager.page=-1", "FieldInvalid"),
        ("pager.page_token=%21", "FieldInvalid"),
        ("created_at.from=yesterday", "FieldInvalid"),
    ],
)
def test_a_wrong_question_is_refused(service, crowd, query, reason) -> None:
    """At most 100 a page, and only what can be understood."""
    status, body = service.ent("GET", f"tasks?{query}")
    assert (status, body["reason"]) == (400, reason)


def test_entries_are_the_documented_ones(service) -> None:
    """Neither payload nor err_code; inline images come back as addresses."""
    status, _ = service.ent(
        "POST", "img2video", {"model": "viduq2", "images": [INLINE_PNG, ], "prompt": "x", "payload": "mine"}
    )  # fmt: skip
    assert status == 200
    service.core.clock.advance(100)
    (task,) = listed(service)["tasks"]
    assert set(task) == DOCUMENTED
    assert (task["model"], task["prompt"], task["state"], task["credits"]) == ("viduq2", "x", "success", 80)
    assert task["images"][0].startswith("https://")
    assert service.fetch(task["creations"][0]["url"])[0] == 200


def test_entries_may_hold_more() -> None:
    """With list_payload they carry payload and err_code, as some answers did."""
    service = Service(list_payload=True)
    service.task(prompt="[fail:AuditFailed]", payload="mine")
    service.core.clock.advance(100)
    (task,) = listed(service)["tasks"]
    assert (task["payload"], task["err_code"], task["credits"]) == ("mine", "AuditFailed", 0)


def test_the_time_of_creation_bounds_the_list(service, crowd) -> None:
    """By ISO text or epoch seconds, on the wall clock that created_at shows."""
    fifth = 1_800_000_000 + 5
    for written in (fifth, datetime.fromtimestamp(fifth, UTC).isoformat()):
        assert len(ids(listed(service, created_at__from=written, pager__pagesz=100))) == 21
        assert len(ids(listed(service, created_at__to=written, pager__pagesz=100))) == 5


def test_the_last_seven_days_are_listed(service) -> None:
    """Older tasks only where the request names an earlier beginning."""
    task = service.task()
    service.core.clock.advance(8 * 86_400)
    assert ids(listed(service)) == []
    assert ids(listed(service, created_at__from=1)) == [task]


def test_filters(service) -> None:
    """By state and by model; several values are alternatives."""
    cat, dog = service.task(), service.task(model="viduq1")
    service.ent("POST", f"tasks/{dog}/cancel", {"id": dog})
    assert ids(listed(service, states=["failed", "success"])) == [dog]
    assert ids(listed(service, model_versions="viduq2")) == [cat]
    assert ids(listed(service, states="failed", model_versions="viduq2")) == []


@pytest.mark.parametrize(
    ("form", "repeated", "comma", "as_json"),
    [("repeated", 3, 0, 0), ("comma", 1, 3, 0), ("json", 0, 0, 3), ("ignored", 10, 10, 10)],
)
def test_the_filter_by_ids(form, repeated, comma, as_json) -> None:
    """The array's syntax is not documented: repeated, separated by commas, JSON, or the filter is ignored."""
    service = Service(task_ids=form)
    tasks = [service.task() for _ in range(12)]
    assert len(ids(listed(service, task_ids=tasks[:3]))) == repeated
    assert len(ids(listed(service, task_ids=",".join(tasks[:3])))) == comma
    assert len(ids(listed(service, task_ids=json.dumps(tasks[:3])))) == as_json
    if form in ("repeated", "comma"):
        assert len(ids(listed(service, task_ids=[*tasks[:1], "404"]))) == 1


def test_a_hundred_by_their_ids(service) -> None:
    """One request of the largest page returns the states of a hundred tasks."""
    tasks = [service.task() for _ in range(101)]
    body = listed(service, task_ids=tasks[:100], pager__pagesz=100)
    assert sorted(ids(body)) == sorted(tasks[:100])
    assert body["next_page_token"] == ""


@pytest.mark.parametrize("name", ["remains", "remaining_credits"])
def test_the_balance_has_two_names(name) -> None:
    """The example and the table of one page disagree."""
    service = Service(balance_field=name)
    for _ in range(6):
        service.task()
    service.core.clock.advance(5)
    body = service.ent("GET", "credits")[1]
    assert set(body) == {name, "packages"}
    (left,) = body[name]
    assert left["credit_remain"] == 100_000 - 6 * 80
    assert (left["concurrency_limit"], left["current_concurrency"], left["queue_count"]) == (5, 5, 1)
