"""The routes: pages, JSON and media, each behind Airflow's own login and permission for the DAG."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlsplit
from uuid import UUID

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.configuration import conf
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import web_url, whole
from airflow_provider_vidu.ui.batches import routes as batches
from airflow_provider_vidu.ui.clips import views
from airflow_provider_vidu.ui.clips.cards import ORDERS
from airflow_provider_vidu.ui.clips.facts import Clip
from airflow_provider_vidu.ui.clips.live import LiveStates
from airflow_provider_vidu.ui.clips.pieces import MAX_PIECES, Piece
from airflow_provider_vidu.ui.clips.service import Live
from airflow_provider_vidu.ui.clips.slots import slot_view
from airflow_provider_vidu.ui.pages import GuardHeaders, refusal, shell
from airflow_provider_vidu.ui.playing.media import file_response
from airflow_provider_vidu.ui.playing.preview import Preview, PreviewError, open_preview, place_of, proven_types
from airflow_provider_vidu.ui.playing.redirects import NO_TRUST, asker, location, needs_trust, own_hosts, why_not
from airflow_provider_vidu.ui.records import store
from airflow_provider_vidu.ui.records.counts import MAX_TASKS, STAGES
from airflow_provider_vidu.ui.shared import MAX_PAUSE, Shared, pause_after
from airflow_provider_vidu.ui.spending import routes as spending
from airflow_provider_vidu.ui.threads import LOOKS, VIEWS, BusyError, Reads, Threads

PAGE_SIZE: Final = 24
SHEET_PATIENCE_SECONDS: Final = 3.0
STORE_PATIENCE_SECONDS: Final = 3.0
"""A page waits no longer for the content types of stored files; then their names decide."""
LINK_FAILS: Final = (
    "The service's link to this clip no longer works, or not in this browser. Reload the page to request a new one."
)
NO_SUCH_PAGE: Final = (
    "There is no page at this address. The clips of a DAG run are on its tab “Vidu clips”; the link “Watch” of a task "
    "opens the page of its clip."
)
NO_GENERATION: Final = (
    "This task has no generation yet. It appears here as soon as the task has submitted one, or has received its id; "
    "the task's log says how far it is."
)
NO_ITERATION: Final = (
    "This task is in a loop, so the address of a clip must name the iteration. The link “Watch” of the task instance "
    "does, and so do the clips of the run on its tab “Vidu clips”."
)

PieceIndex = Annotated[int, Query(ge=0, lt=MAX_PIECES)]

RUN: Final = "/dags/{dag_id}/runs/{run_id}"
TASK: Final = RUN + "/tasks/{task_id}"
MAPPED: Final = TASK + "/mapped/{map_index}"
LOOPED: Final = TASK + "/regions/{region_id}/{map_index}"
"""A task instance in a loop (Airflow 3.4): the map index, or the iteration, is an index within its region."""
NUMBERED: Final = "/generations/{number}"
"""Behind a task: which of the generations that it has published; the first one needs no number."""
_DEPTHS: Final = {
    RUN: 3,
    TASK: 5,
    MAPPED: 7,
    LOOPED: 8,
    TASK + NUMBERED: 7,
    MAPPED + NUMBERED: 9,
    LOOPED + NUMBERED: 10,
    spending.SPENDING: 0,
    **batches.DEPTHS,
}

# The pages show XComs and rendered fields, so they require the permission to read both in Airflow's own pages.
_GUARDS: Final = [
    Depends(requires_access_dag("GET", DagAccessEntity.XCOM)),
    Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE)),
]
router = APIRouter(dependencies=_GUARDS)


def make_app() -> Any:
    """Return the application that the API server mounts."""
    app = FastAPI(title="Vidu clips", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    prepare(app.state)
    app.include_router(router)
    app.include_router(spending.router)
    app.include_router(batches.router)
    # The same files as in the published package; they hold nothing about clips.
    app.mount("/static", _Static(directory=Path(__file__).parent / "static"), name="static")
    # Starlette's own class: that is what its router raises for an address without a route.
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _misspelt)
    app.add_exception_handler(BusyError, _busy)
    return GuardHeaders(app)


def prepare(state: Any) -> None:
    """Put into the application's state what its requests share."""
    looks = Threads(LOOKS)
    state.live = LiveStates()
    state.sheets, state.pages = Shared[Any](looks, store.weight), Shared[Any](looks, store.weight)
    state.reads = Reads()
    state.views = Threads(VIEWS)
    spending.prepare(state)
    batches.prepare(state, batches.ClipHelpers(_live, _stored, _media))


