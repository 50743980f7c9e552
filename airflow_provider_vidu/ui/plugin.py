"""The plugin that Airflow loads in each of its processes, so it imports next to nothing.

The application behind it is built at the first request, which only the API server ever gets.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from airflow.plugins_manager import AirflowPlugin
from airflow.providers.common.compat.sdk import conf

from airflow_provider_vidu.links import PAGE_PREFIX, has_pages
from airflow_provider_vidu.tasks.deserializing import allow_models

# Airflow loads its plugins before a task reads its XComs, and a ``@task`` that is given a Generation may import nothing
# of this package.
allow_models()

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

_PLAYERS: Final = frozenset({b"video", b"audio", b"track"})
_OF_PLAYERS: Final = (b"range", b"icy-metadata", b"x-playback-session-id")
"""What players send: most of them a range, GStreamer the second, Apple's the third."""
_LOG_OUT: Final = re.compile(r"(/api/v2)?(/auth)?/logout\w*/?")
_VISITS: Final = frozenset({b"document", b"iframe", b"frame"})


class LateApp:
    """An ASGI application that builds the real one at its first request."""

    def __init__(self) -> None:
        self._app: App | None = None
        self._lock = threading.Lock()

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Pass the request on."""
        await self._real()(scope, receive, send)

    def _real(self) -> App:
        if self._app is None:
            with self._lock:
                if self._app is None:
                    from airflow_provider_vidu.ui.app import make_app

                    self._app = make_app()
        return self._app


class PlayerGuard:
    """Refuses what a player or a picture of these pages requests from the rest of Airflow.

    Chromium and Safari play HLS. The file of a clip may be a list of further addresses then, and those of this host are
    requested with the viewer's cookie: Airflow's log-out address ended the session when the page opened. So did the
    redirect of a picture, or of a clip, in a browser without COEP credentialless: Safari, and any on plain http. Safari
    also loads what a ``Link`` header beside a picture names, such as a script with any referrer. A log-out, the only
    GET of Airflow that does something, is therefore refused unless it opens a page.

    :param app: the API server.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Pass the request on, or refuse it."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        is_harmless = path.startswith((f"{PAGE_PREFIX}/", "/static/"))  # these pages show Airflow's logo
        headers = {} if is_harmless or scope["type"] != "http" else dict(scope["headers"])
        is_log_out = scope.get("method") == "GET" and _LOG_OUT.fullmatch(path) is not None
        if not _is_of_our_clip(headers) and (not is_log_out or _is_visit(headers)):
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def _is_of_our_clip(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a player or a picture may have sent a request, on a page that tells no referrer, as only these do."""
    if b"referer" in headers:
        return False
    dest = headers.get(b"sec-fetch-dest")
    if dest is not None:
        # A picture of another site leads here only by a redirect.
        return dest in _PLAYERS or (dest == b"image" and headers.get(b"sec-fetch-site") != b"same-origin")
    # Browsers do not send Sec-Fetch-Dest to servers on plain http, and Apple's player never does.
    is_picture = headers.get(b"accept", b"").startswith(b"image/")
    return b"cookie" in headers and (is_picture or any(name in headers for name in _OF_PLAYERS))


def _is_visit(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser opens a page with a request; any request of another program counts as such."""
    dest = headers.get(b"sec-fetch-dest")
    if dest is not None:
        return dest in _VISITS
    return b"text/html" in headers.get(b"accept", b"") or not headers.get(b"user-agent", b"").startswith(b"Mozilla/")


def _view(name: str, path: str, destination: str, route: str) -> dict[str, Any]:
    """Return a page of this plugin as Airflow's UI shows it; relative, so that the UI completes its own path."""
    root = PAGE_PREFIX[1:]
    icons = {"icon": f"{root}/static/icon.svg", "icon_dark_mode": f"{root}/static/icon-dark.svg"}
    return {"name": name, "href": f"{root}/{path}", "destination": destination, "url_route": route, **icons}


def _views() -> list[dict[str, Any]]:
    """Return the tab "Vidu clips" of every DAG run and the page "Vidu" of the navigation, as far as they are wanted."""
    views = []
    if conf.getboolean("vidu", "run_tab", fallback=True):
        views.append(_view("Vidu clips", "dags/{DAG_ID}/runs/{RUN_ID}", "dag_run", "vidu-clips"))
    if conf.getboolean("vidu", "spending_page", fallback=True):
        views.append(_view("Vidu", "spending", "nav", "vidu-credits"))
    return views


class ViduPlugin(AirflowPlugin):
    """Mounts the clip pages in the API server (Airflow 3.1.1 and later; elsewhere it registers nothing)."""

    name = "vidu"
    if has_pages():
        fastapi_apps = [{"name": "vidu", "app": LateApp(), "url_prefix": PAGE_PREFIX}]
        fastapi_root_middlewares = [{"name": "vidu players", "middleware": PlayerGuard, "args": [], "kwargs": {}}]
        external_views = _views()
