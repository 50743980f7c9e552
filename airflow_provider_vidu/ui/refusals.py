"""How a request is refused: a page gets a page or the login, everything else JSON."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlsplit

from airflow.configuration import conf
from fastapi import FastAPI, Request
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.ui.pages import depth_of, refusal
from airflow_provider_vidu.ui.records.absences import NoRunError, NoTaskError
from airflow_provider_vidu.ui.shared import MAX_PAUSE
from airflow_provider_vidu.ui.threads import BusyError

NO_SUCH_PAGE: Final = (
    "There is no page at this address. The clips of a DAG run are on its tab “Vidu clips”; the link “Watch” of a task "
    "opens the page of its clip."
)
NO_TASK: Final = (
    "This run has no such task instance, or no longer: the address may be of another run, or lack the map index. The "
    "clips of the run are on its tab “Vidu clips”."
)
NO_RUN: Final = (
    "This run has no such task instance, or no longer: the run was deleted, or the address is wrong. With a run, "
    "Airflow also deletes what it knows of its clips; the files that its tasks have stored are kept."
)
NO_ACCESS: Final = (
    "You may not see the clips of this DAG. That requires the permission to read its task instances and its XComs."
)


def explain(app: FastAPI) -> None:
    """Let an application answer its errors so."""
    # Starlette's own class: that is what its router raises for an address without a route.
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _misspelt)
    app.add_exception_handler(BusyError, _busy)


def not_there(error: NoTaskError) -> HTTPException:
    """Return the answer for an address without a task instance; without a run there must be no link to it, either."""
    if isinstance(error, NoRunError):
        return HTTPException(404, NO_RUN, headers={"Vidu-Address": "no-run"})
    return HTTPException(404, NO_TASK)


def _busy(request: Request, error: Exception) -> Response:
    """Ask a page to retry: its query of the database, or of a store, has waited too long for its turn."""
    return JSONResponse(
        {"detail": str(error)},
        status_code=503,
        headers={"Retry-After": str(MAX_PAUSE // 4)},
    )


async def _refused(request: Request, error: Exception) -> Response:
    """Answer as the request expects: a page gets a page or the login, everything else JSON."""
    assert isinstance(error, HTTPException)
    depth = _depth(request)
    if depth is None and error.status_code == 404 and _wants_page(request):
        return _no_such_page(request)
    if depth is None:
        return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)
    if error.status_code == 401:
        login = f"{'../' * (depth + 1)}api/v2/auth/login?next={quote(_asked_for(request), safe='')}"
        return RedirectResponse(login, status_code=307)
    title = "No access" if error.status_code == 403 else "Not found"
    sentence = NO_ACCESS if error.status_code == 403 else redacted(error.detail)
    return HTMLResponse(refusal(depth, error.status_code, title, sentence), status_code=error.status_code)


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
    return HTMLResponse(refusal(max(folders, 0), 404, "Not found", NO_SUCH_PAGE), status_code=404)


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
    route = request.scope.get("route")
    return depth_of(request) if getattr(route, "response_class", None) is HTMLResponse else None
