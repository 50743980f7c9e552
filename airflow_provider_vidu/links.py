"""The Watch link from a task in the Airflow UI to its generation, and the XComs that the clip page reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, urlsplit
from uuid import UUID

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom, conf

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

log = logging.getLogger("airflow.task.airflow_provider_vidu.links")  # below a logger that every Airflow shows

ID_KEY: Final = "generation_id"
"""The XCom under which an operator publishes the id of its generation."""

DRY_RUN_PREFIX: Final = "dry-run-"
"""How the id begins that a dry run publishes in place of a generation's."""

WATCH_KEY: Final = "vidu_watch"
"""The XCom beside the id: the connection of the generation, and what the task does with it."""

RESULT_KEY: Final = "return_value"
"""The XCom in which Airflow keeps what a task returns."""

BATCH_KEY: Final = "vidu_batch_place"
"""The XCom of a batch: its name, its folder, its manifest, its connection and how many rows it has."""

MAX_PUBLISHED: Final = 24
"""The most generations of one task that have a page: those that a ``@task`` publishes through the hook."""

PAGE_PREFIX: Final = "/vidu"
"""The path of the plugin's pages in the API server."""

PAGES_SINCE: Final = (3, 1, 1)
"""The first Airflow whose plugins can have pages (3.1) that share its login: before 3.1.1, pages outside of its own
scripts lacked the session and demanded a login every time."""

Role = Literal["generate", "submit", "wait", "download"]
"""How a task uses a generation; ``submit`` is a generate that does not wait for the result."""


class ViduWatchLink(BaseOperatorLink):
    """Opens the page of the task's clip.

    It appears as soon as there is an id. It is built from the task instance's names and the XCom alone, because a
    resumed operator is a fresh instance, and it never holds a URL of the service. On an Airflow without the page
    (:func:`has_pages`), it leads to the task instance's XComs.
    """

    name = "Watch"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of the clip's page, or an empty text before the task has submitted or waits for a slot."""
        if not any(XCom.get_value(ti_key=ti_key, key=key) for key in (ID_KEY, WATCH_KEY)):
            return ""
        return watch_page(ti_key)


class ViduBatchLink(BaseOperatorLink):
    """Opens the page of the task's batch, as soon as the batch has begun.

    On an Airflow without the page (:func:`has_pages`), it leads to the task instance's XComs.
    """

    name = "Watch"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of the batch's page, or an empty text before the batch has begun."""
        return batch_page(ti_key) if XCom.get_value(ti_key=ti_key, key=BATCH_KEY) else ""


def publish_batch(context: Mapping[str, Any], place: Mapping[str, Any], *, announce: bool) -> None:
    """Publish where a task's batch is, so that its page can be opened, and log the page's address.

    :param context: the task's context; with an empty one, outside a task, nothing is published.
    :param place: name, folder, manifest, connection, number of rows, what it has spent, and what it waits for; no row.
    :param announce: whether to log the address: once a try.
    """
    ti = context.get("ti")
    if ti is None:
        return
    ti.xcom_push(key=BATCH_KEY, value={**place, **_try_of(ti)})
    if not is_task_instance(ti):
        return
    if key := getattr(ViduBatchLink(), "xcom_key", None):
        ti.xcom_push(key=key, value=batch_page(ti))
    if announce and has_pages():
        log.info("Watch: %s%s%s/batch", _base("api"), PAGE_PREFIX, _clip_path(ti))


def resolved(published: Any) -> Any:
    """Return an XCom's value; None for the address of an object, which a process without the XCom back end reads."""
    return None if isinstance(published, str) and "://" in published else published


def published(context: Mapping[str, Any], key: str) -> Any:
    """Return an XCom that an earlier leg of this try pushed."""
    ti: Any = context.get("ti")
    if not is_task_instance(ti):
        return None
    return resolved(ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index))


def publish(
    context: Mapping[str, Any],
    generation_id: str,
    *,
    conn_id: str,
    role: Role,
    artifact: str | None = None,
    number: int = 1,
    announce: bool = True,
    **known: Any,
) -> None:
    """Publish a task's generation as XComs, so that its page can be opened from now on, and log the page's address.

    :param context: the task's context; with an empty one, outside a task, nothing is published.
    :param generation_id: the id at Vidu.
    :param conn_id: its Airflow connection.
    :param role: how the task uses it.
    :param artifact: which file a download keeps.
    :param number: which generation of the task it is (:func:`published_number`); the link Watch opens the first one.
    :param announce: whether to log the address; not for a task that publishes again and again.
    :param known: further facts: the endpoint, the fields that only the create's answer holds, and of a wait its
        ``deadline`` (epoch seconds) and ``poll_interval`` (seconds) or that it is ``adaptive``.
    """
    ti = context.get("ti")
    if ti is None:
        return
    ti.xcom_push(key=numbered(ID_KEY, number), value=generation_id)
    more = {name: value for name, value in known.items() if value}
    note = {"conn_id": conn_id, "role": role, "artifact": artifact, **more, **_try_of(ti)}
    ti.xcom_push(key=numbered(WATCH_KEY, number), value=note)
    if not is_task_instance(ti):
        return
    if number == 1:
        _publish_link(ti)
    if announce and has_pages():
        page = f"{_base('api')}{PAGE_PREFIX}{_clip_path(ti)}"
        log.info("Watch: %s", page if number == 1 else f"{page}/generations/{number}")


def result_of(task: Any) -> str | None:
    """Return where the result of an operator's task will be found; None if its author wants none to be kept.

    The note of a task names it, so that a task which a user marks as success is not taken for one that has ended.
    """
    return RESULT_KEY if getattr(task, "do_xcom_push", False) is True else None


