"""From a task in the Airflow UI to its generation: the Watch link, and what the page behind it needs to know."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom, conf

from airflow_provider_vidu.defaults import ID_KEY

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

log = logging.getLogger("airflow.task.airflow_provider_vidu.links")  # below a logger that every Airflow shows

WATCH_KEY: Final = "vidu_watch"
"""The XCom beside the id: which connection knows the generation, and what the task does with it."""

PAGE_PREFIX: Final = "/vidu"
"""Where the plugin's pages are mounted in the API server."""

PAGES_SINCE: Final = (3, 1, 1)
"""The first Airflow whose plugins may have pages of their own (3.1) and whose login holds for them: before 3.1.1 only
its own scripts had its session, and any other page demanded a login again and again."""

Role = Literal["generate", "submit", "wait", "download"]
"""What a task does with a generation; ``submit`` is a generate that does not wait for the result."""


class ViduWatchLink(BaseOperatorLink):
    """Opens the page of the task's clip, where it can be watched once it is there.

    It appears as soon as there is an id. It is built from the task instance's names and the XCom alone,
    because a resumed operator is a fresh instance, and it never holds a URL of the service. Where Airflow
    cannot have the page (:func:`has_pages`), it leads to the task instance's XComs.
    """

    name = "Watch"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of the clip's page, or nothing while there is no id."""
        if not XCom.get_value(ti_key=ti_key, key=ID_KEY):
            return ""
        return watch_page(ti_key)


def publish(
    context: Mapping[str, Any],
    generation_id: str,
    *,
    conn_id: str,
    role: Role,
    artifact: str | None = None,
    announce: bool = True,
    **known: Any,
) -> None:
    """Publish a task's generation, so that its page can be opened from now on, and log the page's address.

    :param context: the task's context; with an empty one, outside a task, nothing is published.
    :param generation_id: the id at Vidu.
    :param conn_id: the connection that knows it.
    :param role: what the task does with it.
    :param artifact: which file a download keeps.
    :param announce: whether to log the address; not for a task that publishes again and again.
    :param known: further facts: the endpoint, the fields that only the answer to its create holds, and of a wait its
        ``deadline`` (epoch seconds) and ``poll_interval`` (seconds) or that it is ``adaptive``.
    """
    ti = context.get("ti")
    if ti is None:
        return
    ti.xcom_push(key=ID_KEY, value=generation_id)
    more = {name: value for name, value in known.items() if value}
    ti.xcom_push(key=WATCH_KEY, value={"conn_id": conn_id, "role": role, "artifact": artifact, **more})
    # Airflow 3 stores links only when a leg ends: a task that waits in the worker would have none until then.
    key = getattr(ViduWatchLink(), "xcom_key", None)
    if key and is_task_instance(ti):
        ti.xcom_push(key=key, value=watch_page(ti))
    if announce and is_task_instance(ti) and has_pages():
        log.info("Watch: %s%s%s", _base("api"), PAGE_PREFIX, _task_path(ti))


def is_task_instance(ti: Any) -> bool:
    """Whether this is a task instance of Airflow's, rather than nothing, or the mock of a user's unit test."""
    return all(isinstance(getattr(ti, name, None), str) for name in ("dag_id", "run_id", "task_id"))


def has_pages() -> bool:
    """Whether this Airflow can have the clip pages."""
    from airflow.providers.common.compat import version_compat

    return version_compat.get_base_airflow_version_tuple() >= PAGES_SINCE


def watch_page(ti_key: Any) -> str:
    """Return the address of a task instance's clip page, or of its XComs where Airflow cannot have such a page."""
    if not has_pages():
        return xcom_page(ti_key)
    # The path alone: it holds for every host name (and tunnel) under which the UI is reached.
    return urlsplit(_base("api")).path + PAGE_PREFIX + _task_path(ti_key)


def xcom_page(ti_key: Any) -> str:
    """Return the address of a task instance's XComs in the UI of this Airflow."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    if AIRFLOW_V_3_0_PLUS:
        return f"{_base('api')}{_task_path(ti_key)}/xcom"
    dag, run, task = _quoted(ti_key)
    return f"{_base('webserver')}/dags/{dag}/grid?dag_run_id={run}&task_id={task}&map_index={ti_key.map_index}&tab=xcom"


def _base(section: str) -> str:
    return str(conf.get(section, "base_url", fallback="")).rstrip("/")


def _task_path(ti_key: Any) -> str:
    dag, run, task = _quoted(ti_key)
    mapped = "" if ti_key.map_index is None or ti_key.map_index < 0 else f"/mapped/{ti_key.map_index}"
    return f"/dags/{dag}/runs/{run}/tasks/{task}{mapped}"


def _quoted(ti_key: Any) -> tuple[str, str, str]:
    dag, run, task = (quote(part, safe="") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
    return dag, run, task
