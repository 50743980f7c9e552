"""The routes of batches, each behind Airflow's own login and permission for the DAG, as those of clips."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.responses import Response

from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.common.values import whole
from airflow_provider_vidu.stores.places import Root
from airflow_provider_vidu.ui.batches import listing, rows
from airflow_provider_vidu.ui.batches.journals import NO_ROOT, Read, known_state, latest_cost, read_journal
from airflow_provider_vidu.ui.batches.published import Batch, DryRunError, UnreadableError, read_batch, read_batches
from airflow_provider_vidu.ui.clips import views
from airflow_provider_vidu.ui.clips.cards import ORDERS, STAGES
from airflow_provider_vidu.ui.clips.facts import Clip
from airflow_provider_vidu.ui.clips.failures import BACK_END, UNREADABLE
from airflow_provider_vidu.ui.clips.pieces import MAX_PIECES
from airflow_provider_vidu.ui.page_queries import shared_queries
from airflow_provider_vidu.ui.pages import page
from airflow_provider_vidu.ui.playing.preview import preview_root
from airflow_provider_vidu.ui.playing.shelf import SHEET_SECONDS
from airflow_provider_vidu.ui.records.absences import NoTaskError
from airflow_provider_vidu.ui.refusals import not_there
from airflow_provider_vidu.ui.sending import send
from airflow_provider_vidu.ui.shared import Shared, pause_after
from airflow_provider_vidu.ui.threads import BusyError, QueryThreads, Threads

NO_BATCH: Final = (
    "This task has begun no batch, or has begun another try and not resumed its batch in it, or its XComs were removed "
    "since. The page appears as soon as the task has begun or resumed one; the log of its latest try says how far it "
    "is, once a worker has begun that. What earlier tries have stored is kept."
)
DRY_RUN: Final = (
    "This was a dry run: nothing was submitted, so there is no batch. The task's log says what would be submitted, and "
    "which rows would fail."
)
SILENT: Final = "The journal of this batch was not read in time: its store is slow, or the API server is busy."
OLDER: Final = f"{SILENT} What is shown of it here is older."
NO_ROW: Final = "The batch has not begun a row of this name, or orders it again right now."
PAGE_SIZE: Final = 24
THREADS: Final = 4
"""Threads that look for batches in the database."""
ROW_THREADS: Final = 4
"""Threads that sort the rows of batches. Tens of thousands take a second, so each DAG has a few at a time."""
ROW_CHARS: Final = 300
"""About how many characters a row that is kept sorted stands for."""
MOST_ROWS: Final = 100_000
SHEET_PATIENCE_SECONDS: Final = 3.0
PAGE_PATIENCE_SECONDS: Final = 10.0
"""How long a batch's own page, or that of a row, waits for its journal."""
BEHIND_SECONDS: Final = 2
"""A page whose journal was not read to its end asks again after this time."""

RUN: Final = "/dags/{dag_id}/runs/{run_id}"
TASKS: Final = tuple(
    f"{RUN}/tasks/{{task_id}}{place}" for place in ("", "/mapped/{map_index}", "/regions/{region_id}/{map_index}")
)
"""The addresses of task instances. In a loop (Airflow 3.4), the map index, or the iteration, is an index within its
region."""
ROW: Final = "/batch/rows/{row}"

PieceIndex = Annotated[int, Query(ge=0, lt=MAX_PIECES)]

# The pages show XComs and rendered fields, so they require the permission to read both in Airflow's own pages.
GUARDS: Final = [
    Depends(requires_access_dag("GET", DagAccessEntity.XCOM)),
    Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE)),
]
router = APIRouter(dependencies=GUARDS)


def prepare(state: Any) -> None:
    """Put into the application's state what the requests share."""
    state.batches = Shared[Any](QueryThreads(THREADS))
    state.rows = Shared[Any](Threads(ROW_THREADS), _weight)


def _weight(found: Any) -> int:
    return ROW_CHARS * len(found.entries if isinstance(found, listing.Chosen) else found)


async def batches_of(request: Request, dag_id: str, run_id: str) -> tuple[list[dict[str, Any]], float]:
    """Return how far each batch of a run is, for the run's sheet, and the seconds that their journals took."""
    shared: Shared[Sequence[Batch]] = request.app.state.batches
    found, _ = await shared.get((dag_id, run_id), lambda: read_batches(dag_id, run_id))
    reads = await asyncio.gather(*(_read_soon(request, batch, SHEET_PATIENCE_SECONDS) for batch in found))

    def view() -> list[dict[str, Any]]:
        return [_batch_answer(batch, read) for batch, read in zip(found, reads, strict=True)]

    cost = sum(latest_cost(batch.folder, batch.name) for batch in found)
    return await shared_queries(request).views.run_of(dag_id, view), cost


