"""The routes: pages, JSON and media, each behind Airflow's own login and permission for the DAG."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlsplit

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.configuration import conf
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from airflow_provider_vidu.text import shown
from airflow_provider_vidu.ui import store, views
from airflow_provider_vidu.ui.facts import Clip
from airflow_provider_vidu.ui.live import LiveStates
from airflow_provider_vidu.ui.media import file_response
from airflow_provider_vidu.ui.pages import GuardHeaders, refusal, shell
from airflow_provider_vidu.ui.preview import Preview, PreviewError, can_show, open_preview
from airflow_provider_vidu.values import web_url

PAGE_SIZE: Final = 24
SHEET_PATIENCE_SECONDS: Final = 3.0
STAGES: Final = ("working", "ready", "stored", "failed")

_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))

RUN: Final = "/dags/{dag_id}/runs/{run_id}"
TASK: Final = RUN + "/tasks/{task_id}"
MAPPED: Final = TASK + "/mapped/{map_index}"

# XComs and rendered fields are shown: whoever may read both in Airflow's own pages may read this one.
_GUARDS: Final = [
    Depends(requires_access_dag("GET", DagAccessEntity.XCOM)),
    Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE)),
]
router = APIRouter(dependencies=_GUARDS)


def make_app() -> Any:
    """Return the application that the API server mounts."""
    app = FastAPI(title="Vidu clips", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.live = LiveStates()
    app.include_router(router)
    # The same files as in the published package, and nothing about anybody's clips.
    app.mount("/static", _Static(directory=Path(__file__).parent / "static"), name="static")
    app.add_exception_handler(HTTPException, _refused)
    return GuardHeaders(app)


class _Static(StaticFiles):
    """Scripts and styles; browsers keep them and ask whether they have changed."""

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


@router.get(MAPPED)
def mapped_clip_page(dag_id: str, run_id: str, task_id: str, map_index: int) -> HTMLResponse:
    """Return the page of a mapped task instance's clip."""
    return HTMLResponse(shell("clip", 7, "Vidu clip"))


# -- JSON ---------------------------------------------------------------------------------------


