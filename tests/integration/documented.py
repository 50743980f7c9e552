"""A loopback service whose list of tasks is as the vendor documents it, and no friendlier."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.loopback import Exchange, Loopback

SHOWN = ("id", "type", "model", "prompt", "images", "state", "credits", "created_at")
"""The fields of an entry: neither ``payload`` nor ``err_code`` is among them."""


class DocumentedService(Loopback):
    """``ent-v2`` with 10 entries a page, at most 100, newest first, without payloads.

    ``tasks`` are the generations, the newest first; ``loses`` makes the next creates end without an answer, and
    ``drops`` makes them end before they are carried out; ``queries`` are the queries of the list; ``unlisted`` are
    the products that the list does not show. Queries tell the payload, as documented, unless ``echoes`` is false.
    """

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.queries: list[dict[str, list[str]]] = []
        self.asked: list[str] = []
        self.creates = 0
        self.loses = self.drops = 0
        self.unlisted: tuple[str, ...] = ()
        self.echoes = True
        self.lock = threading.Lock()
        super().__init__()

    def serve(self, exchange: Exchange) -> None:
        """Answer a request."""
        if exchange.command == "GET":
            self.get(exchange)
        else:
            self.post(exchange)

    def connection(self) -> str:
        """Return an Airflow connection to it."""
        return self.connected("sk-documented-1")

    def add(self, name: object, *, state: str = "success", age: float = 0.0, **fields: Any) -> dict[str, Any]:
        """Add a generation; return it."""
        created = datetime.fromtimestamp(time.time() - age, UTC).isoformat()
        task = {"id": str(name), "type": "text2video", "model": "m", "prompt": "x", "images": [], "state": state,
                "credits": 4, "created_at": created, **fields}  # fmt: skip
        with self.lock:
            self.tasks.insert(0, task)
        return task

    def get(self, exchange: Exchange) -> None:
        """Answer a query, or a page of the list."""
        parts = urlsplit(exchange.path)
        if parts.path.endswith("/tasks"):
            return exchange.respond(200, self._page(parse_qs(parts.query)))
        name = parts.path.split("/")[-2]
        self.asked.append(name)
        for task in self.tasks:
            if task["id"] == name:
                creations = [{"id": "1", "url": "https://cdn.example/v.mp4"}] if task["state"] == "success" else []
                payload = task.get("payload", "") if self.echoes else ""
                told = {"err_code": task.get("err_code", ""), "payload": payload, "creations": creations}
                return exchange.respond(200, {**task, **told})
        return exchange.respond(404, {"code": 404, "reason": "TaskNotFound", "message": "no such task"})

    def post(self, exchange: Exchange) -> None:
        """Carry a create out, or lose it before or after; accept every cancel."""
        body = json.loads(exchange.rfile.read(int(exchange.headers["Content-Length"])))
        if exchange.path.endswith("/cancel"):
            return exchange.respond(200, {})
        if self.drops:
            self.drops -= 1
            exchange.close_connection = True
            return None
        self.creates += 1
        kind = exchange.path.rpartition("/")[2]
        task = self.add(1000 + self.creates, type=kind, **{"state": "created", **body})
        if self.loses:
            self.loses -= 1
            exchange.close_connection = True
            return None
        return exchange.respond(200, {**task, "task_id": task["id"]})

    def _page(self, asked: dict[str, list[str]]) -> dict[str, Any]:
        self.queries.append(asked)
        size, number = (int(asked.get(name, [default])[0]) for name, default in PAGER)
        assert size <= 100
        since = asked.get("created_at.from", [""])[0].replace("Z", "+00:00")
        with self.lock:
            shown = [task for task in self.tasks if task["type"] not in self.unlisted]
        listed = [task for task in shown if not since or task["created_at"] >= since]
        page = listed[number * size : (number + 1) * size]
        return {"tasks": [{name: task[name] for name in SHOWN} for task in page], "next_page_token": ""}


PAGER = (("pager.pagesz", "10"), ("pager.page", "0"))