def _batch_answer(batch: Batch, read: Read) -> dict[str, Any]:
    facts = {"problem": read.problem, "is_gone": read.is_gone, "is_behind": read.is_behind}
    facts["is_unattended"] = batch.is_unattended
    return {**rows.batch_view(rows.with_state(batch, read.state), read.state), **facts}


async def _read_soon(request: Request, batch: Batch, patience: float) -> Read:
    """Return the state of a batch for a page, which no slow store may hold up."""
    if (place := preview_root(batch.folder + "x")) is None:
        return Read(problem=NO_ROOT)
    dag_id = batch.task.dag_id
    at = (batch.folder, batch.name, dag_id)
    # Not a timeout around the read: it would free the place's slot, and leave the thread in the store, at each look.
    read = await shared_queries(request).reads.soon(
        _lane(place), read_journal, *at, patience=patience, otherwise=None, of_dag=dag_id
    )
    if read is None:
        state = known_state(*at)
        return Read(state, is_behind=state is not None, problem=SILENT if state is None else OLDER)
    return read


def _lane(place: Root) -> Hashable:
    """Return where a journal's reads wait: an endless journal delays other journals of its root, and no clips."""
    return place, "journals"


@dataclass(frozen=True, slots=True)
class Found:
    """The batch at an address.

    :param batch: what the database has of it.
    :param read: what its journal holds.
    :param cost: the seconds that the database and the journal took.
    """

    batch: Batch
    read: Read
    cost: float


async def batch_at(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: int = -1, region_id: UUID | None = None
) -> Found:
    """Return the batch at the address of a task instance."""
    shared: Shared[Batch | None] = request.app.state.batches
    place = (dag_id, run_id, task_id, map_index, region_id)
    try:
        batch, cost = await shared.get(place, lambda: read_batch(*place))
    except DryRunError as error:
        raise HTTPException(404, DRY_RUN) from error
    except UnreadableError as error:
        raise HTTPException(404, f"{UNREADABLE.format(what='The place of this batch')} {BACK_END}") from error
    except NoTaskError as error:
        raise not_there(error) from error
    if batch is None:
        raise HTTPException(404, NO_BATCH)
    read = await _read_soon(request, batch, PAGE_PATIENCE_SECONDS)
    batch = rows.with_state(batch, read.state)
    return Found(batch, read, cost + latest_cost(batch.folder, batch.name))


BatchAt = Annotated[Found, Depends(batch_at)]


@dataclass(frozen=True, slots=True)
class FoundRow:
    """The row at an address.

    :param found: its batch.
    :param entries: all rows that the batch has begun.
    :param index: the row's place among them.
    :param clip: the row's clip.
    """

    found: Found
    entries: Sequence[listing.Entry]
    index: int
    clip: Clip

    @property
    def entry(self) -> listing.Entry:
        """The row."""
        return self.entries[self.index]


async def _viewed(
    request: Request, found: Found, what: tuple[Any, ...], view: Callable[[Sequence[listing.Entry]], Any]
) -> Any:
    """Return a view of the rows that a batch has begun: made once for all who ask, and a few at once for each DAG.

    :param what: names the view; it begins with its kind, because a reader chooses the name of a row.
    :param view: returns it, of the rows in their order; runs in a thread.
    """
    batch, shared, state = found.batch, request.app.state.rows, found.read.state
    if state is None:  # nothing to share: another request may know more
        return view([])
    place = (batch.task.dag_id, batch.folder, batch.name, batch.is_over)
    entries, _ = await shared.get(place, partial(listing.entries, state, is_over=batch.is_over))
    viewed, _ = await shared.get((*place, *what), partial(view, entries))
    return viewed


def _clips_of(batch: Batch, shown: Sequence[listing.Entry]) -> list[Clip]:
    """Return rows as clips; runs in a thread: the lines of a hundred rows may be megabytes of JSON."""
    return [rows.clip_of(batch, entry) for entry in shown]


async def row_at(request: Request, row: str, found: BatchAt) -> FoundRow:
    """Return the row at an address."""
    entries, index = await _viewed(request, found, ("row", row), partial(listing.found_row, name=row))
    if index is None:
        if found.read.problem in (SILENT, OLDER):  # it may be there
            raise BusyError(SILENT)
        raise HTTPException(404, found.read.problem or NO_ROW)
    run_of = shared_queries(request).views.run_of
    (clip,) = await run_of(found.batch.task.dag_id, _clips_of, found.batch, [entries[index]])
    return FoundRow(found, entries, index, clip)


RowAt = Annotated[FoundRow, Depends(row_at)]


