"""How many clips a DAG run has in each stage, and which are on a page of its sheet: counted by the database.

A run may have 50,000 mapped tasks, and the page of every viewer refreshes every few seconds. Only the ids of one page
leave the database. :attr:`.Clip.stage` decides what a stage is; the same is said here in SQL, and a test compares the
two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import String, and_, case, cast, func, literal, not_, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.functions import GenericFunction

from airflow_provider_vidu.links import DRY_RUN_PREFIX, ID_KEY, MAX_PUBLISHED, RESULT_KEY, WATCH_KEY, numbered
from airflow_provider_vidu.ui.clips.cards import DIGITS, STAGE_RANK, STAGES
from airflow_provider_vidu.ui.clips.facts import ENDED, TaskFacts
from airflow_provider_vidu.ui.clips.xcoms import BESIDE, MAKING, PAYING, STORES
from airflow_provider_vidu.ui.records.instances import BY_TIME, HAS_RESULT, PLACE, of_run, place_in, placed, same_task
from airflow_provider_vidu.ui.records.json_fields import MAX_SMALL_CHARS, as_number, text_field

MAX_TASKS: Final = 100_000
"""A contact sheet covers at most this many task instances of a run."""
MAX_PLACED: Final = 2_000
"""The most task instances with an id in a run whose clips a page counts to find its neighbours."""

ID_TEXT: Final = cast(XComModel.value, String)
"""A value as the JSON text in the database."""
# Text, or the number that some versions of Airflow make of an id of digits.
_MAY_BE_ID: Final = and_(
    ID_TEXT.not_like("{%"), ID_TEXT.not_like("[%"), ID_TEXT.not_in(["null", "true", "false", '""'])
)
ID_KEYS: Final = [numbered(ID_KEY, number) for number in range(1, MAX_PUBLISHED + 1)]
"""The keys of the ids that a task publishes; in this order as text, too."""
WATCH_KEYS: Final = [numbered(WATCH_KEY, number) for number in range(1, MAX_PUBLISHED + 1)]
KEY_NUMBERS: Final = {key: number for keys in (ID_KEYS, WATCH_KEYS) for number, key in enumerate(keys, 1)}
"""Which generation of its task a key belongs to."""
IS_SMALL: Final = func.length(ID_TEXT) <= MAX_SMALL_CHARS


@dataclass(frozen=True, slots=True)
class Counted:
    """How many clips there are in each stage, and the ids of one page as JSON text, in their order.

    ``credits`` is the sum of what the clips of the chosen stage cost, and of how many of them that is known.
    """

    counts: Mapping[str, int]
    credits: tuple[float, int]
    ids: Sequence[str]
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a clip among those of its run, from 1 on, and the main tasks of the clips beside it.

    These are as :attr:`.TaskFacts.place` has them.
    """

    number: int
    total: int
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


def has_references(session: Session, dag_id: str, run_id: str) -> bool:
    """Whether an id or a note of a run looks like the address of a value that is kept elsewhere."""
    query = select(literal(1)).where(
        *of_run(XComModel, dag_id, run_id),
        XComModel.key.in_([*ID_KEYS, *WATCH_KEYS]),
        IS_SMALL,
        or_(ID_TEXT.like('"%://%'), ID_TEXT.like('"/%')),
    )
    return session.execute(query.limit(1)).first() is not None


def count(
    session: Session, dag_id: str, run_id: str, stage: str | None, offset: int, limit: int, order: str = "scene"
) -> Counted:
    """Count the clips of a run, and return the ids of a page of them.

    :param stage: only ids of clips in this stage; None for all.
    :param offset: how many clips to skip.
    :param limit: the most ids to return.
    :param order: one of :data:`.ORDERS`.
    """
    is_id = _ids(dag_id, run_id)
    tasks = session.scalar(select(func.count()).select_from(XComModel).where(*is_id)) or 0
    if not tasks:
        return Counted(dict.fromkeys(STAGES, 0), (0.0, 0), [], is_cut=False)
    clips = _clips(is_id, is_cut=tasks > MAX_TASKS)
    numbers = (func.count().label("clips"), func.sum(clips.c.credits).label("cost"), func.count(clips.c.credits))
    stages = list(session.execute(select(clips.c.stage, *numbers).group_by(clips.c.stage)))
    counted: dict[str, int] = {row.stage: row.clips for row in stages}
    prices = [(row.cost or 0.0, row[3]) for row in stages if stage in (None, row.stage)]
    page = select(clips.c.id).order_by(*_ordered(clips, order)).offset(offset).limit(limit)
    if stage is not None:
        page = page.where(clips.c.stage == stage)
    return Counted(
        {name: counted.get(name, 0) for name in STAGES},
        (float(sum(cost for cost, _ in prices)), sum(known for _, known in prices)),
        list(session.scalars(page)),
        is_cut=tasks > MAX_TASKS,
    )


