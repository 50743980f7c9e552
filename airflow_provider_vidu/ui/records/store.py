"""Reading the metadata database for the pages; runs in the API server only, in its thread pool.

Every value is measured by the database before it is read: the author of a DAG decides how large XComs are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import and_, not_, or_, select
from sqlalchemy.orm import Session

from airflow_provider_vidu.links import BATCH_KEY, ID_KEY, RESULT_KEY, WATCH_KEY, numbered
from airflow_provider_vidu.ui.clips.cards import STAGES, in_order
from airflow_provider_vidu.ui.clips.facts import ENDED, Clip, TaskFacts, grouped, with_result
from airflow_provider_vidu.ui.clips.xcoms import decoded, note_in, parsed, parsed_small, usable_id
from airflow_provider_vidu.ui.records import counts
from airflow_provider_vidu.ui.records.absences import (
    BatchError,
    EndedError,
    NoIterationError,
    NoRunError,
    NoTaskError,
    NotYetError,
)
from airflow_provider_vidu.ui.records.circumstances import actions_on, next_tries, usual_seconds
from airflow_provider_vidu.ui.records.earlier_tries import (
    count_earlier,
    earlier_task_in,
    of_earlier_tries,
    with_next,
)
from airflow_provider_vidu.ui.records.instances import (
    BY_TIME,
    HAS_REGIONS,
    HAS_RESULT,
    PLACE,
    TASK_COLUMNS,
    Key,
    are,
    has_published,
    has_run,
    is_in_loop,
    iteration_column,
    key_columns,
    key_of,
    map_index_column,
    of_run,
    place_in,
    placed,
    region_id_column,
    same_task,
    stands_at,
    task_in,
    with_trigger,
)
from airflow_provider_vidu.ui.records.no_generation import NONE_FAILED, NoGeneration, without_generation
from airflow_provider_vidu.ui.records.references import UNKNOWN, Resolver
from airflow_provider_vidu.ui.records.slot_waits import QueuePlace, Waiters, has_page, queue_place
from airflow_provider_vidu.ui.records.values import fitting, rendered_fields, sizes_of, texts_of

MAX_RELATIVES: Final = 50
"""At most this many task instances of one clip are read."""
MAX_RESOLVED_TASKS: Final = 2_000
"""At most this many task instances of a run are read if the database alone cannot distinguish their clips."""
MAX_MAP_INDEX: Final = 2**31 - 1
_OVER: Final = frozenset({"success", "failed"})


@dataclass(frozen=True, slots=True)
class Page:
    """One task instance's clip, with the places of the clips before and after it on the sheet.

    ``before`` and ``after`` are as :attr:`.TaskFacts.place` has them. ``place`` is its place among the clips of the run
    and how many there are; None where these are not counted. ``queue`` is the place of a task that waits for a free
    slot, and has no generation yet.
    """

    clip: Clip
    task: TaskFacts
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    place: tuple[int, int] | None = None
    queue: QueuePlace | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A page of the clips of a run, with their results, and how many there are in each stage.

    ``total`` counts the clips of the chosen stage; ``credits`` is the sum of their cost, and of how many of them it is
    known; ``is_cut`` says that there are more tasks than were looked at. ``no_generation`` are the tasks that have
    failed before they had a clip.
    """

    clips: Sequence[Clip]
    counts: Mapping[str, int]
    total: int
    is_cut: bool
    is_over: bool
    credits: tuple[float, int] = (0.0, 0)
    no_generation: NoGeneration = NONE_FAILED


