"""What the list's answer to named ids shows, and how they are named."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.api.dialects import EntV2, ViduNative
from airflow_provider_vidu.api.dialects.task_list import states_in
from airflow_provider_vidu.api.messages import ApiAnswer
from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduConfigError,
    ViduError,
    ViduRateLimitError,
    ViduResponseError,
    ViduServerError,
)
from airflow_provider_vidu.models import GenerationStatus, Snapshot
from airflow_provider_vidu.polling.state_lists import Form, StateList
from tests.properties import properties
from tests.rows import each_row

ENT = EntV2()
IDS = ["9470000000000000001", "9470000000000000002", "9470000000000000003"]
SECRET = "sk-look-0a1b2c3d"
RUNNING = Snapshot(GenerationStatus.RUNNING, "processing")
quiet = properties(150)


def answered(body: Any, status: int = 200) -> StateList:
    """Return what an answer shows of the three ids."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    redact = lambda text: text.replace(SECRET, "***")  # noqa: E731
    return ENT.list_states(IDS, Form.REPEATED).read(ApiAnswer(status, {}, content, redact, 200_000))


def listed(*entries: Any, **fields: Any) -> StateList:
    """Return what an answer with these entries shows."""
    return answered({"tasks": list(entries), "next_page_token": "", **fields})


@pytest.mark.parametrize(
    ("form", "named"),
    [(Form.REPEATED, IDS), (Form.COMMA, [",".join(IDS)]), (Form.JSON, ['["' + '","'.join(IDS) + '"]'])],
)
def test_ids_are_written_in_each_form(form, named):
    """With the largest page, beside the creates; the request is a read whose answer may be large."""
    request = ENT.list_states(IDS, form).request
    path, _, query = request.path.partition("?")
    assert (request.method, path, request.bills, request.lists) == ("GET", "/ent/v2/tasks", False, True)
    assert parse_qs(query) == {"pager.pagesz": ["100"], "pager.page": ["0"], "task_ids": named}


def test_a_hundred_ids_fit_into_a_url():
    """Servers usually take 8 KiB."""
    ids = [f"{number:064}" for number in range(100)]
    assert all(len(ENT.list_states(ids, form).request.path) < 8000 for form in Form)


@pytest.mark.parametrize(
    ("endpoint", "fits"),
    [(None, True), ("", True), ("text2video", True), ("one-click/mv", False), ("/ent/v2/x/{id}", False)],
)
def test_products_with_a_query_of_their_own_are_not_listed(endpoint, fits):
    """No page says that the list shows them."""
    assert ENT.can_list_states(endpoint) is fits
    assert ViduNative().can_list_states(endpoint) is False
    with pytest.raises(ViduConfigError, match="has no list"):
        ViduNative().list_states(IDS, Form.REPEATED)


@each_row(
    ("entries", "states"),
    [
        ([{"id": IDS[0], "state": "processing"}], {IDS[0]: RUNNING}),
        ([{"id": int(IDS[0]), "state": "processing"}], {IDS[0]: RUNNING}),
        ([{"task_id": IDS[0], "status": "processing"}], {IDS[0]: RUNNING}),
        ([{"id": "internal", "task_id": IDS[0], "state": "processing"}], {IDS[0]: RUNNING}),
        ([{"id": IDS[0], "state": "processing", "progress": "40"}],
         {IDS[0]: Snapshot(GenerationStatus.RUNNING, "processing", 40)}),
        ([{"id": IDS[0], "state": "dreaming"}], {IDS[0]: Snapshot(GenerationStatus.UNKNOWN, "dreaming")}),
        ([{"id": IDS[0], "state": SECRET}], {IDS[0]: Snapshot(GenerationStatus.UNKNOWN, "***")}),
        ([{"id": IDS[0], "state": "processing"}] * 2, {IDS[0]: RUNNING}),
        ([{"id": IDS[0], "state": "processing"}, {"id": IDS[0], "state": "failed"}] * 2, {}),
        ([{"id": IDS[0]}, {"id": IDS[1], "state": None}, {"state": "success"}, None, 7, "x", []], {}),
        ([{"id": float(IDS[0]), "state": "success"}, {"id": True, "state": "success"}], {}),
        ([], {}),
    ],
    ids=range(12),
)  # fmt: skip
def test_what_entries_show(entries, states):
    """Ids count as they were requested; what is not a state of one of them is ignored."""
    assert listed(*entries) == StateList(states)


@pytest.mark.parametrize("other", ["1", int(IDS[0]) + 100, "947", IDS[0].rjust(20, "0"), f" {IDS[0]}"])
def test_an_entry_that_was_not_requested_is_noticed(other):
    """So is one whose id a gateway has rounded."""
    found = listed({"id": IDS[0], "state": "processing"}, {"id": other, "state": "success"})
    assert found.is_foreign
    assert found.states == {IDS[0]: RUNNING}


def test_further_pages_are_noticed():
    """A token names the next one."""
    assert listed({"id": IDS[0], "state": "processing"}, next_page_token="t").has_more
    assert not listed({"id": IDS[0], "state": "processing"}).has_more


@pytest.mark.parametrize("body", [{}, {"tasks": []}, {"tasks": None, "next_page_token": ""}, {"data": {"tasks": []}}])
def test_an_empty_list_shows_nothing(body):
    """In each way in which servers write it, also in an envelope."""
    assert answered(body) == StateList()


@each_row(
    ("status", "body", "error"),
    [
        (200, {"hello": SECRET}, ViduResponseError), (200, [1, 2], ViduResponseError),
        (200, b"<html>" + SECRET.encode(), ViduResponseError), (200, {"tasks": {"id": SECRET}}, ViduResponseError),
        (401, {"code": 401, "reason": "Unauthorized", "message": SECRET}, ViduAuthError),
        (429, SECRET.encode(), ViduRateLimitError), (503, {"message": SECRET}, ViduServerError),
        (200, {"code": 429, "reason": "TooManyRequests", "message": SECRET}, ViduRateLimitError),
        (200, b"[" + b"0," * 300_000 + b"0]", ViduResponseError),
    ],
    ids=range(9),
)  # fmt: skip
def test_errors_are_errors_and_hide_the_key(status, body, error):
    """Whatever the answer quotes: the shorter way of reading a list is not that of reading an error."""
    with pytest.raises(error) as caught:
        answered(body, status)
    assert SECRET not in str(caught.value)


@quiet
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(IDS),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["id", "task_id", "state", "tasks", "data", "next_page_token"]), inner)
        ),
        max_leaves=12,
    )
)
def test_no_answer_raises_anything_else(body: Any) -> None:
    """However odd it is; and no state is of an id that was not requested."""
    with suppress(ViduError):
        assert set(answered(body).states) <= set(IDS)


def test_a_long_word_is_not_kept():
    """A gateway that invents a state of a megabyte at each answer fills no cache: 512 of them were kept."""
    for number in range(3):
        found = states_in([{"id": "a", "state": f"  {number}" + "x" * 1_000_000}], ["a"], False, str)
        assert len(found.states["a"].provider_status) <= 500
    tracemalloc.start()
    try:
        for number in range(20):
            states_in([{"id": "a", "state": f"{number}" + "x" * 1_000_000}], ["a"], False, str)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
