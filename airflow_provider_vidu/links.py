"""Links from a task in the Airflow UI to its generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom, conf

from airflow_provider_vidu.guard import ID_KEY

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey


class ViduGenerationLink(BaseOperatorLink):
    """Leads to what the task knows of its generation: its id, and the result with state and times.

    It appears as soon as there is an id. It is built from the XCom alone, because a resumed operator
    is a fresh instance, and it never holds a URL of the service.
    """

    name = "Vidu generation"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of the task instance's XComs, or nothing while there is no id."""
        if not XCom.get_value(ti_key=ti_key, key=ID_KEY):
            return ""
        return xcom_page(ti_key)


def xcom_page(ti_key: Any) -> str:
    """Return the address of a task instance's XComs in the UI of this Airflow."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    dag, run, task = (quote(part, safe="") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
    if not AIRFLOW_V_3_0_PLUS:
        base = conf.get("webserver", "base_url", fallback="").rstrip("/")
        return f"{base}/dags/{dag}/grid?dag_run_id={run}&task_id={task}&map_index={ti_key.map_index}&tab=xcom"
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    mapped = "" if ti_key.map_index is None or ti_key.map_index < 0 else f"/mapped/{ti_key.map_index}"
    return f"{base}/dags/{dag}/runs/{run}/tasks/{task}{mapped}/xcom"