class _Static(StaticFiles):
    """Scripts and styles; browsers keep them and revalidate."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


# -- pages --------------------------------------------------------------------------------------


@router.get(RUN)
def sheet_page(dag_id: str, run_id: str) -> HTMLResponse:
    """Return the contact sheet of a DAG run."""
    return HTMLResponse(shell("sheet", 3, "Vidu clips"))


@router.get(TASK)
def clip_page(dag_id: str, run_id: str, task_id: str) -> HTMLResponse:
    """Return the page of a task instance's clip."""
    return HTMLResponse(shell("clip", 5, "Vidu clip"))


@router.get(TASK + NUMBERED)
def numbered_clip_page(dag_id: str, run_id: str, task_id: str, number: int) -> HTMLResponse:
    """Return the page of another clip of a task."""
    return HTMLResponse(shell("clip", 7, "Vidu clip"))


@router.get(MAPPED + NUMBERED)
def numbered_mapped_clip_page(dag_id: str, run_id: str, task_id: str, map_index: int, number: int) -> HTMLResponse:
    """Return the page of another clip of a mapped task instance."""
    return HTMLResponse(shell("clip", 9, "Vidu clip"))


@router.get(LOOPED + NUMBERED)
def numbered_looped_clip_page(
    dag_id: str, run_id: str, task_id: str, region_id: UUID, map_index: int, number: int
) -> HTMLResponse:
    """Return the page of another clip of a task instance in a loop."""
    return HTMLResponse(shell("clip", 10, "Vidu clip"))


@router.get(MAPPED)
def mapped_clip_page(dag_id: str, run_id: str, task_id: str, map_index: int) -> HTMLResponse:
    """Return the page of a mapped task instance's clip."""
    return HTMLResponse(shell("clip", 7, "Vidu clip"))


@router.get(LOOPED)
def looped_clip_page(dag_id: str, run_id: str, task_id: str, region_id: UUID, map_index: int) -> HTMLResponse:
    """Return the page of the clip of a task instance in a loop."""
    return HTMLResponse(shell("clip", 8, "Vidu clip"))


# -- JSON ---------------------------------------------------------------------------------------


@router.get(RUN + "/clips.json")
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
    sheets: Shared[store.Sheet | None] = request.app.state.sheets
    sheet, cost = await sheets.get(
        (dag_id, run_id, stage, offset, limit, order),
        lambda: store.read_sheet(dag_id, run_id, stage, offset, limit, order),
    )
    if sheet is None:
        raise HTTPException(404, "There is no such DAG run.")
    lives = await asyncio.gather(*(_live(request, clip, SHEET_PATIENCE_SECONDS) for clip in sheet.clips))
    stored = await _stored(request, sheet.clips)
    here = {"dag_id": dag_id, "run_id": run_id, "offset": offset, "limit": limit, "pause": pause_after(cost)}
    here["batches"] = await batches.batches_of(request, dag_id, run_id)
    made: JSONResponse = await request.app.state.views.run(_sheet_answer, sheet, lives, stored, here)
    return made


def _sheet_answer(
    sheet: store.Sheet, lives: Sequence[Live], stored: Mapping[str, str | None], here: Mapping[str, Any]
) -> JSONResponse:
    now = datetime.now(UTC)
    clips = [views.card_view(clip, live, stored=stored, now=now) for clip, live in zip(sheet.clips, lives, strict=True)]
    told = {"total": sheet.total, "counts": dict(sheet.counts), "is_cut": sheet.is_cut, "is_over": sheet.is_over}
    cost, priced = sheet.credits
    told["credits"] = {"sum": whole(cost), "clips": priced}
    return JSONResponse({**here, **told, "clips": clips})


@router.get(TASK + "/clip.json")
@router.get(MAPPED + "/clip.json")
@router.get(LOOPED + "/clip.json")
@router.get(TASK + NUMBERED + "/clip.json")
@router.get(MAPPED + NUMBERED + "/clip.json")
@router.get(LOOPED + NUMBERED + "/clip.json")
async def clip_data(
    request: Request,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int = -1,
    region_id: UUID | None = None,
    number: int = 1,
) -> JSONResponse:
    """Return everything that the page of a clip shows."""
    page, cost = await _page(request, dag_id, run_id, task_id, map_index, region_id, number)
    live = await _live(request, page.clip)
    stored = await _stored(request, [page.clip])
    here = {"dag_id": dag_id, "run_id": run_id, "pause": pause_after(cost)}
    made: JSONResponse = await request.app.state.views.run(_page_answer, page, live, stored, here)
    return made


def _page_answer(
    page: store.Page, live: Live, stored: Mapping[str, str | None], here: Mapping[str, Any]
) -> JSONResponse:
    view = views.clip_view(page.clip, page.task, live, stored=stored, now=datetime.now(UTC))
    view |= slot_view(page.task, page.queue)
    return JSONResponse({**view, **here, "before": page.before, "after": page.after, "place": page.place})


