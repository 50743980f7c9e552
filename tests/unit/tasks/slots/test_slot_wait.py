"""How long a task that waits for a slot in its worker sleeps between two tries."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from airflow_provider_vidu.exceptions import ViduRateLimitError
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.polling.admission import LONGEST_HOLD_SECONDS
from airflow_provider_vidu.tasks.slots.slot_wait import SlotWait


@pytest.mark.parametrize(("asked", "longest"), [(None, 60 * 1.25), (86_400.0, LONGEST_HOLD_SECONDS)])
def test_a_worker_does_not_sleep_for_a_day(asked, longest):
    """A Retry-After of a day holds neither the worker nor the task for that long."""
    pauses: list[float] = []
    answers = [ViduRateLimitError("full", retry_after=asked)] * 8

    def submit() -> Generation:
        if answers:
            raise answers.pop()
        return Generation(id="g", status=GenerationStatus.WAITING)

    wait = SlotWait(
        operator=MagicMock(),
        hook=SimpleNamespace(vidu_conn_id="vidu_default"),
        turn=None,
        timeout=1e6,
        trigger=None,
        on_wait=lambda **_: None,
        check=lambda: None,
        sleep=pauses.append,
    )
    assert wait.submitted(submit).id == "g"
    assert len(pauses) == 8
    assert max(pauses) <= longest