def read_page(
    dag_id: str, run_id: str, task_id: str, index: int, region_id: UUID | None = None, number: int = 1
) -> Page | None:
    """Return the clip of a task instance; None when there is no such task instance or it has no id (yet).

    :param index: the map index (-1 if not mapped), or the index within the region.
    :param region_id: the region of a task instance in a loop. A clear may have put the loop's later iterations into a
        new one since: an address from before leads to the same iteration.
    :param number: which of the generations that the task has published.
    :raises NoTaskError: when the run has no such task instance; NoRunError when there is no such run.
    :raises NoIterationError: when the task is in a loop and there is no region.
    :raises BatchError: when it is a batch.
    :raises EndedError: when it has ended and has no id.
    :raises NotYetError: when it has not ended and its latest try has published no id.
    """
    if not -1 <= index <= MAX_MAP_INDEX or not _are_names(dag_id, run_id, task_id):
        return None
    with create_session() as session:
        reader = _Reader(session, dag_id, run_id)
        where = and_(stands_at(task_id, index, region_id), XComModel.key == numbered(ID_KEY, number))
        # While a clear ends them, instances of both regions may be there.
        own = next(reversed(reader.tasks(where, limit=MAX_RELATIVES)), None)
        if own is None:
            if number == 1 and (waiting := _waiting_page(session, reader, task_id, index, region_id)) is not None:
                return waiting
            if region_id is None and is_in_loop(session, dag_id, run_id, task_id):
                raise NoIterationError(task_id)
            if (found := reader.state(task_id, index, region_id)) is None:
                raise NoRunError(run_id) if _is_over(session, dag_id, run_id) is None else NoTaskError(task_id)
            state, try_number, is_batch, is_open, ran, key = found
            if is_batch:
                raise BatchError(task_id)
            if state in ENDED:
                raise EndedError(state, try_number, is_open=is_open, has_run=ran)
            own = TaskFacts(dag_id, run_id, task_id, index, None, state=state, instance=key)
            next_try = next_tries(session, [own]).get(key)
            if earlier := reader.earlier_tries(0, 1, where):
                (known,) = reader.with_results(earlier)
                return Page(Clip(known.generation_id, [known], next_try=next_try), known, None, None)
            raise NotYetError(try_number, next_try)
        others = (task for task in reader.relatives(own) if (task.key, task.number) != (own.key, own.number))
        full = reader.with_results([own, *others])
        (clip,) = grouped(full, run_is_over=bool(_is_over(session, dag_id, run_id)))
        next_try = next_tries(session, clip.tasks).get(clip.upcoming.key) if clip.upcoming else None
        clip = replace(clip, actions=actions_on(session, clip), usual=usual_seconds(session, clip), next_try=next_try)
        place = None if reader.must_resolve() else counts.place_of(session, clip.main)
        if place is None:
            before, after = _neighbours(session, own, XComModel.key == ID_KEY)
            return Page(clip, full[0], before, after)
        return Page(clip, full[0], place.before, place.after, (place.number, place.total))


def _waiting_page(session: Session, reader: _Reader, task_id: str, index: int, region_id: UUID | None) -> Page | None:
    task = reader.waiters().one(task_id, index, region_id)
    if task is None:
        return None
    (full,) = reader.with_results([task])
    before, after = _neighbours(session, full, XComModel.key == WATCH_KEY, has_page())
    return Page(Clip(None, [full]), full, before, after, queue=queue_place(session, full))


def read_sheet(
    dag_id: str, run_id: str, stage: str | None, offset: int, limit: int, order: str = "scene"
) -> Sheet | None:
    """Return a page of the clips of a run; None when there is no such run.

    :param stage: only clips in this stage; None for all.
    :param offset: how many clips to skip.
    :param limit: the most clips to return.
    :param order: one of :data:`.ORDERS`.
    """
    if not _are_names(dag_id, run_id):
        return None
    with create_session() as session:
        if (is_over := _is_over(session, dag_id, run_id)) is None:
            return None
        reader = _Reader(session, dag_id, run_id)
        if reader.must_resolve():
            tasks = reader.tasks(limit=MAX_RESOLVED_TASKS + 1)
            clips = grouped(tasks[:MAX_RESOLVED_TASKS], run_is_over=is_over)
            counted = {name: sum(clip.stage == name for clip in clips) for name in STAGES}
            chosen = [clip for clip in clips if stage in (None, clip.stage)]
            prices = [cost for clip in chosen if (cost := clip.credits) is not None]
            price = (float(sum(prices)), len(prices))
            page, is_cut = in_order(chosen, order)[offset : offset + limit], len(tasks) > MAX_RESOLVED_TASKS
        else:
            found = counts.count(session, dag_id, run_id, stage, offset, limit, order)
            counted, is_cut, price = dict(found.counts), found.is_cut, found.credits
            tasks = reader.tasks(counts.ID_TEXT.in_(found.ids), limit=limit * MAX_RELATIVES) if found.ids else []
            place = {usable_id(parsed_small(text)): index for index, text in enumerate(found.ids)}
            page = sorted(grouped(tasks, run_is_over=is_over), key=lambda clip: place.get(clip.generation_id, -1))
        # Tasks that wait for a slot, or for their next try, come after the clips, in each order of the sheet.
        waiters, before = reader.waiters(), sum(counted.values()) if stage is None else counted[stage]
        waiting, earlier = waiters.count(), count_earlier(session, dag_id, run_id)
        if stage in (None, "working"):
            page += [Clip(None, [each], is_over) for each in waiters.page(max(offset - before, 0), limit - len(page))]
            rest = (max(offset - before - waiting, 0), limit - len(page)) if earlier else (0, 0)
            page += [Clip(each.generation_id, [each], is_over) for each in reader.earlier_tries(*rest)]
        counted["working"] += waiting + earlier
        full = reader.with_results([task for clip in page for task in clip.tasks[:MAX_RELATIVES]])
        known = {(task.key, task.number): task for task in full}
        clips = [
            replace(clip, tasks=[known[task.key, task.number] for task in clip.tasks[:MAX_RELATIVES]]) for clip in page
        ]
        total = sum(counted.values()) if stage is None else counted[stage]
        return Sheet(clips, counted, total, is_cut, is_over, price, without_generation(session, dag_id, run_id))