def _ordered(clips: Any, order: str) -> list[Any]:
    """Return what the clips are sorted by: as :func:`.in_order` does, and by their scenes where that leaves them equal.

    Databases differ in where they sort what is unknown: it comes last.
    """
    columns = clips.c
    scene = [columns.began, columns.task_id, columns.iteration, columns.map_index, columns.key]
    unknown = {"cost": columns.credits, "label": columns.label}.get(order)
    first = {
        "newest": [columns.at.desc()],
        "cost": [columns.credits.desc()],
        "state": [case(STAGE_RANK, value=columns.stage, else_=len(STAGE_RANK))],
        "label": _by_label(columns.label),
    }.get(order, [])
    return [*([_flag(unknown.is_(None))] if unknown is not None else []), *first, *scene]


def _by_label(label: Any) -> list[Any]:
    """Return what labels are sorted by: as :func:`.label_key` does."""
    digits = func.length(label) - func.length(after_digits(label))
    return [_flag(digits == 0), digits, before_digits(label), func.length(label), label]


def place_of(session: Session, main: TaskFacts) -> Place | None:
    """Return the place of a clip in the order of the sheet; None in a run with too many of them.

    :param main: the task instance that stands for the clip.
    """
    is_id = _ids(main.dag_id, main.run_id)
    tasks = session.scalar(select(func.count()).select_from(XComModel).where(*is_id)) or 0
    if tasks > MAX_PLACED:
        return None
    clips = _clips(is_id, is_cut=False)
    columns = (clips.c[name] for name in ("task_id", "map_index", "iteration", "region_id", "key"))
    rows = session.execute(select(*columns).order_by(*_ordered(clips, "scene")))
    places = [
        TaskFacts(main.dag_id, main.run_id, generation_id=None, number=KEY_NUMBERS[row.key], **place_in(row)).place
        for row in rows
    ]
    if main.place not in places:
        return None
    at = places.index(main.place)
    after = places[at + 1] if at + 1 < len(places) else None
    return Place(at + 1, len(places), places[at - 1] if at else None, after)


def _ids(dag_id: str, run_id: str) -> Sequence[Any]:
    """Return the conditions that a row is the id of a generation in a run."""
    return (*of_run(XComModel, dag_id, run_id), XComModel.key.in_(ID_KEYS), IS_SMALL, _MAY_BE_ID)


def _instances(is_id: Sequence[Any], *, is_cut: bool) -> Any:
    """Return a subquery with one row for each id of a task instance, and with what its clip's stage depends on."""
    note = aliased(XComModel)
    note_text = cast(note.value, String)
    read = placed(
        select(
            ID_TEXT.label("id"),
            XComModel.task_id,
            *PLACE,
            XComModel.key.label("key"),
            XComModel.timestamp.label("at"),
            note_text.label("note"),
            text_field(note.value, "credits", 40).label("price"),
            TaskInstance.state.label("state"),
            TaskInstance.next_method.is_not(None).label("resumes"),
            HAS_RESULT.label("has_result"),
        )
        .join(TaskInstance, same_task(XComModel, TaskInstance))
        .outerjoin(
            note,
            and_(
                same_task(XComModel, note),
                note.key == key_beside(XComModel.key, ID_KEY, WATCH_KEY),
                func.length(note_text) <= MAX_SMALL_CHARS,
            ),
        )
        .where(*is_id)
    )
    if is_cut:
        read = read.order_by(*BY_TIME)
    row = _once(read).c

    def says(name: str, *words: str) -> Any:
        return or_(*(_says(row.note, name, word) for word in words))

    made = says("role", *MAKING)
    stores = or_(says("role", "download"), and_(made, says("stores", STORES)))
    stored = and_(stores, not_(says("artifact", *sorted(BESIDE))))
    was_marked = and_(or_(row.resumes, says("result", RESULT_KEY)), not_(row.has_result))
    is_lost = and_(row.state == "removed", not_(row.has_result), says("role", *PAYING))  # as has_failed has it
    is_kept = and_(row.state == "removed", row.has_result)
    success = or_(and_(row.state == "success", not_(was_marked)), is_kept)  # as TaskFacts.has_succeeded has it
    names = ("id", "task_id", "map_index", "iteration", "region_id", "label", "key", "at")
    return _once(
        select(
            *(row[name] for name in names),
            as_number(row.price).label("credits"),
            _flag(and_(stored, success)).label("stored"),
            _flag(and_(or_(made, row.id.like(f'"{DRY_RUN_PREFIX}%')), success)).label("made"),
            _flag(or_(row.state == "failed", is_lost)).label("failed"),
            _flag(row.state.in_(ENDED)).label("ended"),
        )
    )


