"""Sending a clip's file: from storage, or by a redirect to the service."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from airflow.configuration import conf
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from airflow_provider_vidu.common.values import web_url
from airflow_provider_vidu.ui.clips import views
from airflow_provider_vidu.ui.clips.facts import Clip
from airflow_provider_vidu.ui.clips.pieces import FileRecord, Piece
from airflow_provider_vidu.ui.page_queries import PageQueries, shared_queries
from airflow_provider_vidu.ui.playing import shelf
from airflow_provider_vidu.ui.playing.media import file_response
from airflow_provider_vidu.ui.playing.preview import (
    AbsentError,
    Preview,
    PreviewError,
    ReplacedError,
    open_preview,
    preview_root,
)
from airflow_provider_vidu.ui.playing.redirects import NO_TRUST, asker, location, needs_trust, own_hosts, why_not

NO_PIECE: Final = "The generation has no such piece."
LINK_FAILS: Final = (
    "The service's link to this clip does not work, or not in this browser: some gateways demand the connection's key, "
    "which no browser gets. Reload the page to request a new one. If that does not help, a ViduDownloadOperator finds "
    "out whether the service still has the file, and stores it without paying again."
)


async def send(request: Request, clip: Clip, index: int, *, cover: bool, attached: bool = False) -> Response:
    """Return the answer with a piece of a clip, or with its cover.

    :param attached: whether a browser keeps a stored file instead of playing it.
    :raises HTTPException: when there is no such piece.
    """
    queries = shared_queries(request)
    live = queries.states.known(clip.conn_id or "", clip.generation_id or "", clip.endpoint)
    piece = next(iter(views.pieces(clip, live)[index:]), None)
    if piece is None:
        raise HTTPException(404, NO_PIECE)
    problem = ""
    lost: list[FileRecord] = []
    for record in views.files_of(clip, piece, cover=cover):
        if record.lost != "kept" and (place := preview_root(record.uri)) is not None:
            try:
                preview: Preview = await queries.reads.run(place, open_preview, record.uri, record.size)
                shelf.note(record.uri, size=preview.size)
                return file_response(request, preview, queries.reads, attached_as=record.name if attached else None)
            except PreviewError as error:
                problem = str(error)
                if isinstance(error, AbsentError | ReplacedError):
                    shelf.note(record.uri, size=error.size if isinstance(error, ReplacedError) else None)
                    lost.append(record)
    who = asker(request.headers)
    if who == "other":
        # The URL comes from an XCom or from the service: good for a player, not for the address bar.
        raise HTTPException(400, "Open the clip's page instead.")
    url = await _service_url(queries, clip, piece, cover=cover)
    if url is None:
        return _gone(f"{problem} {views.expired(clip, lost, is_shown=bool(problem))}")
    own = _own_hosts(request)
    trust = await queries.states.trust(clip.conn_id, of_dag=clip.main.dag_id) if needs_trust(url) else NO_TRUST
    if (reason := why_not(url, own, trust)) is not None:
        return _gone(f"{problem} The service's link to this clip is not followed: {reason}.")
    if who == "script":
        where = views.where_stored(clip, lost, is_shown=bool(problem))
        # Where the clip is comes first: who has the file needs no new link, and no download.
        said = " ".join(filter(None, (problem, where, LINK_FAILS)))
        return JSONResponse({"detail": said}, status_code=409)
    # This server never fetches it: a DAG could make it contact hosts that only it can reach.
    return Response(status_code=307, headers={"Location": location(url)})


def _own_hosts(request: Request) -> frozenset[str]:
    # Each proxy may have added a line of its own.
    forwarded = ",".join(request.headers.getlist("x-forwarded-host"))
    headers = {"host": request.headers.get("host", ""), "x-forwarded-host": forwarded}
    return own_hosts(headers, conf.get("api", "base_url", fallback="") or "")


def _gone(detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail.strip()}, status_code=410)


async def _service_url(queries: PageQueries, clip: Clip, piece: Piece, *, cover: bool) -> str | None:
    """Return a URL of the service that is still valid, as far as that can be known."""
    known, since = clip.result or (None, None)
    url, now = views.url_of(known, piece, cover=cover), datetime.now(UTC)
    if url is not None and views.is_surely_fresh(url, since, now):
        return web_url(url)
    if views.may_ask(clip) and (known is None or known.succeeded or not known.is_done):
        live = await queries.asked(clip)
        if fresh := web_url(views.url_of(live.generation, piece, cover=cover)):
            return fresh
    return web_url(url) if views.may_be_valid(since, now) else None
