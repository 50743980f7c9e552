"""How many clips a DAG run has in each stage, and which stand on a page of its sheet: counted by the database.

A run may have 50,000 mapped tasks, and every viewer looks again every few seconds. Only the ids of one page leave the
database. :attr:`.Clip.stage` decides what a stage is; the same is said here in SQL, and a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import String, and_, case, cast, func, literal, not_, or_, select
from sqlalchemy.orm import Session, aliased

from airflow_provider_vidu.defaults import ID_KEY
from airflow_provider_vidu.links import WATCH_KEY
from airflow_provider_vidu.ui.clips.facts import BESIDE, ENDED, MAKING
from airflow_provider_vidu.ui.records.instances import iteration_column, map_index_column, placed, same_task

STAGES: Final = ("working", "ready", "stored", "failed")
MAX_TASKS: Final = 100_000
"""The most task instances of a run that a contact sheet looks at."""
MAX_SMALL_CHARS: Final = 8_000
"""The longest id or note that is read: 1,024 characters of an id may be spelt with six each."""

ID_TEXT: Final = cast(XComModel.value, String)
"""A value as the JSON text that stands in the database."""
# Text, or the number that some versions of Airflow make of an id of digits.
_MAY_BE_ID: Final = and_(
    ID_TEXT.not_like("{%"), ID_TEXT.not_like("[%"), ID_TEXT.not_in(["null", "true", "false", '""'])
)
PLACES: Final = ("began", "task_id", "iteration", "map_index")
"""The order of clips: by the time at which the first clip of their task began, then as the tasks run."""
IS_SMALL: Final = func.length(ID_TEXT) <= MAX_SMALL_CHARS


@dataclass(frozen=True, slots=True)
class Counted:
    """How many clips there are in each stage, and the ids of one page as JSON text, in their order."""

    counts: Mapping[str, int]
    ids: Sequence[str]
    is_cut: bool


def has_references(session: Session, dag_id: str, run_id: str) -> bool:
    """Whether an id or a note of a run looks like the address of a value that is kept elsewhere."""
    query = select(literal(1)).where(
        XComModel.dag_id == dag_id,
        XComModel.run_id == run_id,
        XComModel.key.in_((ID_KEY, WATCH_KEY)),
        IS_SMALL,
        or_(ID_TEXT.like('"%://%'), ID_TEXT.like('"/%')),
    )
    return session.execute(query.limit(1)).first() is not None


def count(session: Session, dag_id: str, run_id: str, stage: str | None, offset: int, limit: int) -> Counted:
    """Count the clips of a run, and return the ids of a page of them.

    :param stage: only ids of clips in this stage; None for all.
    :param offset: how many clips to skip.
    :param limit: the most ids to return.
    """
    own = (XComModel.dag_id == dag_id, XComModel.run_id == run_id)
    is_id = (*own, XComModel.key == ID_KEY, IS_SMALL, _MAY_BE_ID)
    tasks = session.scalar(select(func.count()).select_from(XComModel).where(*is_id)) or 0
    if not tasks:
        return Counted(dict.fromkeys(STAGES, 0), [], is_cut=False)
    clips = _clips(is_id, is_cut=tasks > MAX_TASKS)
    stages = session.execute(select(clips.c.stage, func.count().label("clips")).group_by(clips.c.stage))
    counted: dict[str, int] = {row.stage: row.clips for row in stages}
    page = select(clips.c.id).order_by(*(clips.c[name] for name in PLACES)).offset(offset).limit(limit)
    if stage is not None:
        page = page.where(clips.c.stage == stage)
    return Counted(
        {name: counted.get(name, 0) for name in STAGES}, list(session.scalars(page)), is_cut=tasks > MAX_TASKS
    )


def _clips(is_id: Sequence[Any], *, is_cut: bool) -> Any:
    """Return a subquery with one row for each clip: its id, its main task, its stage and when its task began."""
    note = aliased(XComModel)
    note_text = cast(note.value, String)

    def says(name: str, *words: str) -> Any:
        return or_(*(_says(note_text, name, word) for word in words))

    made = says("role", *MAKING)
    stored = and_(says("role", "download"), not_(says("artifact", *sorted(BESIDE))))
    success = TaskInstance.state == "success"
    tasks = placed(
        select(
            ID_TEXT.label("id"),
            XComModel.task_id,
            iteration_column.label("iteration"),
            map_index_column.label("map_index"),
            XComModel.timestamp.label("at"),
            _flag(and_(stored, success)).label("stored"),
            _flag(and_(made, success)).label("made"),
            _flag(TaskInstance.state == "failed").label("failed"),
            _flag(TaskInstance.state.in_(ENDED)).label("ended"),
        )
        .join(TaskInstance, same_task(XComModel, TaskInstance))
        .outerjoin(
            note,
            and_(same_task(XComModel, note), note.key == WATCH_KEY, func.length(note_text) <= MAX_SMALL_CHARS),
        )
        .where(*is_id)
    )
    if is_cut:
        tasks = tasks.order_by(XComModel.timestamp, XComModel.task_id, XComModel.map_index).limit(MAX_TASKS)
    each = tasks.subquery()

    def of_clip(value: Any, **more: Any) -> Any:
        return value.over(partition_by=each.c.id, **more)

    has_failed = and_(of_clip(func.max(each.c.failed)) == 1, of_clip(func.min(each.c.ended)) == 1)
    order = [each.c.at, each.c.task_id, each.c.iteration, each.c.map_index]
    ranked = select(
        *each.c,
        of_clip(func.row_number(), order_by=order).label("place"),
        case(
            (of_clip(func.max(each.c.stored)) == 1, "stored"),
            (of_clip(func.max(each.c.made)) == 1, "ready"),
            (has_failed, "failed"),
            else_="working",
        ).label("stage"),
    ).subquery()
    return (
        select(
            ranked.c.id,
            ranked.c.task_id,
            ranked.c.iteration,
            ranked.c.map_index,
            ranked.c.stage,
            func.min(ranked.c.at).over(partition_by=ranked.c.task_id).label("began"),
        )
        .where(ranked.c.place == 1)
        .subquery()
    )


def _says(text: Any, name: str, word: str) -> Any:
    """Return the condition that a JSON object holds ``word`` under a name: as text, which all databases read alike.

    Databases differ in their blanks; some versions of Airflow store the object's JSON once more as text.
    """
    spelt = [f'"{name}":{blank}"{word}"' for blank in ("", " ")]
    plain = or_(*(text.contains(each, autoescape=True) for each in spelt))
    quoted = or_(*(text.contains(json.dumps(each)[1:-1], autoescape=True) for each in spelt))
    return or_(and_(text.like("{%"), plain), and_(text.like('"{%'), quoted))


def _flag(condition: Any) -> Any:
    return case((condition, 1), else_=0)
