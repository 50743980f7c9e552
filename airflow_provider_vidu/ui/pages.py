"""The HTML shells and the headers that guard them; what a page shows comes as JSON, and is text to the browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from html import escape
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse

from airflow_provider_vidu import __version__

# The player follows a redirect to wherever the service keeps its files; nothing else leaves this origin.
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' http: https:",
        "media-src 'self' http: https:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    # What is loaded from elsewhere gets no cookies: they know no ports, so another port would be sent the session.
    "Cross-Origin-Embedder-Policy": "credentialless",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_SHELL: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="vidu-root" content="{root}">
<title>{title}</title>
<link rel="icon" type="image/svg+xml" href="{root}static/icon.svg">
<link rel="stylesheet" href="{root}static/vidu.css?{version}">
<script src="{root}static/theme.js?{version}"></script>
<script type="module" src="{root}static/{script}.js?{version}"></script>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="top" id="top"></header>
<main id="main" tabindex="-1">{body}</main>
<div id="announcer" class="hidden" role="status" aria-live="polite"></div>
</body>
</html>
"""

MAX_PATH_CHARS: Final = 2_000
"""The longest path: its names have at most 250 characters each. To look up a static file in a path of 30,000 folders
takes a third of a second of a thread that Airflow's own routes need, without a login."""

# What is about to appear, in outline; a screen reader gets words.
_SKELETON: Final = (
    '<div class="loading"><span class="hidden">Loading…</span>'
    '<div class="skeleton is-{script}" aria-hidden="true">' + "<i></i>" * 8 + "</div></div>"
    "<noscript>This page needs JavaScript.</noscript>"
)


def page(request: Request, script: str, title: str) -> HTMLResponse:
    """Return a page that fills itself.

    :param request: of a route below the plugin's root.
    :param script: the module that fills it.
    """
    return HTMLResponse(_page(depth_of(request), title, script, _SKELETON.format(script=script)))


def depth_of(request: Request) -> int:
    """Return how many folders below the plugin's root a route is.

    The addresses in a page are relative, so that they hold under whatever path Airflow is deployed.
    """
    path: str = request.scope["route"].path
    return path.count("/") - 1


def refusal(depth: int, status: int, title: str, sentence: str) -> str:
    """Return a page that explains a refusal; its script adds links that lead on, by the HTTP status."""
    return _page(depth, title, "refusal", f'<p class="quiet" data-status="{status}">{escape(sentence)}</p>')


def _page(depth: int, title: str, script: str, body: str) -> str:
    return _SHELL.format(root="../" * depth or "./", title=escape(title), script=script, body=body, version=__version__)


class GuardHeaders:
    """Adds the headers that every answer needs, errors included; what an answer says itself stays.

    :param app: the ASGI application inside.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, and the answer back with its headers."""

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        # A page's addresses are relative: a browser counts fewer folders here than the routes do, and would load
        # scripts from what is served above Airflow. No name contains a slash.
        is_disguised = b"%2f" in (scope.get("raw_path") or b"").lower()
        is_refused = is_disguised or len(scope["path"]) > MAX_PATH_CHARS
        app = JSONResponse({"detail": "Not Found"}, status_code=404) if is_refused else self._app
        await app(scope, receive, send_guarded)