def _try_of(ti: Any) -> dict[str, int]:
    """Return the counters that tell which try of a task published a note, and after which clear."""
    found = {name: getattr(ti, name, None) for name in ("try_number", "max_tries")}
    return {name: count for name, count in found.items() if isinstance(count, int)}


def _publish_link(ti: Any) -> None:
    # Airflow 3 stores links only when a leg ends; a task that waits in the worker would have none until then.
    if key := getattr(ViduWatchLink(), "xcom_key", None):
        ti.xcom_push(key=key, value=watch_page(ti))


def numbered(key: str, number: int) -> str:
    """Return the key of an XCom that a task pushes once for each of its generations: ``generation_id.02``."""
    return key if number == 1 else f"{key}.{number:02}"


def published_number(ti: Any, generation_id: str, conn_id: str) -> tuple[int | None, Mapping[str, Any]]:
    """Return the number of a generation among those that the task has published, and its note so far.

    A new generation gets the next number and an empty note; None as its number if there are already too many.
    """
    own = {"task_ids": ti.task_id, "map_indexes": ti.map_index}
    for number in range(1, MAX_PUBLISHED + 1):
        found = ti.xcom_pull(key=numbered(ID_KEY, number), **own)
        if found is None:
            return number, {}
        if str(found) == generation_id:
            note = ti.xcom_pull(key=numbered(WATCH_KEY, number), **own)
            note = note if isinstance(note, Mapping) else {}
            if note.get("conn_id", conn_id) == conn_id:  # another service may number its generations alike
                return number, note
    return None, {}


def publish_wait(context: Mapping[str, Any], *, conn_id: str, since: float, is_for_prices: bool = False) -> None:
    """Publish that a task waits before its create, so that its page says so.

    :param context: the task's context; with an empty one, outside a task, nothing is published.
    :param conn_id: the connection of the create.
    :param since: when the wait began, in epoch seconds.
    :param is_for_prices: whether it waits for the prices of open generations, within its budget; else for a free slot.
    """
    ti = context.get("ti")
    if ti is None:
        return
    note = {"conn_id": conn_id, "role": "generate", "waiting_since": since}
    ti.xcom_push(key=WATCH_KEY, value={**note, **({"for_prices": True} if is_for_prices else {})})
    _publish_link(ti)


def is_task_instance(ti: Any) -> bool:
    """Whether this is a real task instance, not None or the mock of a user's unit test."""
    # A mock may have such names. In its test, no task runner keeps what the task records.
    is_mock = type(ti).__module__ == "unittest.mock"
    return not is_mock and all(isinstance(getattr(ti, name, None), str) for name in ("dag_id", "run_id", "task_id"))


def has_pages() -> bool:
    """Whether this Airflow supports the clip pages."""
    from airflow.providers.common.compat import version_compat

    return version_compat.get_base_airflow_version_tuple() >= PAGES_SINCE


def watch_page(ti_key: Any) -> str:
    """Return the address of a task instance's clip page, or of its XComs on an Airflow without such pages."""
    if not has_pages():
        return xcom_page(ti_key)
    # The path alone is valid for every host name (and tunnel) of the UI.
    return urlsplit(_base("api")).path + PAGE_PREFIX + _clip_path(ti_key)


def batch_page(ti_key: Any) -> str:
    """Return the address of a task instance's batch, or of its XComs on an Airflow without such pages."""
    return f"{watch_page(ti_key)}/batch" if has_pages() else xcom_page(ti_key)


def region_of(ti_key: Any) -> tuple[UUID, int] | None:
    """Return the region of a task instance in a loop, and its index there; None outside loops and before Airflow 3.4.

    A mapped task outside loops has a region, too, but its map index says all.
    """
    region_id, index = (getattr(ti_key, name, None) for name in ("region_id", "region_index"))
    if not isinstance(region_id, UUID) or not region_id.int or not isinstance(index, int):
        return None
    return (region_id, index) if ti_key.map_index in (None, -1) or _is_in_loop(ti_key) else None


def _is_in_loop(ti_key: Any) -> bool:
    group = getattr(getattr(ti_key, "task", None), "task_group", None)
    while group is not None:
        if hasattr(group, "max_iterations"):  # its class is private
            return True
        group = getattr(group, "parent_group", None)
    return False


def xcom_page(ti_key: Any) -> str:
    """Return the address of a task instance's XComs in this Airflow's UI."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    if AIRFLOW_V_3_0_PLUS:
        return f"{_base('api')}{_task_path(ti_key)}/xcom"
    dag, run, task = _quoted(ti_key)
    return f"{_base('webserver')}/dags/{dag}/grid?dag_run_id={run}&task_id={task}&map_index={ti_key.map_index}&tab=xcom"


def _base(section: str) -> str:
    return str(conf.get(section, "base_url", fallback="")).rstrip("/")


def _clip_path(ti_key: Any) -> str:
    if (region := region_of(ti_key)) is None:
        return _task_path(ti_key)
    return f"{_task_path(ti_key, map_index=-1)}/regions/{region[0]}/{region[1]}"


def _task_path(ti_key: Any, map_index: int | None = None) -> str:
    dag, run, task = _quoted(ti_key)
    index = ti_key.map_index if map_index is None else map_index
    mapped = "" if index is None or index < 0 else f"/mapped/{index}"
    return f"/dags/{dag}/runs/{run}/tasks/{task}{mapped}"


def _quoted(ti_key: Any) -> tuple[str, str, str]:
    dag, run, task = (quote(part, safe="") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
    return dag, run, task