def batch_page(request: Request, dag_id: str, run_id: str) -> HTMLResponse:
    """Return the sheet of a batch."""
    return page(request, "sheet", "Vidu batch")


def row_page(request: Request, dag_id: str, run_id: str) -> HTMLResponse:
    """Return the page of a row."""
    return page(request, "clip", "Vidu clip")


async def batch_data(
    request: Request,
    dag_id: str,
    run_id: str,
    at: BatchAt,
    stage: Annotated[str | None, Query(pattern=f"^({'|'.join(STAGES)})$")] = None,
    offset: Annotated[int, Query(ge=0, le=MOST_ROWS)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = PAGE_SIZE,
    order: Annotated[str, Query(pattern=f"^({'|'.join(ORDERS)})$")] = ORDERS[0],
) -> JSONResponse:
    """Return one page of the rows of a batch, and how many there are in each stage."""
    batch, read, queries = at.batch, at.read, shared_queries(request)
    choose = partial(listing.chosen, stage=stage, order=order)
    wanted: listing.Chosen = await _viewed(request, at, ("sheet", stage, order), choose)
    shown = wanted.entries[offset : offset + limit]
    clips = await queries.views.run_of(dag_id, _clips_of, batch, shown)
    lives = await asyncio.gather(*(queries.live(clip, SHEET_PATIENCE_SECONDS) for clip in clips))
    stored, clips = await queries.stored(clips, SHEET_SECONDS)
    halted = await queries.why_halted(batch.task.dag_id, batch.task.run_id)

    def view() -> JSONResponse:
        now = datetime.now(UTC)
        cards = [
            rows.view_of(batch, entry, views.card_view(clip, live, stored=stored, now=now), live)
            for entry, clip, live in zip(shown, clips, lives, strict=True)
        ]
        return JSONResponse({**answer(), "clips": cards})

    def answer() -> dict[str, Any]:
        return {
            "dag_id": dag_id,
            "run_id": run_id,
            "offset": offset,
            "limit": limit,
            "pause": BEHIND_SECONDS if read.is_behind else pause_after(at.cost),
            "total": len(wanted.entries),
            "counts": listing.counts(read.state or BatchState(), is_over=batch.is_over),
            "is_cut": False,
            "is_over": batch.is_over,
            "halted": halted,
            "credits": {"sum": whole(wanted.cost), "clips": wanted.priced},
            "batches": [],
            "no_generation": {"count": 0, "tasks": []},
            "batch": _batch_answer(batch, read),
        }

    return await queries.views.run_of(dag_id, view)


async def row_data(request: Request, dag_id: str, run_id: str, at: RowAt) -> JSONResponse:
    """Return everything that the page of a row shows."""
    batch, clip, queries = at.found.batch, at.clip, shared_queries(request)
    live = await queries.live(clip)
    stored, (clip,) = await queries.stored([clip])
    halted = await queries.why_halted(batch.task.dag_id, batch.task.run_id)

    def neighbour(index: int) -> dict[str, Any] | None:
        return {**batch.task.place, "row": at.entries[index].name} if 0 <= index < len(at.entries) else None

    def view() -> JSONResponse:
        shown = views.clip_view(clip, batch.task, live, stored=stored, now=datetime.now(UTC))
        here = {"dag_id": dag_id, "run_id": run_id, "halted": halted, "pause": pause_after(at.found.cost)}
        around = {
            "before": neighbour(at.index - 1),
            "after": neighbour(at.index + 1),
            "place": (at.index + 1, len(at.entries)),
        }
        return JSONResponse({**rows.view_of(batch, at.entry, shown, live), **here, **around})

    return await queries.views.run_of(dag_id, view)


async def row_file(request: Request, at: RowAt, piece: PieceIndex = 0, download: bool = False) -> Response:
    """Send the file of a row from storage, or lead to the service's own URL while that is valid."""
    return await send(request, at.clip, piece, cover=False, attached=download)


async def row_cover(request: Request, at: RowAt, piece: PieceIndex = 0) -> Response:
    """Send the cover in the same way."""
    return await send(request, at.clip, piece, cover=True)


for _task in TASKS:
    router.add_api_route(f"{_task}/batch", batch_page, methods=["GET"], response_class=HTMLResponse)
    router.add_api_route(f"{_task}/batch/clips.json", batch_data, methods=["GET"])
    router.add_api_route(f"{_task}{ROW}", row_page, methods=["GET"], response_class=HTMLResponse)
    router.add_api_route(f"{_task}{ROW}/clip.json", row_data, methods=["GET"])
    router.add_api_route(f"{_task}{ROW}/file", row_file, methods=["GET", "HEAD"])
    router.add_api_route(f"{_task}{ROW}/cover", row_cover, methods=["GET", "HEAD"])
