"""The log of a good run fits on one screen, and each line says something new."""

from __future__ import annotations

import re

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu import exceptions
from tests.integration.batches.batch_task import BatchTask
from tests.integration.operators.test_generate import Task
from tests.versions import AIRFLOW

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables")]

SCREEN = 25


def lines(capsys) -> list[str]:
    """Return the messages of the provider's modules, as Airflow prints them."""
    printed = re.findall(
        r"\[(?:info|warning|error) *\] (.*?) *\[[^]]*airflow_provider_vidu[^]]*\]", capsys.readouterr().out
    )
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in printed]


@pytest.mark.skipif(AIRFLOW < (3, 0), reason="reads the lines as Airflow 3 prints them")
@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_a_good_run(dialect, sandbox, deferrable, capsys, monkeypatch):
    """Request, id, page, each state once, quarters of the progress, and one line with cost, time and page."""
    handle = sandbox.core.handle

    def two_seconds_later(call):
        sandbox.advance(2)
        return handle(call)

    # The clock moves with the requests, so that a slow machine makes no fewer polls.
    sandbox.set_speed(0)
    monkeypatch.setattr(sandbox.core, "handle", two_seconds_later)
    found = Task(deferrable=deferrable, parameters={"duration": 4, "resolution": "720p"}, poll_interval=0.02).run()
    told = lines(capsys)
    assert 8 <= len(told) <= SCREEN, "\n".join(told)
    assert len(set(told)) == len(told), "\n".join(told)
    assert sum("succeeded" in line for line in told) == 1
    assert len([line for line in told if re.search(r"running .* \d+ %", line)]) <= 5
    # A gateway names no price.
    assert dialect == "vidu-native" or re.fullmatch(
        rf"Generation {re.escape(found['id'])}: 80 credits, [\d.]+ s( \(about [\d.]+ s queued\))?\. Watch it: \S+",
        told[-1],
    ), told[-1]
    polls = len(sandbox.requests(kind="query", id=found["id"]))
    assert polls > 10, "there were too few polls to be quiet about"


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_the_cause_comes_first(dialect, sandbox, deferrable):
    """The first hundred characters of a failure name it, and its log has one traceback."""
    task, deferred = Task(prompt="[fail:TaskPromptPolicyViolation] x", deferrable=deferrable), None
    with pytest.raises((exceptions.ViduError, TaskDeferred)) as failed:
        task.start()
    if deferrable:
        deferred = failed.value
        with pytest.raises(exceptions.ViduError) as failed:
            task.resume(deferred)
    assert "TaskPromptPolicyViolation" in str(failed.value)[:100] or "asked to let" in str(failed.value)[:100]
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__ or failed.value.__context__ is None


def test_a_batch_without_a_place_for_its_journal(connect, tmp_path):
    """Its log has one traceback as well: the store's own errors, below, say nothing more."""
    connect("ent-v2")
    (tmp_path / ".vidu").write_text("a file in the place of the folder")
    with pytest.raises(exceptions.ViduStorageError, match="could not be") as failed:
        BatchTask(tmp_path, [{"key": "a", "prompt": "a cat"}]).start()
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__


def test_a_refusal_says_why_at_once(connect):
    """The service's own words come before the advice."""
    connect("ent-v2")
    with pytest.raises(exceptions.ViduRequestError) as refused:
        Task(model="viduq3-turbo", parameters={"duration": 99}).run()
    assert "field duration" in str(refused.value)[:100]