class _Reader:
    """Reads the task instances of one DAG run that work with generations."""

    def __init__(self, session: Session, dag_id: str, run_id: str) -> None:
        self._session = session
        self._run = (dag_id, run_id)
        self._resolver = Resolver(dag_id, run_id)

    def must_resolve(self) -> bool:
        """Whether ids or notes of this run are kept elsewhere, so that the database cannot distinguish clips."""
        if self._resolver.reads_everything:
            return True
        return self._resolver.has_backend and counts.has_references(self._session, *self._run)

    def waiters(self) -> Waiters:
        """Return the tasks of the run that wait for a free slot."""
        return Waiters(self._session, *self._run, self._resolver if self.must_resolve() else None)

    def state(
        self, task_id: str, index: int, region_id: UUID | None
    ) -> tuple[str | None, int, bool, bool, bool, Key] | None:
        """Return a task instance's state, latest try, whether it is a batch, left its try open, has run, and its key.

        None if it is not there.
        """
        is_open = and_(TaskInstance.next_method.is_not(None), not_(HAS_RESULT)).label("is_open")
        ran = has_run(*self._run, task_id, index, region_id).label("has_run")
        columns = (TaskInstance.state, TaskInstance.try_number, is_open, ran, *key_columns(TaskInstance))
        query = placed(select(*columns).select_from(TaskInstance)).where(
            *of_run(TaskInstance, *self._run), stands_at(task_id, index, region_id)
        )
        row = self._session.execute(query.limit(1)).first()
        if row is None:
            return None
        state = None if row.state is None else str(getattr(row.state, "value", row.state))
        is_batch = has_published(self._session, *self._run, task_id, index, region_id, BATCH_KEY)
        return state, row.try_number or 0, is_batch, bool(row.is_open), bool(row.has_run), key_of(row)

    def relatives(self, own: TaskFacts) -> list[TaskFacts]:
        """Return the task instances that work with the same generation."""
        if own.generation_id is None:
            return []
        if self.must_resolve():
            return [task for task in self.tasks(limit=MAX_RESOLVED_TASKS) if task.generation_id == own.generation_id][
                :MAX_RELATIVES
            ]
        spelt = {json.dumps(own.generation_id), json.dumps(own.generation_id, ensure_ascii=False)}
        if own.generation_id.isdecimal():
            spelt.add(own.generation_id)  # some versions of Airflow make a number of it
        # As text: how a database compares JSON with JSON differs from one to the next.
        found = self.tasks(counts.ID_TEXT.in_(spelt), limit=MAX_RELATIVES)
        return [task for task in found if task.generation_id == own.generation_id]

    def tasks(self, *where: Any, limit: int) -> list[TaskFacts]:
        """Return the task instances of the run that have published an id, the earliest first."""
        return self._tasks(self._published(*where).limit(limit), task_in)

    def earlier_tries(self, offset: int, limit: int, *where: Any) -> list[TaskFacts]:
        """Return those that wait for their next try, with what the try before it has published (Airflow 3.4)."""
        if not HAS_REGIONS or limit <= 0:
            return []
        query = of_earlier_tries(self._published(XComModel.key == ID_KEY, *where))
        return self._tasks(with_next(query).offset(offset).limit(limit), earlier_task_in)

    def _published(self, *where: Any) -> Any:
        columns = (*TASK_COLUMNS, XComModel.key, counts.ID_TEXT.label("text"), XComModel.timestamp)
        query = with_trigger(select(*columns).join(TaskInstance, same_task(XComModel, TaskInstance)))
        own = (*of_run(XComModel, *self._run), XComModel.key.in_(counts.ID_KEYS))
        return query.where(*own, counts.IS_SMALL, *where).order_by(*BY_TIME)

    def _tasks(self, query: Any, task_in: Callable[[Any], dict[str, Any]]) -> list[TaskFacts]:
        rows = [(row, *self._id_in(row)) for row in self._session.execute(query)]
        rows = [found for found in rows if found[2]]
        notes = self._notes(dict.fromkeys(key_of(row) for row, _, _ in rows))
        return [
            TaskFacts(
                *self._run,
                **task_in(row),
                generation_id=generation_id,
                announced_at=row.timestamp,
                watch=notes.get((key_of(row), counts.KEY_NUMBERS[row.key])),
                number=counts.KEY_NUMBERS[row.key],
            )
            for row, generation_id, _ in rows
        ]

    def with_results(self, tasks: Sequence[TaskFacts]) -> list[TaskFacts]:
        """Return the same task instances with their results and rendered fields, where these are not too large."""
        if not tasks:
            return []
        keys = list(dict.fromkeys(task.key for task in tasks))
        fields = rendered_fields(self._session, *self._run, keys)
        found = [replace(task, fields=fields.get(task.key)) for task in tasks]
        own = (*of_run(XComModel, *self._run), XComModel.key == RESULT_KEY)
        sizes = self._session.execute(sizes_of(XComModel, counts.ID_TEXT, XComModel.timestamp).where(*own, are(keys)))
        stored = {key_of(row): row for row in sizes}
        fits = fitting(keys, {key: row.size for key, row in stored.items()})
        for index, task in enumerate(found):
            if task.key in stored and task.key not in fits:
                found[index] = replace(task, result_at=stored[task.key].timestamp, is_too_large=True)
        places: dict[Key, list[int]] = {}
        for index, task in enumerate(found):
            places.setdefault(task.key, []).append(index)
        # One after the other: of each only what the pages show is kept.
        texts = texts_of(XComModel, counts.ID_TEXT, XComModel.timestamp).where(*own, are(fits))
        for row in self._session.execute(texts) if fits else ():
            value = decoded(self._resolver.value(parsed(row.text), row.timestamp))
            is_lost = value is UNKNOWN
            for index in places[key_of(row)]:
                full = with_result(found[index], None if is_lost else value, row.timestamp)
                found[index] = replace(full, is_too_large=is_lost)
        return found

    def _id_in(self, row: Any) -> tuple[str | None, bool]:
        """Return the id in a row (None where it cannot be resolved), and whether the row belongs to a generation."""
        value = self._resolver.value(parsed_small(row.text), row.timestamp)
        if value is UNKNOWN:
            return None, True
        generation_id = usable_id(value)
        return generation_id, generation_id is not None

    def _notes(self, keys: Iterable[Key]) -> dict[tuple[Key, int], Any]:
        """Return what tasks have noted beside each of their ids."""
        if not keys:
            return {}
        own = (*of_run(XComModel, *self._run), XComModel.key.in_(counts.WATCH_KEYS), counts.IS_SMALL)
        query = texts_of(XComModel, counts.ID_TEXT, XComModel.timestamp, XComModel.key).where(*own, are(keys))
        found = (
            (row, self._resolver.value(parsed_small(row.text), row.timestamp)) for row in self._session.execute(query)
        )
        return {(key_of(row), counts.KEY_NUMBERS[row.key]): note_in(value) for row, value in found}


