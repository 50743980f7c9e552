"""Whose answer it is: the spellings of an id that are ours, and the answers to other questions."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.dialects import EntV2, ViduNative
from airflow_provider_vidu.api.messages import ApiAnswer
from tests.rows import each_row


def answer(body: Any) -> ApiAnswer:
    """Return an answer with this body."""
    return ApiAnswer(200, {}, json.dumps(body).encode())


OURS, OTHERS = "911088422699962368", "911088422699962999"
UUID, OTHER_UUID = "48038932-1c5d-4d3c-9a55-ad7e4a1b2c3d", "5f0c9b1e-77aa-4f0e-8c3b-0d9e8f7a6b5c"


@each_row(
    ("asked", "body"),
    [
        pytest.param(OURS, {"id": int(OURS), "state": "success"}, id="a number"),
        pytest.param(OURS, {"id": 911088422699962400, "state": "success"}, id="a number that JavaScript has rounded"),
        pytest.param(OURS, {"id": 7, "task_id": OURS, "status": "completed"}, id="a row beside it"),
        pytest.param(OURS, {"id": OTHERS, "task_id": OURS, "status": "completed"}, id="a request's id beside it"),
        pytest.param(f"grok:{UUID}", {"id": UUID, "status": "completed"}, id="without its prefix"),
        pytest.param(f"{OURS}^^vidu-2.0^^0", {"id": OURS, "state": "success"}, id="without its suffix"),
        pytest.param(UUID, {"id": UUID.upper(), "status": "completed"}, id="capitals"),
        pytest.param(OURS, {"id": f" {OURS}\n", "status": "completed"}, id="blanks"),
        pytest.param("task_abc", {"id": OURS, "state": "success"}, id="the id of the service behind a gateway"),
        pytest.param("task_abc", {"data": {"task_id": "task_abc", "status": "SUCCESS", "data": {"id": OTHERS}}},
                     id="the same inside an envelope"),
        pytest.param(OURS, {"id": OTHERS, "data": {"task_id": OURS, "status": "SUCCESS"}}, id="an envelope's own id"),
        pytest.param(OURS, {"status": "completed", "output": {"id": OTHERS, "url": "https://h/v"}}, id="a result's id"),
        pytest.param(OURS, {"status": "completed"}, id="no id"),
        pytest.param(OURS, {"status": "completed", "output": [{"id": "1", "url": "https://h/1"}] * 2}, id="results"),
        pytest.param(OURS, {"id": OTHERS, "state": "success"}, id="official"),
        pytest.param(OURS, {"id": int(OTHERS), "state": "success"}, id="another number"),
        pytest.param(OURS, {"id": int(OURS) + 1, "state": "success"}, id="the next number"),
        pytest.param(UUID, {"id": OTHER_UUID, "status": "completed", "video_url": "https://h/v"}, id="flat"),
        pytest.param("task_abc", {"code": "success", "data": {"task_id": "task_xyz", "status": "SUCCESS"}}, id="wrap"),
        pytest.param("task_abc", {"id": "task_xyz", "object": "video", "status": "completed"}, id="OpenAI"),
        pytest.param(OURS, [{"status": "completed"}], id="a list of one without an id"),
        pytest.param(OURS, [{"id": OTHERS, "state": "failed"}, {"id": OURS, "state": "success"}], id="a list with it"),
        pytest.param(OURS, {"code": 0, "data": [{"id": OTHERS, "state": "failed"}, {"id": OURS, "state": "success"}]},
                     id="a wrapped list with it"),
    ],
)  # fmt: skip
def test_the_answer_of_the_generation_that_was_asked_for(asked: str, body: Any) -> None:
    """An id may be spelt in another way, or be missing; of a list the right entry counts."""
    for dialect in (ViduNative(), EntV2()):
        found = dialect.read_generation(asked, answer(body))
        assert (found.id, found.succeeded) == (asked, True)


@pytest.mark.fault("polling", "a list of others in answer to a query", outcome="survived",
                   says="describes another generation", side="both")  # fmt: skip
@pytest.mark.parametrize(
    ("asked", "body"),
    [
        pytest.param(OURS, [{"id": OTHERS, "state": "success"}], id="a list of one"),
        pytest.param("task_abc", [{"id": OTHERS, "state": "success"}], id="a list of one of another kind"),
        pytest.param(OURS, [{"state": "success"}, {"state": "failed"}], id="a list without ids"),
        pytest.param(OURS, {"data": [{"id": OTHERS, "state": "success"}]}, id="a wrapped list of one"),
        pytest.param(OURS, {"code": 0, "data": [{"id": OTHERS, "state": "success"}] * 2}, id="a wrapped list"),
    ],
)  # fmt: skip
def test_an_answer_to_another_question(asked: str, body: Any) -> None:
    """A gateway that answers with a list never ends a wait with another generation's result."""
    for dialect in (ViduNative(), EntV2()):
        with pytest.raises(exceptions.ViduResponseError, match="describes another generation") as caught:
            dialect.read_generation(asked, answer(body))
        assert caught.value.retryable


@pytest.mark.fault("attacks", "a list with thousands of ids that are as long as the wanted one", outcome="survived",
                   seen="nothing: reading it takes a moment")  # fmt: skip
def test_many_ids_are_compared_in_a_moment():
    """A pattern for each took the event loop 50 ms for 16 kB, and a thread more than a second for 1 MB."""
    names = itertools.count()
    listed = [{f"{place}_id": f"{'a.' * 45}{next(names)}" for place in range(500)} for _ in range(16)]
    began = time.thread_time()
    with pytest.raises(exceptions.ViduError):
        EntV2().read_generation("9" * 512, answer(listed))
    assert time.thread_time() - began < 0.4
