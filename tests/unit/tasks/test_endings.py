"""The end of a task's log: one line of facts, and errors in one traceback."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.tasks import endings
from airflow_provider_vidu.tasks.endings import Observed, log_end, page_of, without_known_causes
from tests.rows import each_row

BEGUN = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
SEEN = {"seen_at": BEGUN.timestamp() + 65}


def done(**facts: Any) -> Generation:
    """Return a succeeded generation."""
    return Generation(id="g1", status=GenerationStatus.SUCCEEDED, **facts)


def ended(*arguments: Any) -> list[str]:
    """Return what is logged about the end."""
    log = MagicMock()
    log_end(log, *arguments)
    return [call.args[0] % call.args[1:] for call in log.info.call_args_list]


@each_row(
    ("facts", "times", "line"),
    [
        ({"credits": 80, "created_at": BEGUN}, {**SEEN, "queued": 15.2}, "80 credits, 1 min 5 s (about 15 s queued)"),
        ({"credits": 1, "created_at": BEGUN}, {**SEEN, "queued": None}, "1 credit, 1 min 5 s"),
        ({"created_at": BEGUN, "completed_at": BEGUN + timedelta(seconds=40)}, SEEN, "40 s"),
        ({"credits": 4}, SEEN, "4 credits"),
        ({"credits": 4, "created_at": BEGUN}, None, "4 credits"),
        ({"credits": 4, "created_at": BEGUN}, {"seen_at": BEGUN.timestamp() - 3}, "4 credits"),
    ],
    ids=["all", "not queued", "the service's own time", "no begin", "no end", "clocks apart"],
)
def test_the_end_line(facts: dict[str, Any], times: dict[str, Any] | None, line: str) -> None:
    """Cost and time, as far as they are known; what is not known is not said."""
    assert ended(done(**facts), {}, times) == [f"Generation g1: {line}"]


def test_nothing_known_is_no_line() -> None:
    """The state itself is in the log already."""
    assert ended(done(), {}, {}) == []


def test_what_a_wait_in_the_worker_sees(monkeypatch) -> None:
    """The time in the queue, and the end; an end before the first poll has no time."""
    now = [100.0]
    monkeypatch.setattr(endings.time, "time", lambda: now[0])
    observed = Observed()
    for status, at in (("waiting", 101.0), ("waiting", 110.0), ("running", 112.0), ("succeeded", 150.0)):
        now[0] = at
        observed(Generation(id="g1", status=GenerationStatus(status)))
    assert observed.times() == {"seen_at": 150.0, "queued": 12.0}
    late = Observed()
    late(done())
    assert late.times() == {"seen_at": None, "queued": None}


@pytest.mark.parametrize(
    ("base", "page"),
    [
        ("https://airflow.example.com/team", "https://airflow.example.com/team/vidu/dags/d/runs/r/tasks/t"),
        ("", "/vidu/dags/d/runs/r/tasks/t"),
    ],
)
def test_the_address_of_the_page(monkeypatch, base: str, page: str) -> None:
    """It can be opened from a log file, if the deployment has an address; without one the path is what is known."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    monkeypatch.setattr("airflow_provider_vidu.links.has_pages", lambda: True)
    context = {"ti": SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)}
    assert page_of(context) == page
    assert ended(done(credits=2), context) == [f"Generation g1: 2 credits. Watch it: {page}"]


@pytest.mark.parametrize("context", [None, {}, {"ti": None}])
def test_no_page_outside_of_a_task(context: Any) -> None:
    """A hook in a notebook or a user's unit test has no page."""
    assert page_of(context) == ""


def raised(cause: BaseException | None) -> str:
    """Return the traceback of an error of ours that was raised because of another one."""

    @without_known_causes
    def method() -> None:
        raise exceptions.ViduAuthError("the key was refused") from cause

    with pytest.raises(exceptions.ViduAuthError) as caught:
        method()
    return "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("cause", [None, exceptions.ViduError("ours"), OSError("refused"), TimeoutError("late")])
def test_known_causes_are_hidden(cause: BaseException | None) -> None:
    """The message says it already: one traceback is enough."""
    assert raised(cause).count("Traceback") == 1


def test_an_unknown_cause_stays() -> None:
    """An unexpected fault must be found, also behind an error of ours."""
    between = exceptions.ViduError("between")
    between.__cause__ = KeyError("bug")
    assert "KeyError: 'bug'" in raised(between)


def test_a_context_counts_as_a_cause() -> None:
    """An error raised while another one was handled."""

    @without_known_causes
    def method(fault: Exception) -> None:
        try:
            raise fault
        except Exception:  # noqa: BLE001 - the context is what is tested
            raise exceptions.ViduError("ours")  # noqa: B904

    for fault, parts in ((exceptions.ViduError("before"), 1), (ZeroDivisionError("bug"), 2)):
        with pytest.raises(exceptions.ViduError) as caught:
            method(fault)
        assert "".join(traceback.format_exception(caught.value)).count("Traceback") == parts
