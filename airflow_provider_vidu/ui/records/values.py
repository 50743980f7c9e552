"""Reading values that are as large as the author of a DAG makes them: measured first, then read within limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow.models import renderedtifields as rendered
from sqlalchemy import String, and_, cast, func, select
from sqlalchemy.orm import Session

from airflow_provider_vidu.ui.clips.xcoms import fields_in, parsed
from airflow_provider_vidu.ui.records.instances import Key, are, key_columns, key_of
from airflow_provider_vidu.ui.records.references import MAX_VALUE_BYTES

MAX_LOOK_CHARS: Final = 8 * 1024 * 1024
"""The most JSON of results, and of rendered fields, that one look reads; what comes after that counts as too large."""


def rendered_fields(session: Session, dag_id: str, run_id: str, keys: Sequence[Key]) -> dict[Key, Any]:
    """Return what the pages need of the rendered fields of task instances."""
    if hasattr(rendered.RenderedTaskInstanceFields, "get_for_attempt"):
        return _rendered_by_try(session, keys)
    model = rendered.RenderedTaskInstanceFields
    text = cast(model.rendered_fields, String)
    own = (model.dag_id == dag_id, model.run_id == run_id)
    rows = session.execute(sizes_of(model, text).where(*own, are(keys, model)))
    fits = fitting(keys, {key_of(row): row.size for row in rows})
    found = session.execute(texts_of(model, text).where(*own, are(fits, model))) if fits else ()
    return {key_of(row): fields_in(parsed(row.text)) for row in found}


def _rendered_by_try(session: Session, keys: Sequence[Key]) -> dict[Key, Any]:
    """Do so on Airflow 3.4 and later: there they belong to one try, and Airflow finds those of earlier versions."""
    model, before = rendered.RenderedTaskInstanceFields, getattr(rendered, "LegacyRenderedTaskInstanceFields", None)
    text = cast(model.rendered_fields, String)
    sizes = {key_of(row): row.size for row in session.execute(sizes_of(model, text).where(are(keys, model)))}
    if before is not None:
        from airflow.models.taskinstance import LegacyTaskDataOwner as Owner  # type: ignore[attr-defined]  # since 3.4

        names = ("dag_id", "run_id", "task_id", "map_index")
        is_own = and_(*(getattr(Owner, name) == getattr(before, name) for name in names))
        sized = select(*key_columns(Owner), func.length(cast(before.rendered_fields, String)).label("size"))
        for row in session.execute(sized.join(before, is_own).where(are(keys, Owner))):
            sizes[key_of(row)] = max(row.size, sizes.get(key_of(row), 0))
    fits = fitting(keys, sizes)
    stored = session.execute(texts_of(model, text).where(are(fits, model))) if fits else ()
    found = {key_of(row): fields_in(parsed(row.text)) for row in stored}
    for key in fits - found.keys() if before is not None else ():
        if (fields := _from_before(model, key, session)) is not None:
            found[key] = fields_in(fields)
    return found


def _from_before(model: Any, try_id: Any, session: Session) -> Any:
    """Return the rendered fields that an Airflow before 3.4 stored; None where Python cannot parse them."""
    try:
        fields = model.get_for_attempt(try_id, session=session)
    except (ValueError, RecursionError):  # deep, cut off, or a number of thousands of digits
        return None
    return None if fields is None else fields.rendered_fields


def sizes_of(model: Any, text: Any, *more: Any) -> Any:
    """Select how many characters values have."""
    return _of_any_try(select(*key_columns(model), func.length(text).label("size"), *more))


def texts_of(model: Any, text: Any, *more: Any) -> Any:
    """Select values as the JSON text that they are stored as: what Python cannot parse must not end the query."""
    return _of_any_try(
        select(*key_columns(model), text.label("text"), *more).where(func.length(text) <= MAX_VALUE_BYTES)
    )


def _of_any_try(query: Any) -> Any:
    """Let a query that names its task instances read earlier tries, which Airflow 3.4 hides otherwise."""
    return query.execution_options(include_all_attempts=True)


def fitting(keys: Sequence[Key], sizes: Mapping[Key, int]) -> set[Key]:
    """Return the task instances whose values are read: none that is too large, and no more than one look may read."""
    fits, left = set(), MAX_LOOK_CHARS
    for key in keys:
        size = sizes.get(key)
        if size is not None and size <= min(MAX_VALUE_BYTES, left):
            fits.add(key)
            left -= size
    return fits
