"""The link from a task to the page of its clip, and what is published for that page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from uuid import UUID

import pytest
from airflow.providers.common.compat import version_compat
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_vidu import links
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.operators import ViduGenerateOperator
from tests.rows import each_row

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
@each_row(
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


@pytest.mark.skipif(not links.has_pages(), reason="this Airflow cannot have the pages")
@pytest.mark.parametrize(
    ("more", "number", "behind"),
    [({}, 1, ""), ({}, 2, "/generations/2"), ({"task": SimpleNamespace(task_group=LOOP)}, 1, "")],
    ids=["one", "numbered", "looped"],
)
def test_the_log_names_the_page(base_url, caplog, more, number, behind):
    """One line with the whole address, which the log view makes a link; a rescheduled sensor logs none."""
    pushed: dict[str, Any] = {}
    ti = key(3, xcom_push=lambda key, value: pushed.update({key: value}), region_id=REGION, region_index=3, **more)
    with caplog.at_level("INFO", logger="airflow.task"):
        for announce in (True, False):
            links.publish({"ti": ti}, "g-1", conn_id="vidu_default", role="generate", number=number, announce=announce)
    place = f"/regions/{REGION}/3" if more else "/mapped/3"
    page = f"/airflow/vidu/dags/my%20dag/runs/{QUOTED}/tasks/film{place}{behind}"
    assert [record.getMessage() for record in caplog.records] == [f"Watch: https://tools.example.com{page}"]
    # The link Watch opens the first one.
    assert [value for value in pushed.values() if str(value).startswith("/airflow")] == [page] * (number == 1)


def test_a_note_names_its_try_and_where_the_result_will_be():
    """So the pages can tell a task that was marked as success, and what an earlier try has left; a mock names none."""
    pushed: dict[str, Any] = {}
    own = {"try_number": 2, "max_tries": 3, "xcom_push": lambda key, value: pushed.update({key: value})}
    operator = ViduGenerateOperator(task_id="g", prompt="p")
    links.publish({"ti": key(2, **own)}, "g", conn_id="c", role="generate", result=links.result_of(operator))
    assert {name: pushed["vidu_watch"][name] for name in ("try_number", "max_tries", "result")} == {
        "try_number": 2, "max_tries": 3, "result": "return_value",
    }  # fmt: skip
    links.publish_batch({"ti": key(2, **own)}, {"batch": "b"}, announce=False)
    assert pushed["vidu_batch_place"] == {"batch": "b", "try_number": 2, "max_tries": 3}
    for task in (ViduGenerateOperator(task_id="g", prompt="p", do_xcom_push=False), MagicMock(), None):
        assert links.result_of(task) is None


def test_outside_a_task_nothing_is_published():
    """An operator that is executed by hand, with an empty context, goes on."""
    links.publish({}, "g-1", conn_id="vidu_default", role="wait")


class Xcoms(SimpleNamespace):
    """A task instance that keeps what is pushed."""

    def __init__(self) -> None:
        super().__init__(dag_id="d", run_id="r", task_id="t", map_index=-1, kept={})

    def xcom_push(self, *, key: str, value: Any) -> None:
        """Keep a value."""
        self.kept[key] = value

    def xcom_pull(self, *, key: str, task_ids: str, map_indexes: int) -> Any:
        """Return a value of this task instance."""
        assert (task_ids, map_indexes) == ("t", -1)
        return self.kept.get(key)


def test_a_hook_publishes_several_generations_of_a_task(mocker):
    """Each gets a number once, a second call keeps it and its price, and the one too many is only logged."""
    hook, ti = ViduHook("studio"), Xcoms()
    made = Generation(id="7", status="waiting", credits=80, created_at="2026-01-01T00:00:00Z", raw={"seed": 5})
    hook.publish(made, {"ti": ti})
    hook.publish(Generation(id="7", status="succeeded"), {"ti": ti})
    hook.publish("8", {"ti": ti})
    assert ti.kept["vidu_watch"] == {
        "conn_id": "studio", "role": "generate", "artifact": None, "by": "hook",
        "created_at": "2026-01-01T00:00:00+00:00", "credits": 80, "seed": 5,
    }  # fmt: skip
    assert (ti.kept["generation_id"], ti.kept["generation_id.02"]) == ("7", "8")
    assert ti.kept["vidu_watch.02"]["role"] == "submit"
    warn = mocker.patch.object(hook.log, "warning")
    for number in range(100, 100 + links.MAX_PUBLISHED - 1):
        hook.publish(str(number), {"ti": ti})
    assert sum(key.startswith("generation_id") for key in ti.kept) == links.MAX_PUBLISHED
    warn.assert_called_once()
    assert "has no page" in warn.call_args.args[0]


def test_a_hook_publishes_generations_of_two_services_that_are_numbered_alike():
    """The second one took the place of the first."""
    ti = Xcoms()
    for conn_id in ("studio", "other", "studio"):
        ViduHook(conn_id).publish("1", {"ti": ti})
    assert [ti.kept[key]["conn_id"] for key in ("vidu_watch", "vidu_watch.02")] == ["studio", "other"]
    assert (ti.kept["generation_id"], ti.kept["generation_id.02"], len(ti.kept)) == ("1", "1", len(set(ti.kept)))
    assert "generation_id.03" not in ti.kept


def test_publishing_outside_a_task_says_so():
    """Without a task there is nowhere to publish to; the mock of a user's unit test gets nothing, and no error."""
    with pytest.raises(ViduConfigError, match="pass context="):
        ViduHook().publish("7")
    ViduHook().publish("7", {"ti": object()})