def _neighbours(
    session: Session, task: TaskFacts, *where: Any
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Return the places of the clips of the same task before and after one: by iteration, then by map index.

    :param where: which XComs have a clip.
    """
    iteration, index = -1 if task.iteration is None else task.iteration, task.map_index
    if iteration < 0 and index < 0:
        return None, None
    query = placed(select(XComModel.task_id, *PLACE).join(TaskInstance, same_task(XComModel, TaskInstance))).where(
        *of_run(XComModel, task.dag_id, task.run_id),
        XComModel.task_id == task.task_id,
        *where,
    )
    is_before = or_(iteration_column < iteration, and_(iteration_column == iteration, map_index_column < index))
    is_after = or_(iteration_column > iteration, and_(iteration_column == iteration, map_index_column > index))
    # If a clear has left two of one iteration, the newer region has the greater id.
    before = query.where(is_before).order_by(iteration_column.desc(), map_index_column.desc(), region_id_column.desc())
    after = query.where(is_after).order_by(iteration_column, map_index_column, region_id_column.desc())
    return _place(session, task, before), _place(session, task, after)


def _place(session: Session, task: TaskFacts, query: Any) -> Mapping[str, Any] | None:
    row = session.execute(query.limit(1)).first()
    return None if row is None else TaskFacts(task.dag_id, task.run_id, generation_id=None, **place_in(row)).place


def _is_over(session: Session, dag_id: str, run_id: str) -> bool | None:
    """Whether a run has ended; None if there is no such run."""
    state = session.scalar(select(DagRun.state).where(*of_run(DagRun, dag_id, run_id)))
    return None if state is None else str(state) in _OVER


def _are_names(*names: str) -> bool:
    """Whether a query may contain these names: some databases reject a zero byte with an error."""
    return not any("\0" in name for name in names)
