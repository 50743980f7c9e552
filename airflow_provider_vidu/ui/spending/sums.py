"""What generations have cost, added up by the metadata database from the XComs of the tasks that submitted them.

Three places name a price, the first one that does counts: ``vidu_spent`` (the sum of a task's orders, over its retries
and clears, less what a cancel returned), the note beside the id (the answer to the create), and a small result. The
first of them counts without an id, too: a try that a budget refuses, or that waits for a slot, has no generation yet.

A batch is one XCom, with how many generations it has ordered and their cost over all of its tries: it counts once in
each DAG, as its newest task instance there left it, on the day when that was. Not once in all of them: the author of
another DAG may name any batch.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from airflow.models import renderedtifields as rendered
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import String, and_, case, cast, exists, func, literal, not_, or_, select, union_all
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.functions import GenericFunction

from airflow_provider_vidu.links import BATCH_KEY, ID_KEY, RESULT_KEY, WATCH_KEY
from airflow_provider_vidu.orders.money.spending import SPENT_KEY
from airflow_provider_vidu.ui.records.counts import WATCH_KEYS, key_beside
from airflow_provider_vidu.ui.records.instances import HAS_REGIONS, HAS_RESULT, same_task
from airflow_provider_vidu.ui.records.json_fields import MAX_SMALL_CHARS, as_number, text_field
from airflow_provider_vidu.ui.records.no_generation import ORDERING
from airflow_provider_vidu.ui.spending.account import Account, Spent

MAX_GENERATIONS: Final = 100_000
"""The most generations that are added up: the newest ones."""
MAX_BATCHES: Final = 10_000
"""The most task instances with a batch that are looked at: the newest ones."""
MAX_FOLDER_CHARS: Final = 2_000
MAX_GROUPS: Final = 20_000
"""The most sums (of a day, DAG, model and outcome) that are returned."""
MAX_OF_DAG: Final = 2_000
"""The most of these sums of one DAG: its author names its models, and may name a new one each time."""
MAX_RESULT_CHARS: Final = 16_000
"""A result that is longer is not read for its price: thousands of them would be megabytes."""
MAX_MODEL_CHARS: Final = 100
_ONGOING: Final = (
    "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred",
    "awaiting_input",
)  # fmt: skip

_BEGUN: Final = ("running", "restarting", "up_for_retry", "failed")
"""The states of a task that has begun a try, and may not have published anything in it."""
_OF_XCOM: Final = (
    *(getattr(XComModel, name) for name in ("dag_id", "run_id", "task_id", "map_index", "timestamp")),
    *([XComModel.task_instance_id] if HAS_REGIONS else []),
)
"""What is selected of an XCom beside its value: with what :func:`.same_task` compares."""


class utc_day(GenericFunction[str]):  # noqa: N801 - the name of a function in SQL
    """The day of a moment in UTC, as ``2026-01-31``."""

    type = String()
    inherit_cache = True


@compiles(utc_day)
def _first_characters(element: Any, compiler: Any, **more: Any) -> str:
    # SQLite keeps moments as text, in UTC.
    return f"substr({compiler.process(element.clauses, **more)}, 1, 10)"


@compiles(utc_day, "postgresql")
def _of_postgresql(element: Any, compiler: Any, **more: Any) -> str:
    return f"to_char(({compiler.process(element.clauses, **more)}) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"


@compiles(utc_day, "mysql")
@compiles(utc_day, "mariadb")
def _of_mysql(element: Any, compiler: Any, **more: Any) -> str:
    # Airflow's sessions are in UTC. A lone per cent sign would be a placeholder of the driver.
    return f"date_format({compiler.process(element.clauses, **more)}, '%%Y-%%m-%%d')"


def read_account(since: datetime) -> Account:
    """Return what was spent from a moment on; runs in a thread.

    :param since: the begin of the first day.
    """
    with create_session() as session:
        return account(session, since)


def account(session: Session, since: datetime) -> Account:
    """Return what was spent from a moment on, of all DAGs: the caller removes those that the user may not see.

    :param since: the begin of the first day.
    """
    is_object = case((cast(XComModel.value, String).like("{%"), 1), else_=0)
    is_batch = case((XComModel.key == BATCH_KEY, 1), else_=0)
    notes, readable, batches = session.execute(
        select(func.count(), func.sum(is_object), func.sum(is_batch)).where(
            XComModel.key.in_([*WATCH_KEYS, BATCH_KEY]), XComModel.timestamp >= since
        )
    ).one()
    each = union_all(_generations(since), _earlier(since), _batches(since)).subquery()
    sums = (
        select(
            each.c.day, each.c.dag_id, each.c.model, each.c.outcome, func.sum(each.c.generations).label("generations"),
            func.sum(each.c.priced).label("priced"), func.sum(each.c.price).label("credits"),
        )
        .where(each.c.place == 1, each.c.day >= f"{since:%Y-%m-%d}")
        .group_by(each.c.day, each.c.dag_id, each.c.model, each.c.outcome)
    ).subquery()  # fmt: skip
    newest = [sums.c.day.desc(), sums.c.credits.desc()]
    ranked = select(sums, func.row_number().over(partition_by=sums.c.dag_id, order_by=newest).label("nth")).subquery()
    query = (
        select(ranked)
        .where(ranked.c.nth <= MAX_OF_DAG + 1)
        # In turn from each DAG: a dozen DAGs of one author, with a new model each time, would fill the limit.
        .order_by(ranked.c.nth, ranked.c.day.desc(), ranked.c.credits.desc(), ranked.c.dag_id)
        .limit(MAX_GROUPS + 1)
    )
    found = session.execute(query).all()
    rows = [
        Spent(
            row.day, row.dag_id, row.model, row.outcome, int(row.generations), int(row.priced), float(row.credits or 0)
        )
        for row in found
        if row.nth <= MAX_OF_DAG
    ]
    is_cut = len(found) > len(rows) or len(rows) > MAX_GROUPS
    is_cut = is_cut or (readable or 0) > MAX_GENERATIONS or (batches or 0) > MAX_BATCHES
    begun_again = {row.dag_id: row.tasks for row in session.execute(_begun_again(since))}
    shown = sorted(rows[:MAX_GROUPS], key=lambda row: (-row.credits, row.dag_id))
    shown.sort(key=lambda row: row.day, reverse=True)
    return Account(tuple(shown), is_cut, notes - int(readable or 0), begun_again)


def _begun_again(since: datetime) -> Any:
    """Select, by DAG, how many tasks have begun another try and published nothing in it.

    Airflow removes a task's XComs when a try begins. A retry that resumes an order, or a batch, publishes it again;
    until then, or if the try ends before, the earlier tries are missing in the sums.
    """
    notes = aliased(XComModel)
    published = (WATCH_KEY, BATCH_KEY, SPENT_KEY)
    has_published = exists().where(same_task(notes, TaskInstance), notes.key.in_(published))
    return (
        select(TaskInstance.dag_id, func.count().label("tasks"))
        .where(
            TaskInstance.state.in_(_BEGUN),
            TaskInstance.operator.in_(ORDERING),
            TaskInstance.try_number > 1,
            TaskInstance.start_date >= since,
            ~has_published,
        )
        .group_by(TaskInstance.dag_id)
    )


def _generations(since: datetime) -> Any:
    """Select the generations that tasks have submitted, with their prices; ``place`` is 1 for one row of each."""
    role = text_field(XComModel.value, "role", 20)
    # What a limited subquery selects is computed once, not at each use.
    newest = (
        select(
            *_OF_XCOM,
            XComModel.key,
            role.label("role"),
            text_field(XComModel.value, "conn_id").label("conn_id"),
            text_field(XComModel.value, "result", 40).label("result"),
            text_field(XComModel.value, "created_at", 40).label("created_at"),
            text_field(XComModel.value, "credits", 40).label("credits"),
            text_field(XComModel.value, "model", MAX_MODEL_CHARS).label("model"),
        )
        .where(XComModel.key.in_(WATCH_KEYS), XComModel.timestamp >= since, role.in_(("generate", "submit")))
        .order_by(XComModel.timestamp.desc())
        .limit(MAX_GENERATIONS)
    ).subquery()
    note = newest.c
    ids, spent, result = aliased(XComModel), aliased(XComModel), aliased(XComModel)
    fields = aliased(rendered.RenderedTaskInstanceFields)
    is_first = note.key == WATCH_KEY
    is_beside, id_text = ids.key == key_beside(note.key, WATCH_KEY, ID_KEY), cast(ids.value, String)
    is_day = or_(*(note.created_at.like(f"20__-__-__T%{zone}") for zone in ("+00:00", "Z")))
    price = func.coalesce(
        as_number(cast(spent.value, String)),
        as_number(note.credits),
        as_number(text_field(result.value, "credits", 40, within=MAX_RESULT_CHARS)),
    )
    model = func.coalesce(
        note.model,
        text_field(result.value, "model", MAX_MODEL_CHARS, within=MAX_RESULT_CHARS),
        text_field(fields.rendered_fields, "model", MAX_MODEL_CHARS, within=MAX_RESULT_CHARS),
    )
    order = [case((price.is_(None), 1), else_=0), note.timestamp, note.task_id, note.map_index]
    same = (note.dag_id, note.run_id, note.conn_id, id_text)  # two services may number their generations alike
    return (
        select(
            case((is_day, func.substr(note.created_at, 1, 10)), else_=utc_day(note.timestamp)).label("day"),
            note.dag_id.label("dag_id"),
            model.label("model"),
            _outcome(note.role, note.result == RESULT_KEY).label("outcome"),
            literal(1).label("generations"),
            case((price.is_(None), 0), else_=1).label("priced"),
            price.label("price"),
            func.row_number().over(partition_by=same, order_by=order).label("place"),
        )
        .select_from(newest)
        .join(TaskInstance, same_task(note, TaskInstance))
        .join(ids, and_(same_task(note, ids), is_beside, func.length(id_text) <= MAX_SMALL_CHARS))
        .outerjoin(spent, and_(same_task(note, spent), spent.key == SPENT_KEY, is_first))
        .outerjoin(result, and_(same_task(note, result), result.key == RESULT_KEY, is_first))
        .outerjoin(fields, _fields_of(fields, note))
    )


def _earlier(since: datetime) -> Any:
    """Select as :func:`_generations` does what tasks have spent in earlier tries, if the latest one has no generation.

    How many generations that was is not known, so each task counts as one, on the day when its latest try began.
    """
    newest = (
        select(
            *_OF_XCOM,
            as_number(cast(XComModel.value, String)).label("price"),
        )
        .where(XComModel.key == SPENT_KEY, XComModel.timestamp >= since)
        .order_by(XComModel.timestamp.desc())
        .limit(MAX_GENERATIONS)
    ).subquery()
    spent, ids, fields = newest.c, aliased(XComModel), aliased(rendered.RenderedTaskInstanceFields)
    return (
        select(
            utc_day(spent.timestamp),
            spent.dag_id,
            text_field(fields.rendered_fields, "model", MAX_MODEL_CHARS, within=MAX_RESULT_CHARS),
            _outcome(literal("generate")),
            literal(1),
            literal(1),
            spent.price,
            literal(1),
        )
        .select_from(newest)
        .join(TaskInstance, same_task(spent, TaskInstance))
        .outerjoin(fields, _fields_of(fields, spent))
        .where(spent.price > 0, ~exists().where(same_task(ids, spent), ids.key == ID_KEY))
    )


def _batches(since: datetime) -> Any:
    """Select the batches as :func:`_generations` selects generations; ``place`` is 1 for one row of each.

    A batch with a name of its own goes on from run to run, and each of its tasks has published the whole sum.
    """
    newest = (
        select(
            *_OF_XCOM,
            text_field(XComModel.value, "folder", MAX_FOLDER_CHARS).label("folder"),
            text_field(XComModel.value, "batch").label("batch"),
            *(
                as_number(text_field(XComModel.value, name, 40)).label(name)
                for name in ("generations", "priced", "credits")
            ),
        )
        .where(XComModel.key == BATCH_KEY, XComModel.timestamp >= since)
        .order_by(XComModel.timestamp.desc())
        .limit(MAX_BATCHES)
    ).subquery()
    note, fields = newest.c, aliased(rendered.RenderedTaskInstanceFields)
    order = [note.timestamp.desc(), note.dag_id, note.run_id, note.task_id, note.map_index]
    return (
        select(
            utc_day(note.timestamp),
            note.dag_id,
            text_field(fields.rendered_fields, "model", MAX_MODEL_CHARS, within=MAX_RESULT_CHARS),
            _outcome(literal("generate")),
            note.generations,
            func.coalesce(note.priced, 0),
            note.credits,
            func.row_number().over(partition_by=(note.dag_id, note.folder, note.batch), order_by=order),
        )
        .select_from(newest)
        .join(TaskInstance, same_task(note, TaskInstance))
        .outerjoin(fields, _fields_of(fields, note))
        .where(note.generations > 0)
    )


def _fields_of(fields: Any, note: Any) -> Any:
    """Return the condition that rendered fields belong to a note's task instance."""
    return same_task(note, fields) if hasattr(fields, "dag_id") else fields.task_instance_id == TaskInstance.id


def _outcome(role: Any, *returns: Any) -> Any:
    """Return the outcome of a task; one that a user has marked as success has not seen it (:attr:`.was_marked`).

    :param returns: whether its note promises a result.
    """
    state = TaskInstance.state
    was_marked = and_(or_(TaskInstance.next_method.is_not(None), *returns), not_(HAS_RESULT))
    has_not_waited = or_(role == "submit", was_marked)
    success = or_(state == "success", and_(state == "removed", HAS_RESULT))  # as TaskFacts.has_succeeded has it
    return case(
        (or_(state.is_(None), state.in_(_ONGOING)), "working"),
        (and_(success, has_not_waited), "submitted"),
        (success, "succeeded"),
        else_="failed",
    )
