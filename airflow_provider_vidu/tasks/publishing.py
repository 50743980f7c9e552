"""Generations that a ``@task`` submits through the hook, published for the clip pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from airflow.providers.common.compat.sdk import get_current_context

from airflow_provider_vidu.api.dialects.levels import seed_of
from airflow_provider_vidu.api.ids import checked_id
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.links import MAX_PUBLISHED, Role, is_task_instance, publish, published_number
from airflow_provider_vidu.models import Generation

_FROM_CREATE = ("endpoint", "created_at", "credits", "seed", "model")


def publish_generation(
    generation: Generation | str,
    context: Mapping[str, Any] | None,
    *,
    conn_id: str,
    endpoint: str | None,
    log: Any,
) -> None:
    """Publish a generation as one of a task; a task may have :data:`.MAX_PUBLISHED` of them.

    :param context: the task's context; if None, that of the running task.
    :param log: the logger for a generation that gets no page.
    :raises ViduConfigError: when no task runs and there is no context.
    """
    ti = (_running_context() if context is None else context).get("ti")
    if not is_task_instance(ti):  # a unit test of the user's
        return
    known = generation if isinstance(generation, Generation) else None
    generation_id = checked_id(known.id if known else generation)
    number, note = published_number(ti, generation_id, conn_id)
    if number is None:
        log.warning(
            "Generation %s has no page: the task has already published %d generations.", generation_id, MAX_PUBLISHED
        )
        return
    # Later answers omit what only the create's says, and an earlier call has noted it.
    facts = {name: note[name] for name in _FROM_CREATE if name in note}
    facts |= {name: value for name, value in (("endpoint", endpoint), *_facts_of(known)) if value is not None}
    has_succeeded = known.succeeded if known else note.get("role") == "generate"
    role: Role = "generate" if has_succeeded else "submit"
    publish({"ti": ti}, generation_id, conn_id=conn_id, role=role, number=number, announce=not note, by="hook", **facts)


def _running_context() -> Mapping[str, Any]:
    try:
        return cast("Mapping[str, Any]", get_current_context())
    except Exception as error:  # its class differs between the versions of Airflow
        raise ViduConfigError("publish() found no running task: call it in a @task, or pass context=.") from error


def _facts_of(known: Generation | None) -> list[tuple[str, Any]]:
    """Return what an answer says of the order, as plain JSON."""
    if known is None:
        return []
    return [
        ("created_at", known.created_at.isoformat() if known.created_at else None),
        ("credits", known.credits),
        ("seed", seed_of(known.raw)),
        ("model", known.model),
    ]