@router.get(RUN + "/clips.json")
async def sheet_data(
    request: Request,
    dag_id: str,
    run_id: str,
    stage: Annotated[str | None, Query(pattern=f"^({'|'.join(STAGES)})$")] = None,
    offset: Annotated[int, Query(ge=0, le=store.MAX_TASKS)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = PAGE_SIZE,
) -> JSONResponse:
    """Return one page of the clips of a DAG run, and how many there are in each stage."""
    sheet = await run_in_threadpool(store.read_sheet, dag_id, run_id)
    if sheet is None:
        raise HTTPException(404, "There is no such DAG run.")
    chosen = [clip for clip in sheet.clips if stage in (None, clip.stage)]
    clips = await run_in_threadpool(store.with_results, chosen[offset : offset + limit])
    lives = await asyncio.gather(*(_live(request, clip, SHEET_PATIENCE_SECONDS) for clip in clips))
    now = datetime.now(UTC)
    return JSONResponse(
        {
            "dag_id": dag_id,
            "run_id": run_id,
            "total": len(chosen),
            "offset": offset,
            "limit": limit,
            "counts": {name: sum(clip.stage == name for clip in sheet.clips) for name in STAGES},
            "clips": [
                views.card_view(clip, live, stored=_stored(clip), now=now)
                for clip, live in zip(clips, lives, strict=True)
            ],
            "is_cut": sheet.is_cut,
            "is_over": sheet.is_over,
        }
    )


@router.get(TASK + "/clip.json")
@router.get(MAPPED + "/clip.json")
async def clip_data(request: Request, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> JSONResponse:
    """Return everything that the page of a clip shows."""
    page = await _page(dag_id, run_id, task_id, map_index)
    live = await _live(request, page.clip)
    view = views.clip_view(page.clip, page.task, live, stored=_stored(page.clip), now=datetime.now(UTC))
    here = {"dag_id": dag_id, "run_id": run_id, "before": page.before, "after": page.after}
    return JSONResponse({**view, **here})


# -- media --------------------------------------------------------------------------------------


@router.api_route(TASK + "/video", methods=["GET", "HEAD"])
@router.api_route(MAPPED + "/video", methods=["GET", "HEAD"])
async def video(request: Request, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Response:
    """Send the clip from storage, or lead to the service's own URL while that is valid."""
    page = await _page(dag_id, run_id, task_id, map_index)
    return await _media(request, page.clip, cover=False)


@router.api_route(TASK + "/cover", methods=["GET", "HEAD"])
@router.api_route(MAPPED + "/cover", methods=["GET", "HEAD"])
async def cover(request: Request, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Response:
    """Send the cover in the same way."""
    page = await _page(dag_id, run_id, task_id, map_index)
    return await _media(request, page.clip, cover=True)


async def _media(request: Request, clip: Clip, *, cover: bool) -> Response:
    told = ""
    for record in clip.records(cover=cover):
        if can_show(record.uri):
            try:
                preview: Preview = await run_in_threadpool(open_preview, record.uri)
                return file_response(request, preview)
            except PreviewError as error:
                told = str(error)
    url = await _service_url(request, clip, cover=cover)
    if url is None:
        return JSONResponse({"detail": f"{told} {views.expired(clip)}".strip()}, status_code=410)
    if request.headers.get("sec-fetch-dest") in ("document", "iframe", "frame", "embed", "object"):
        # The URL comes from an XCom or from the service: good for a player, not for the address bar.
        raise HTTPException(400, "Open the clip's page instead.")
    # This server never fetches it: a DAG could make it ask hosts that only it can reach.
    # Verbatim but for what no header can hold: re-quoting a signed URL breaks its signature.
    return Response(status_code=307, headers={"Location": quote(url, safe=_ASCII)})


async def _service_url(request: Request, clip: Clip, *, cover: bool) -> str | None:
    """Return a URL of the service that is still valid, as far as that can be known."""
    known, since = clip.result or (None, None)
    url, now = views.url_of(known, cover=cover), datetime.now(UTC)
    if url is not None and views.is_surely_fresh(url, since, now):
        return web_url(url)
    if views.may_ask(clip) and (known is None or known.succeeded or not known.is_done):
        live = await _asked(request, clip)
        if fresh := web_url(views.url_of(live.generation, cover=cover)):
            return fresh
    return web_url(url) if views.may_be_valid(since, now) else None


# -- shared -------------------------------------------------------------------------------------


async def _page(dag_id: str, run_id: str, task_id: str, map_index: int) -> store.Page:
    page = await run_in_threadpool(store.read_page, dag_id, run_id, task_id, map_index)
    if page is None:
        raise HTTPException(404, "This task instance knows no generation (yet).")
    return page


async def _live(request: Request, clip: Clip, patience: float | None = None) -> views.Live:
    """Ask the service, where only it knows how far the generation is."""
    if views.must_ask(clip):
        return await _asked(request, clip, patience)
    states: LiveStates = request.app.state.live
    return states.seen(clip.conn_id or "", clip.generation_id)


async def _asked(request: Request, clip: Clip, patience: float | None = None) -> views.Live:
    states: LiveStates = request.app.state.live
    assert clip.conn_id is not None
    more = {} if patience is None else {"patience": patience}
    return await states.state(clip.conn_id, clip.generation_id, **more)


def _stored(clip: Clip) -> dict[str, bool]:
    return {
        name: any(can_show(record.uri) for record in clip.records(cover=name == "cover")) for name in ("video", "cover")
    }


async def _refused(request: Request, error: Exception) -> Response:
    """Answer in the way of the asker: a page gets a page or the login, everything else JSON."""
    assert isinstance(error, HTTPException)
    depth = _depth(request)
    if depth is None:
        return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)
    if error.status_code == 401:
        login = f"{'../' * (depth + 1)}api/v2/auth/login?next={quote(_asked_for(request), safe='')}"
        return RedirectResponse(login, status_code=307)
    title = "No access" if error.status_code == 403 else "Not found"
    sentence = "You may not see the clips of this DAG." if error.status_code == 403 else shown(error.detail)
    return HTMLResponse(refusal(depth, title, sentence), status_code=error.status_code)


def _asked_for(request: Request) -> str:
    """Return the path that the browser has asked for, as it is written there."""
    raw = request.scope.get("raw_path")
    path = raw.decode("ascii", "replace") if raw else quote(request.scope["path"])
    base = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    # A proxy may have taken the deployment's path away.
    return path if path.startswith(f"{base}/") else base + path


def _depth(request: Request) -> int | None:
    """Return how many folders below the root a page lies, or None for what is no page."""
    path = getattr(request.scope.get("route"), "path", "")
    return {RUN: 3, TASK: 5, MAPPED: 7}.get(path)