# -- media --------------------------------------------------------------------------------------


@router.api_route(TASK + "/file", methods=["GET", "HEAD"])
@router.api_route(MAPPED + "/file", methods=["GET", "HEAD"])
@router.api_route(LOOPED + "/file", methods=["GET", "HEAD"])
@router.api_route(TASK + NUMBERED + "/file", methods=["GET", "HEAD"])
@router.api_route(MAPPED + NUMBERED + "/file", methods=["GET", "HEAD"])
@router.api_route(LOOPED + NUMBERED + "/file", methods=["GET", "HEAD"])
async def file(
    request: Request,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int = -1,
    region_id: UUID | None = None,
    number: int = 1,
    piece: PieceIndex = 0,
    download: bool = False,
) -> Response:
    """Send a piece of the clip from storage, or lead to the service's own URL while that is valid.

    With ``download``, a browser keeps a stored file instead of playing it.
    """
    page, _ = await _page(request, dag_id, run_id, task_id, map_index, region_id, number)
    return await _media(request, page.clip, piece, cover=False, attached=download)


@router.api_route(TASK + "/cover", methods=["GET", "HEAD"])
@router.api_route(MAPPED + "/cover", methods=["GET", "HEAD"])
@router.api_route(LOOPED + "/cover", methods=["GET", "HEAD"])
@router.api_route(TASK + NUMBERED + "/cover", methods=["GET", "HEAD"])
@router.api_route(MAPPED + NUMBERED + "/cover", methods=["GET", "HEAD"])
@router.api_route(LOOPED + NUMBERED + "/cover", methods=["GET", "HEAD"])
async def cover(
    request: Request,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int = -1,
    region_id: UUID | None = None,
    number: int = 1,
    piece: PieceIndex = 0,
) -> Response:
    """Send the cover in the same way."""
    page, _ = await _page(request, dag_id, run_id, task_id, map_index, region_id, number)
    return await _media(request, page.clip, piece, cover=True)


async def _media(request: Request, clip: Clip, index: int, *, cover: bool, attached: bool = False) -> Response:
    states: LiveStates = request.app.state.live
    reads: Reads = request.app.state.reads
    if clip.main.waiting_since is not None:
        raise HTTPException(404, NO_GENERATION)
    live = states.known(clip.conn_id or "", clip.generation_id or "", clip.endpoint)
    piece = next(iter(views.pieces(clip, live)[index:]), None)
    if piece is None:
        raise HTTPException(404, "The generation has no such piece.")
    told = ""
    for record in views.files_of(clip, piece, cover=cover):
        if (place := place_of(record.uri)) is not None:
            try:
                preview: Preview = await reads.run(place, open_preview, record.uri, record.size)
                return file_response(request, preview, reads, attached_as=record.name if attached else None)
            except PreviewError as error:
                told = str(error)
    who = asker(request.headers)
    if who == "other":
        # The URL comes from an XCom or from the service: good for a player, not for the address bar.
        raise HTTPException(400, "Open the clip's page instead.")
    url = await _service_url(request, clip, piece, cover=cover)
    if url is None:
        return _gone(f"{told} {views.expired(clip)}")
    own = _own_hosts(request)
    trust = await states.trust(clip.conn_id) if needs_trust(url) else NO_TRUST
    if (reason := why_not(url, own, trust)) is not None:
        return _gone(f"{told} The service's link to this clip is not followed: {reason}.")
    if who == "script":
        return JSONResponse({"detail": f"{told} {LINK_FAILS}".strip()}, status_code=409)
    # This server never fetches it: a DAG could make it contact hosts that only it can reach.
    return Response(status_code=307, headers={"Location": location(url)})


def _own_hosts(request: Request) -> frozenset[str]:
    # Each proxy may have added a line of its own.
    forwarded = ",".join(request.headers.getlist("x-forwarded-host"))
    headers = {"host": request.headers.get("host", ""), "x-forwarded-host": forwarded}
    return own_hosts(headers, conf.get("api", "base_url", fallback="") or "")


def _gone(detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail.strip()}, status_code=410)


async def _service_url(request: Request, clip: Clip, piece: Piece, *, cover: bool) -> str | None:
    """Return a URL of the service that is still valid, as far as that can be known."""
    known, since = clip.result or (None, None)
    url, now = views.url_of(known, piece, cover=cover), datetime.now(UTC)
    if url is not None and views.is_surely_fresh(url, since, now):
        return web_url(url)
    if views.may_ask(clip) and (known is None or known.succeeded or not known.is_done):
        live = await _asked(request, clip)
        if fresh := web_url(views.url_of(live.generation, piece, cover=cover)):
            return fresh
    return web_url(url) if views.may_be_valid(since, now) else None


