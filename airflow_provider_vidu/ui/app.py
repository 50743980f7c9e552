"""The routes: pages, JSON and media, each behind Airflow's own login and permission for the DAG."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from airflow_provider_vidu.common.values import whole
from airflow_provider_vidu.ui import refusals
from airflow_provider_vidu.ui.batches import routes as batches
from airflow_provider_vidu.ui.callbacks import routes as callbacks
from airflow_provider_vidu.ui.clips import views
from airflow_provider_vidu.ui.clips.cards import ORDERS, STAGES
from airflow_provider_vidu.ui.clips.clears import LATER_ITERATIONS
from airflow_provider_vidu.ui.clips.pieces import MAX_PIECES
from airflow_provider_vidu.ui.clips.service import Live
from airflow_provider_vidu.ui.page_queries import PageQueries, shared_queries
from airflow_provider_vidu.ui.pages import GuardHeaders, page
from airflow_provider_vidu.ui.playing.shelf import SHEET_SECONDS
from airflow_provider_vidu.ui.records import absences, store
from airflow_provider_vidu.ui.records.counts import MAX_TASKS
from airflow_provider_vidu.ui.sending import send
from airflow_provider_vidu.ui.shared import pause_after
from airflow_provider_vidu.ui.spending import routes as spending

PAGE_SIZE: Final = 24
SHEET_PATIENCE_SECONDS: Final = 3.0
NO_GENERATION: Final = (
    "This task has published no generation yet. It appears here as soon as the task has the id of one. Once a worker "
    "has begun the task, its log says how far it is, and whether it sent a request whose outcome is not known."
)
NEXT_TRY: Final = " The task is up for retry: Airflow begins its next try at {at:%Y-%m-%d %H:%M:%S} UTC, or soon after."
HALTED: Final[Mapping[str, str]] = {
    "paused": " The DAG is paused: no task of it begins until it is unpaused.",
    "silent": " No scheduler was heard of for two minutes: no task begins until one runs.",
    "missing": " Airflow does not find the DAG any more: no task of it begins until it is back.",
}
NO_GENERATION_AGAIN: Final = (
    "The latest try of this task (try {number}) has published no generation yet, so there is no clip to show. Once a "
    "worker has begun it, its log says how far it is. The logs of earlier tries name what these have submitted, which "
    'may be paid for: a clear pays again, unless the task has on_clear="resume".'
)
IS_BATCH: Final = (
    "This task is a batch. Its clips are on the page of the batch, once its latest try has begun or resumed it: the "
    "link “Watch” of the task opens it, and so does the sheet of the run."
)
ENDED: Final = (
    "This task has ended ({state}). Airflow's records name no generation of it, so there is no clip to show. "
)
ENDED_MARKED: Final = (
    "This task is marked as success in Airflow, before its end and before it had published a generation: there is no "
    "clip. "
)
ENDED_UNRUN: Final = (
    "This task has ended ({state}) and was never begun by a worker: Airflow or a user has ended it before. It has "
    "submitted nothing, so there is no clip, and no log."
)
ENDED_REMOVED: Final = (
    "Airflow has removed this task from the run, because the DAG has no such task, or no such map index, any more: a "
    "clear does nothing while that is so. Airflow's records name no generation of its latest try, so there is no clip "
    "to show. The logs of its tries say what these have submitted, which may be paid for."
)
ENDED_WELL: Final = (
    "A @task that submits with ViduHook publishes its generation with hook.publish(). Where a task's XComs were "
    "removed since, as “airflow db clean” does, its log says what it has submitted and paid for."
)
ENDED_AGAIN: Final = (
    "This task has ended ({state}). Airflow's records name no generation of its try {number}, so there is no clip "
    "to show. Its log says why. The logs of earlier tries name what these have submitted. Clearing a task that submits "
    'pays again, unless it has on_clear="resume".'
)
ENDED_BADLY: Final = (
    "Its log says why, and whether it sent a request whose outcome is not known: that one may be paid for. A task that "
    "has only waited for a free slot has submitted nothing and cost nothing; a clear lets it try again."
)
NO_ITERATION: Final = (
    "This task is in a loop, so the address of a clip must name the iteration. The link “Watch” of the task instance "
    "does, and so do the clips of the run on its tab “Vidu clips”."
)

CLIPS: Final = (*batches.TASKS, *(path + "/generations/{number}" for path in batches.TASKS))
"""The addresses of clips. With a number: which of the generations that the task has published."""

router = APIRouter(dependencies=batches.GUARDS)
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


def make_app() -> Any:
    """Return the application that the API server mounts."""
    app = FastAPI(title="Vidu clips", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    prepare(app.state)
    for routes in (router, spending.router, batches.router):
        app.include_router(routes)
    app.router.routes.append(callbacks.route())
    # The same files as in the published package; they hold nothing about clips.
    app.mount("/static", _Static(directory=Path(__file__).parent / "static"), name="static")
    refusals.explain(app)
    return GuardHeaders(app)


def prepare(state: Any) -> None:
    """Put into the application's state what its requests share."""
    state.queries = PageQueries()
    spending.prepare(state)
    batches.prepare(state)


