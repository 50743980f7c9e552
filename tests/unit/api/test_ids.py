"""A value that is not an id is refused, with advice that can be followed."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.api.ids import checked_id
from airflow_provider_vidu.exceptions import ViduConfigError


def test_a_whole_generation_in_a_mapped_task_and_in_a_task_of_ones_own():
    """Airflow refuses to map over ``output["generation_id"]``, and the value of a @task has no such field."""
    with pytest.raises(ViduConfigError) as raised:
        checked_id({"id": "911088422699962368", "model": "viduq2"})
    advice = str(raised.value).partition("not dict. ")[2]
    assert advice.startswith("Pass generation=generate.output, or just the id: ")
    assert 'generate.output["generation_id"] if the task is not mapped' in advice
    assert 'generation["id"] in a @task' in advice
