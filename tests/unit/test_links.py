"""The link from a task to the page of its clip, and what is published for that page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from airflow.providers.common.compat import version_compat
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_vidu import links

RUN = "manual__2026-01-01T00:00:00+00:00"
QUOTED = "manual__2026-01-01T00%3A00%3A00%2B00%3A00"


def key(map_index: int, **more: Any) -> SimpleNamespace:
    """Name a task instance."""
    return SimpleNamespace(dag_id="my dag", run_id=RUN, task_id="film", map_index=map_index, **more)


@pytest.fixture
def base_url(monkeypatch):
    """Deploy Airflow under a path of a host."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://tools.example.com/airflow/")


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


@pytest.mark.skipif(not links.has_pages(), reason="this Airflow cannot have the pages")
@pytest.mark.parametrize(("map_index", "mapped"), [(-1, ""), (0, "/mapped/0"), (3, "/mapped/3")])
def test_the_clip_page_lies_below_the_path_of_the_deployment(base_url, map_index, mapped):
    """The link is a path: it holds for every host name, and under the path that Airflow is deployed at."""
    found = links.watch_page(key(map_index))
    assert found == f"/airflow/vidu/dags/my%20dag/runs/{QUOTED}/tasks/film{mapped}"


REGION = UUID("01a214e2-78c9-77ba-b44a-0d05ac08079a")
LOOP = SimpleNamespace(parent_group=SimpleNamespace(max_iterations=3, parent_group=None))
PLAIN = SimpleNamespace(parent_group=None)


@pytest.mark.skipif(not links.has_pages(), reason="this Airflow cannot have the pages")
@pytest.mark.parametrize(
    ("map_index", "group", "region_id", "region_index", "place"),
    [
        (-1, LOOP, REGION, 2, f"/regions/{REGION}/2"),
        (1, LOOP, REGION, 1, f"/regions/{REGION}/1"),
        (1, PLAIN, REGION, 1, "/mapped/1"),
        (1, None, REGION, 1, "/mapped/1"),
        (-1, PLAIN, UUID(int=0), -1, ""),
        (-1, PLAIN, None, None, ""),
    ],
    ids=["unmapped", "mapped", "mapped outside", "mapped in no group", "outside", "before 3.4"],
)
def test_each_iteration_of_a_loop_has_a_page_of_its_own(map_index, group, region_id, region_index, place):
    """Iterations share task id and map index, so a region tells them apart; outside loops, nothing changes."""
    task = SimpleNamespace(task_group=group)
    ti = key(map_index, task=task, region_id=region_id, region_index=region_index)
    assert links.watch_page(ti).endswith(f"/tasks/film{place}")


@pytest.mark.parametrize(("version", "has_page"), [((2, 11, 0), False), ((3, 1, 0), False), ((3, 1, 1), True)])
def test_where_there_is_no_page_the_link_leads_to_the_xcoms(monkeypatch, version, has_page):
    """Airflow 3.1.0 would ask for the login again and again, earlier ones have no such pages at all."""
    monkeypatch.setattr(version_compat, "get_base_airflow_version_tuple", lambda: version)
    assert (links.watch_page(key(-1)) == links.xcom_page(key(-1))) is not has_page


@pytest.mark.parametrize(("published", "has_link"), [(None, False), ("g", True)])
def test_no_link_before_there_is_an_id(mocker, published, has_link):
    """The link is built from the XCom alone, and is absent while nothing was published."""
    mocker.patch.object(links.XCom, "get_value", return_value=published)
    found = links.ViduWatchLink().get_link(None, ti_key=key(-1))
    assert bool(found) is has_link
    assert "http" not in found.partition("/dags/")[2]


def test_what_is_published_has_no_secret_and_no_url():
    """Id, connection id and role are all that the page needs; the link is there at once."""
    pushed: dict[str, Any] = {}
    ti = key(2, xcom_push=lambda key, value: pushed.update({key: value}))
    links.publish({"ti": ti}, "g-1", conn_id="vidu_default", role="download", artifact="cover")
    assert pushed.pop("_link_ViduWatchLink", links.watch_page(ti)) == links.watch_page(ti)
    assert pushed == {
        "generation_id": "g-1",
        "vidu_watch": {"conn_id": "vidu_default", "role": "download", "artifact": "cover"},
    }


def test_outside_a_task_nothing_is_published():
    """An operator that is executed by hand, with an empty context, goes on."""
    links.publish({}, "g-1", conn_id="vidu_default", role="wait")
