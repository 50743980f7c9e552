"""The name of a batch: which task instances work on one and the same."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.links import is_task_instance
from airflow_provider_vidu.operators.shared_names import is_same_for_all
from airflow_provider_vidu.orders.records import iteration_of
from airflow_provider_vidu.stores.naming import stem_of

if TYPE_CHECKING:
    from airflow_provider_vidu.operators.batch import ViduBatchOperator


def batch_name(operator: ViduBatchOperator, context: Any) -> str:
    """Return the name of a task's batch, a plain file name: as given, or of this task instance.

    :raises ViduConfigError: when it was rendered to nothing, or would be the same for all instances of a mapped task.
    """
    given = operator.batch.strip() if isinstance(operator.batch, str) else operator.batch
    ti = context.get("ti")
    if given not in (None, "", "None"):
        if _is_mapped(ti) and _is_same(operator, context, "batch", "destination"):
            raise ViduConfigError(
                f"All instances of this mapped task would be the one batch {sanitized(given, 120)!r}, each with rows "
                "of its own. Omit batch, or put {{ ti.map_index }} into it or into destination. Nothing was ordered."
            )
        return stem_of(str(given), None)
    if operator.written["batch"] is not None:  # under another name, everything would be ordered again
        raise ViduConfigError(
            "batch is empty: check the XCom or the param that it is templated from. Nothing was ordered."
        )
    if not is_task_instance(ti):
        return stem_of(operator.task_id, None)
    names = [ti.dag_id, ti.run_id, ti.task_id, str(getattr(ti, "map_index", -1))]
    if (iteration := iteration_of(context)) is not None:  # of a task loop: each orders its own
        names.append(f"iteration {iteration}")
    identity = "\n".join(names)
    return f"{stem_of(operator.task_id, None)}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"


def may_share_files(operator: ViduBatchOperator, context: Any) -> bool:
    """Whether rows of several instances of a mapped task replace each other's files if they have equal keys."""
    has_own_names = "generation_id" in operator.naming
    return _is_mapped(context.get("ti")) and not has_own_names and _is_same(operator, context, "destination")


def _is_mapped(ti: Any) -> bool:
    index = getattr(ti, "map_index", -1)
    return isinstance(index, int) and index >= 0


def _is_same(operator: ViduBatchOperator, context: Any, *names: str) -> bool:
    task = getattr(context.get("dag"), "task_dict", {}).get(operator.task_id)
    return all(is_same_for_all(task, name, operator.written[name]) for name in names)
