"""The plugin that Airflow loads in each of its processes, so it imports next to nothing.

The application behind it is built at the first request, which only the API server ever gets.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from airflow.providers.common.compat.sdk import conf

from airflow_provider_vidu.links import PAGE_PREFIX, has_pages
from airflow_provider_vidu.tasks.deserializing import allow_models

# Airflow loads its plugins before a task reads its XComs, and a ``@task`` that is given a Generation may import nothing
# of this package.
allow_models()

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


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
        external_views = _views()