def _once(query: Any) -> Any:
    """Return a subquery whose columns are computed once for each row.

    Without its limit, which cuts nothing here, PostgreSQL computes them wherever what encloses the query names them: a
    note was made text eighty times.
    """
    return query.limit(MAX_TASKS).subquery()


def _clips(is_id: Sequence[Any], *, is_cut: bool) -> Any:
    """Return a subquery with one row for each clip: id, main task, label, cost, stage and when its task began."""
    each = _instances(is_id, is_cut=is_cut)

    def of_clip(value: Any, **more: Any) -> Any:
        return value.over(partition_by=each.c.id, **more)

    # No maximum of a partition: MariaDB goes through all of its rows for each of them.
    has_ended = of_clip(func.sum(1 - each.c.ended)) == 0
    has_failed = and_(of_clip(func.sum(each.c.failed)) > 0, has_ended)
    order = [each.c.at, each.c.task_id, each.c.iteration, each.c.map_index, each.c.key]
    dearest = [_flag(each.c.credits.is_(None)), each.c.credits.desc()]
    # Without its type, PostgreSQL and MySQL answer with a Decimal, which Python adds to no float.
    price = func.first_value(each.c.credits, type_=each.c.credits.type)
    ranked = select(
        *(column for column in each.c if column.name != "credits"),
        of_clip(price, order_by=dearest).label("credits"),
        of_clip(func.row_number(), order_by=order).label("place"),
        case(
            (of_clip(func.sum(each.c.stored)) > 0, "stored"),
            (of_clip(func.sum(each.c.made)) > 0, "ready"),
            (has_failed, "failed"),
            (has_ended, "submitted"),
            else_="working",
        ).label("stage"),
    ).subquery()
    names = ("id", "task_id", "iteration", "map_index", "region_id", "key", "at", "label", "credits", "stage")
    began = func.first_value(ranked.c.at).over(partition_by=ranked.c.task_id, order_by=ranked.c.at).label("began")
    return select(*(ranked.c[name] for name in names), began).where(ranked.c.place == 1).subquery()


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


def key_beside(key: Any, own: str, other: str) -> Any:
    """Return the key with the same number as one that begins with ``own``: that of the note beside an id, or back."""
    return case((key == own, other), else_=func.replace(key, own, other))


class after_digits(GenericFunction[str]):  # noqa: N801 - the name of a function in SQL
    """A text without the digits at its beginning."""

    type = String()
    inherit_cache = True


class before_digits(GenericFunction[str]):  # noqa: N801 - the name of a function in SQL
    """A text without the digits at its end."""

    type = String()
    inherit_cache = True


@compiles(after_digits)
@compiles(before_digits)
def _trimmed(element: Any, compiler: Any, **more: Any) -> str:
    side = "ltrim" if isinstance(element, after_digits) else "rtrim"
    return f"{side}({compiler.process(element.clauses, **more)}, '{DIGITS}')"


@compiles(after_digits, "mysql")
@compiles(after_digits, "mariadb")
@compiles(before_digits, "mysql")
@compiles(before_digits, "mariadb")
def _replaced(element: Any, compiler: Any, **more: Any) -> str:
    # Their TRIM removes a whole string, not any of its characters. A pattern for the end would be tried at each digit:
    # 100,000 labels of 250 characters took 18 seconds.
    text = compiler.process(element.clauses, **more)
    if isinstance(element, after_digits):
        return f"regexp_replace({text}, '^[0-9]+', '')"
    return f"reverse(regexp_replace(reverse({text}), '^[0-9]+', ''))"