# -- shared -------------------------------------------------------------------------------------


async def _page(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: int, region_id: UUID | None, number: int
) -> tuple[store.Page, float]:
    pages: Shared[store.Page | None] = request.app.state.pages
    place = (dag_id, run_id, task_id, map_index, region_id, number)
    try:
        page, cost = await pages.get(place, lambda: store.read_page(*place))
    except store.NoIterationError as error:
        raise HTTPException(404, NO_ITERATION) from error
    if page is None:
        raise HTTPException(404, NO_GENERATION)
    return page, cost


async def _live(request: Request, clip: Clip, patience: float | None = None) -> Live:
    """Query the service if no result holds the end of the generation."""
    if views.must_ask(clip):
        return await _asked(request, clip, patience)
    states: LiveStates = request.app.state.live
    return states.seen(clip.conn_id or "", clip.generation_id or "", clip.endpoint)


async def _asked(request: Request, clip: Clip, patience: float | None = None) -> Live:
    states: LiveStates = request.app.state.live
    assert clip.conn_id is not None
    assert clip.generation_id is not None
    more = {} if patience is None else {"patience": patience}
    return await states.state(clip.conn_id, clip.generation_id, clip.endpoint, **more)


async def _stored(request: Request, clips: Iterable[Clip]) -> dict[str, str | None]:
    """Return the stored files that may be shown, with their proven content type if no record names one."""
    reads: Reads = request.app.state.reads
    found, asked = await request.app.state.views.run(_shown_files, clips)
    nothing: dict[str, str | None] = {}
    looks = [
        reads.soon(place, proven_types, uris, patience=STORE_PATIENCE_SECONDS, otherwise=nothing)
        for place, uris in asked.items()
    ]
    for proven in await asyncio.gather(*looks):
        found.update(proven)
    return dict(found)


def _shown_files(clips: Iterable[Clip]) -> tuple[dict[str, str | None], dict[Hashable, list[str]]]:
    """Return the stored files that may be shown, and by their root those without a recorded content type."""
    found: dict[str, str | None] = {}
    asked: dict[Hashable, list[str]] = {}
    for record in (record for clip in clips for record in clip.records[:MAX_PIECES]):
        if (place := place_of(record.uri)) is not None:
            found[record.uri] = None
            if not record.medium:
                asked.setdefault(place, []).append(record.uri)
    return found, asked


def _busy(request: Request, error: Exception) -> Response:
    """Ask a page to retry: its query of the database, or of a store, has waited too long for its turn."""
    return JSONResponse(
        {"detail": str(error)},
        status_code=503,
        headers={"Retry-After": str(MAX_PAUSE // 4)},
    )


async def _refused(request: Request, error: Exception) -> Response:
    """Answer as the request expects: a page gets a page or the login, everything else JSON."""
    assert isinstance(error, StarletteHTTPException)
    depth = _depth(request)
    if depth is None and error.status_code == 404 and _wants_page(request):
        return _no_such_page(request)
    if depth is None:
        return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)
    if error.status_code == 401:
        login = f"{'../' * (depth + 1)}api/v2/auth/login?next={quote(_asked_for(request), safe='')}"
        return RedirectResponse(login, status_code=307)
    title = "No access" if error.status_code == 403 else "Not found"
    sentence = "You may not see the clips of this DAG." if error.status_code == 403 else redacted(error.detail)
    return HTMLResponse(refusal(depth, title, sentence), status_code=error.status_code)


async def _misspelt(request: Request, error: Exception) -> Response:
    """Answer an address with a wrong parameter, such as a map index that is not a number."""
    assert isinstance(error, RequestValidationError)
    if _depth(request) is not None:
        return _no_such_page(request)
    return await request_validation_exception_handler(request, error)


def _no_such_page(request: Request) -> HTMLResponse:
    """Return a page that explains an unknown address and, by its script, offers links out of it."""
    # The page names nothing that the browser has not sent, so no login is needed.
    folders = request.scope["path"].removeprefix(request.scope.get("root_path", "")).count("/") - 1
    return HTMLResponse(refusal(max(folders, 0), "Not found", NO_SUCH_PAGE), status_code=404)


def _wants_page(request: Request) -> bool:
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


def _asked_for(request: Request) -> str:
    """Return the path that the browser has requested, in its own spelling."""
    raw = request.scope.get("raw_path")
    path = raw.decode("ascii", "replace") if raw else quote(request.scope["path"])
    base = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    # A proxy may have taken the deployment's path away.
    return path if path.startswith(f"{base}/") else base + path


def _depth(request: Request) -> int | None:
    """Return how many folders below the root a page is, or None for other routes."""
    path = getattr(request.scope.get("route"), "path", "")
    return _DEPTHS.get(path)