class _Static(StaticFiles):
    """Scripts and styles; browsers keep them and revalidate."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the whole file: for one header of many ranges, without a login, some versions of Starlette take minutes.

        https://github.com/advisories/GHSA-7f5h-v6xp-fcq8
        """
        headers = [header for header in scope["headers"] if header[0].lower() != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def of_clip(suffix: str = "", *methods: str, **more: Any) -> Callable[[_Endpoint], _Endpoint]:
    """Register a route at the address of every clip.

    :param suffix: what follows the clip's address.
    :param methods: the HTTP methods; GET if omitted.
    :param more: further arguments of the route.
    """

    def register(endpoint: _Endpoint) -> _Endpoint:
        for path in CLIPS:
            router.add_api_route(path + suffix, endpoint, methods=list(methods) or ["GET"], **more)
        return endpoint

    return register


async def clip_at(
    request: Request,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int = -1,
    region_id: UUID | None = None,
    number: int = 1,
) -> tuple[store.Page, float]:
    """Return the clip at an address, and the seconds that the database took."""
    try:
        found, cost = await shared_queries(request).page(dag_id, run_id, task_id, map_index, region_id, number)
    except absences.NoTaskError as error:
        raise refusals.not_there(error) from error
    except absences.NoIterationError as error:
        # Airflow's page of the task would need the iteration as well, so there must be no link to it.
        raise HTTPException(404, NO_ITERATION, headers={"Vidu-Address": "ambiguous"}) from error
    except absences.BatchError as error:
        raise HTTPException(404, IS_BATCH) from error
    except absences.EndedError as error:
        raise HTTPException(404, _ended(error, is_in_loop=region_id is not None)) from error
    except absences.NotYetError as error:
        detail = _not_yet(error, is_in_loop=region_id is not None)
        if (why := await shared_queries(request).why_halted(dag_id, run_id)) is not None:
            detail += HALTED[why]
        raise HTTPException(404, detail) from error
    if found is None:
        raise HTTPException(404, NO_GENERATION)
    return found, cost


def _not_yet(error: absences.NotYetError, *, is_in_loop: bool) -> str:
    """Say that a task may yet have a clip: an earlier try, which Airflow has forgotten, may have paid."""
    later = f" {LATER_ITERATIONS}" * is_in_loop
    known = NO_GENERATION_AGAIN.format(number=error.try_number) + later if error.try_number > 1 else NO_GENERATION
    return known if error.next_try is None else known + NEXT_TRY.format(at=error.next_try.astimezone(UTC))


def _ended(error: absences.EndedError, *, is_in_loop: bool) -> str:
    """Say why there is no clip, and what to do: an earlier try, which Airflow has forgotten, may have paid."""
    later = f" {LATER_ITERATIONS}" * is_in_loop
    if not error.has_run and error.try_number <= 1:
        return ENDED_UNRUN.format(state=error.state)
    if error.state == "removed":
        return ENDED_REMOVED
    if error.state == "success" and error.is_open:
        return ENDED_MARKED + ENDED_BADLY + later
    if error.state == "success":
        return ENDED.format(state=error.state) + ENDED_WELL
    if error.try_number > 1:
        return ENDED_AGAIN.format(state=error.state, number=error.try_number) + later
    return ENDED.format(state=error.state) + ENDED_BADLY + later


ClipAt = Annotated[tuple[store.Page, float], Depends(clip_at)]
PieceIndex = Annotated[int, Query(ge=0, lt=MAX_PIECES)]


@router.get(batches.RUN, response_class=HTMLResponse)
def sheet_page(request: Request, dag_id: str, run_id: str) -> HTMLResponse:
    """Return the contact sheet of a DAG run."""
    return page(request, "sheet", "Vidu clips")


@of_clip(response_class=HTMLResponse)
def clip_page(
    request: Request, task_id: str, map_index: int = -1, region_id: UUID | None = None, number: int = 1
) -> HTMLResponse:
    """Return the page of a clip."""
    return page(request, "clip", "Vidu clip")


@router.get(batches.RUN + "/clips.json")
async def sheet_data(
    request: Request,
    dag_id: str,
    run_id: str,
    stage: Annotated[str | None, Query(pattern=f"^({'|'.join(STAGES)})$")] = None,
    offset: Annotated[int, Query(ge=0, le=MAX_TASKS)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = PAGE_SIZE,
    order: Annotated[str, Query(pattern=f"^({'|'.join(ORDERS)})$")] = ORDERS[0],
) -> JSONResponse:
    """Return one page of the clips of a DAG run, and how many there are in each stage."""
    queries = shared_queries(request)
    sheet, cost = await queries.sheet(dag_id, run_id, stage, offset, limit, order)
    if sheet is None:
        raise HTTPException(404, "There is no such DAG run.")
    lives = await asyncio.gather(*(queries.live(clip, SHEET_PATIENCE_SECONDS) for clip in sheet.clips))
    stored, clips = await queries.stored(sheet.clips, SHEET_SECONDS)
    sheet = replace(sheet, clips=clips)
    found, more = await batches.batches_of(request, dag_id, run_id)
    here = {"dag_id": dag_id, "run_id": run_id, "offset": offset, "limit": limit, "pause": pause_after(cost + more)}
    here |= {"batches": found, "halted": await queries.why_halted(dag_id, run_id)}
    return await queries.views.run_of(dag_id, _sheet_answer, sheet, lives, stored, here)


def _sheet_answer(
    sheet: store.Sheet, lives: Sequence[Live], stored: Mapping[str, str | None], here: Mapping[str, Any]
) -> JSONResponse:
    now = datetime.now(UTC)
    clips = [views.card_view(clip, live, stored=stored, now=now) for clip, live in zip(sheet.clips, lives, strict=True)]
    facts = {"total": sheet.total, "counts": dict(sheet.counts), "is_cut": sheet.is_cut, "is_over": sheet.is_over}
    cost, priced = sheet.credits
    facts["credits"] = {"sum": whole(cost), "clips": priced}
    facts["no_generation"] = views.no_generation_view(sheet.no_generation.count, sheet.no_generation.tasks)
    return JSONResponse({**here, **facts, "clips": clips})


@of_clip("/clip.json")
async def clip_data(request: Request, dag_id: str, run_id: str, found: ClipAt) -> JSONResponse:
    """Return everything that the page of a clip shows."""
    queries, (clip, cost) = shared_queries(request), found
    live = await queries.live(clip.clip)
    stored, (marked,) = await queries.stored([clip.clip])
    clip = replace(clip, clip=marked)
    here = {"dag_id": dag_id, "run_id": run_id, "pause": pause_after(cost)}
    here["halted"] = await queries.why_halted(dag_id, run_id)
    return await queries.views.run_of(dag_id, _page_answer, clip, live, stored, here)


def _page_answer(
    page: store.Page, live: Live, stored: Mapping[str, str | None], here: Mapping[str, Any]
) -> JSONResponse:
    now = datetime.now(UTC)
    view = views.clip_view(page.clip, page.task, live, stored=stored, now=now) | views.slot_view(
        page.task, page.queue, now
    )
    return JSONResponse({**view, **here, "before": page.before, "after": page.after, "place": page.place})


@of_clip("/file", "GET", "HEAD")
async def file(request: Request, found: ClipAt, piece: PieceIndex = 0, download: bool = False) -> Response:
    """Send a piece of the clip from storage, or lead to the service's own URL while that is valid.

    With ``download``, a browser keeps a stored file instead of playing it.
    """
    return await _sent(request, found, piece, cover=False, attached=download)


@of_clip("/cover", "GET", "HEAD")
async def cover(request: Request, found: ClipAt, piece: PieceIndex = 0) -> Response:
    """Send the cover in the same way."""
    return await _sent(request, found, piece, cover=True)


async def _sent(request: Request, found: ClipAt, index: int, *, cover: bool, attached: bool = False) -> Response:
    clip = found[0].clip
    if clip.main.waiting_since is not None:
        raise HTTPException(404, NO_GENERATION)
    return await send(request, clip, index, cover=cover, attached=attached)
