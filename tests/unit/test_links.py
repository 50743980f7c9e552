"""The link from a task to its generation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_vidu import links

RUN = "manual__2026-01-01T00:00:00+00:00"
QUOTED = "manual__2026-01-01T00%3A00%3A00%2B00%3A00"


def key(map_index: int) -> SimpleNamespace:
    """Name a task instance."""
    return SimpleNamespace(dag_id="my dag", run_id=RUN, task_id="film", map_index=map_index)


@pytest.mark.parametrize(
    ("map_index", "airflow_3", "airflow_2"),
    [
        (-1, f"/dags/my%20dag/runs/{QUOTED}/tasks/film/xcom", f"run_id={QUOTED}&task_id=film&map_index=-1&tab=xcom"),
        (3, f"/dags/my%20dag/runs/{QUOTED}/tasks/film/mapped/3/xcom", "task_id=film&map_index=3&tab=xcom"),
    ],
)
def test_the_page_of_a_task_instance(map_index, airflow_3, airflow_2):
    """The address is the one that this Airflow's UI has for the XComs of the (mapped) task."""
    assert links.xcom_page(key(map_index)).endswith(airflow_3 if AIRFLOW_V_3_0_PLUS else airflow_2)


@pytest.mark.parametrize(("published", "has_link"), [(None, False), ("g", True)])
def test_no_link_before_there_is_an_id(mocker, published, has_link):
    """The link is built from the XCom alone, and is absent while nothing was published."""
    mocker.patch.object(links.XCom, "get_value", return_value=published)
    found = links.ViduGenerationLink().get_link(None, ti_key=key(-1))
    assert bool(found) is has_link
    assert "http" not in found.partition("/dags/")[2]
