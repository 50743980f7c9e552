"""The trigger's event: written without secrets, read without surprises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.events import EVENT_VERSION, Outcome, make_event, read_event
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.models import Generation, GenerationStatus
from tests.properties import properties
from tests.rows import each_row

DONE = Generation(
    id="g1",
    status=GenerationStatus.SUCCEEDED,
    provider_status="completed",
    video_url="https://h/v?Signature=GEHEIM",
    raw={"video_url": "https://h/v?Signature=GEHEIM"},
)
CLASSES = [
    kind
    for kind in vars(exceptions).values()
    if isinstance(kind, type) and issubclass(kind, ViduError) and not kind.__name__.startswith("_")
]


@each_row(
    ("error", "outcome"),
    [
        (None, "succeeded"),
        (exceptions.ViduGenerationFailedError("x"), "failed"),
        (exceptions.ViduTimeoutError("x"), "timeout"),
        (exceptions.ViduAuthError("x"), "error"),
        (exceptions.ViduMissingVideoError("x"), "error"),
        (exceptions.ViduTransportError("x"), "error"),
    ],
)
def test_the_outcome_of_an_error(error: ViduError | None, outcome: str) -> None:
    """Each way a watch can end has its word."""
    assert Outcome.of(error) == outcome


def test_the_event_of_a_success() -> None:
    """Id, outcome and state; nothing that is signed."""
    event = make_event("g1", DONE, None)
    assert event == {
        "version": EVENT_VERSION, "outcome": "succeeded", "generation_id": "g1", "status": "succeeded",
        "provider_status": "completed", "error": None,
    }  # fmt: skip
    assert type(event["outcome"]) is str
    assert "GEHEIM" not in json.dumps(event)
    read_event(event, "g1")


def test_the_event_of_an_odd_state() -> None:
    """A foreign status word is bounded and redacted."""
    odd = DONE.model_copy(update={"provider_status": "x\n https://h/v?Signature=GEHEIM" + "y" * 9999})
    event = make_event("g1", odd, ViduError("see https://h/v?Signature=GEHEIM"))
    told = json.dumps(event)
    assert "GEHEIM" not in told
    assert "\\n" not in told
    assert len(told) < 1000


@each_row("kind", CLASSES, ids=[kind.__name__ for kind in CLASSES])
def test_errors_come_back_as_themselves(kind: type[ViduError]) -> None:
    """The error that ended the watch is raised in the worker as its own class."""
    error = kind("It broke.", code="E1", trace_id="04e5", status_code=502, conn_id="c")
    event = json.loads(json.dumps(make_event("g1", None, error)))
    with pytest.raises(ViduError) as caught:
        read_event(event, "g1")
    assert type(caught.value) is kind
    assert caught.value.generation_id == "g1"
    assert (caught.value.code, caught.value.trace_id, caught.value.status_code) == ("E1", "04e5", 502)
    assert caught.value.reason == "It broke."


GOOD = make_event("g1", DONE, None)


@each_row(
    "event",
    [
        pytest.param(None, id="none"),
        pytest.param({}, id="empty"),
        pytest.param([], id="list"),
        pytest.param("succeeded", id="text"),
        pytest.param({"outcome": "splendid", "generation_id": "g1"}, id="another word"),
        pytest.param({"outcome": None, "generation_id": "g1"}, id="null"),
        pytest.param({"outcome": ["succeeded"], "generation_id": "g1"}, id="list as outcome"),
        pytest.param({"outcome": {}, "generation_id": "g1"}, id="object as outcome"),
        pytest.param({**GOOD, "generation_id": "g2"}, id="another generation"),
        pytest.param({**GOOD, "generation_id": None}, id="no generation"),
        pytest.param({"status": "success", "task_id": "g1"}, id="somebody else's event"),
        pytest.param({"outcome": "error", "generation_id": "g1"}, id="no error"),
        pytest.param({"outcome": "error", "generation_id": "g1", "error": None}, id="null error"),
        pytest.param({"outcome": "error", "generation_id": "g1", "error": "broke"}, id="error as text"),
        pytest.param({"outcome": "error", "generation_id": "g1", "error": [1]}, id="error as list"),
    ],
)
def test_events_that_are_not_ours(event: Any) -> None:
    """Whatever arrives instead of our event is a clear error with the id, never another exception."""
    with pytest.raises(ViduError) as caught:
        read_event(event, "g1")
    assert caught.value.generation_id == "g1"
    assert str(caught.value)


@pytest.mark.parametrize("status", [2**64, -(2**63) - 1, 10**300])
def test_every_number_in_an_event_has_64_bits(status: int) -> None:
    """Airflow's triggerer cannot send others to its supervisor, and ends over it, with the triggers of all."""
    event = make_event("g1", DONE, exceptions.ViduServerError("x", status_code=status))
    assert event["error"]["status_code"] is None


def test_an_unknown_outcome_with_a_time_out() -> None:
    """A time-out without its details is still an error."""
    with pytest.raises(ViduError, match="not recorded"):
        read_event({"outcome": "timeout", "generation_id": "g1"}, "g1")


@properties(100)
@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.sampled_from(["g1", "error", "succeeded"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["outcome", "generation_id", "error", "type", "message", "retry_after", "code"]), inner
            )
        ),
        max_leaves=10,
    )
)
def test_any_event(event: Any) -> None:
    """Only our own success passes; everything else is ours to explain."""
    try:
        read_event(event, "g1")
    except ViduError as error:
        str(error).encode()
    else:
        assert event["outcome"] == "succeeded"
        assert event["generation_id"] == "g1"
