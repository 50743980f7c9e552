"""A service whose list of tasks misbehaves on demand, and many waits on it at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from airflow_provider_vidu.triggers import ViduGenerationTrigger
from tests.loopback import Exchange, Loopback

FIRST_ID = 9470000000000000001
KEY = "sk-listing-77e1c0"
INTERVAL = 0.1

Answer = tuple[int, dict[str, str], Any]
Listed = Callable[[list[str], list[dict[str, Any]]], Any]


def repeated(query: dict[str, list[str]]) -> list[str]:
    """Read the filter as most servers do."""
    return query.get("task_ids", [])


def comma(query: dict[str, list[str]]) -> list[str]:
    """Read the filter's first value as names between commas."""
    return query.get("task_ids", [""])[0].split(",")


def as_json(query: dict[str, list[str]]) -> list[str]:
    """Read the filter's first value as JSON; anything else names nothing."""
    try:
        return list(json.loads(query.get("task_ids", ["[]"])[0]))
    except (ValueError, TypeError):
        return []


class Listing(Loopback):
    """``ent-v2`` with a query per task and the list of tasks; the list's answers can be changed.

    ``listed`` gets the ids and the right entries, and returns the entries to send, or a status, headers and a body.

    :param count: how many generations there are.
    """

    def __init__(self, count: int = 6, key: str = KEY) -> None:
        self.states = {str(FIRST_ID + number): "processing" for number in range(count)}
        self.keys = {key}
        self.key = key
        self.read: Callable[[dict[str, list[str]]], list[str]] = repeated
        self.listed: Listed = lambda _, entries: entries
        self.is_down = False
        self.lists: list[list[str]] = []
        self.times: list[float] = []
        self.queries: list[str] = []
        super().__init__()

    @property
    def ids(self) -> list[str]:
        """All ids."""
        return list(self.states)

    def connection(self, **fields: Any) -> str:
        """Return an Airflow connection to it."""
        return self.connected(self.key, **fields)

    def finish(self, state: str = "success") -> None:
        """Let every generation end."""
        self.states = dict.fromkeys(self.states, state)

    def serve(self, exchange: Exchange) -> None:
        """Answer a query, or a page of the list."""
        status, headers, body = self.answer(exchange.path, exchange.headers.get("Authorization", ""))
        try:
            exchange.respond(status, body, headers)
        except ConnectionError:
            exchange.close_connection = True  # the client has not waited

    def answer(self, path: str, authorization: str) -> Answer:
        """Return status, headers and body for a request."""
        if authorization.removeprefix("Token ") not in self.keys:
            return 401, {}, {"code": 401, "reason": "Unauthorized", "message": "wrong key"}
        parts = urlsplit(path)
        if parts.path.endswith("/tasks"):
            return self._page(parse_qs(parts.query))
        name = parts.path.split("/")[-2]
        self.queries.append(name)
        if self.is_down:
            return 503, {}, {"code": 503, "reason": "Unavailable", "message": "down"}
        if name not in self.states:
            return 404, {}, {"code": 404, "reason": "TaskNotFound", "message": "no such task"}
        return 200, {}, self.entry(name) | {"err_code": "Broken" if self.states[name] == "failed" else ""}

    def entry(self, name: str) -> dict[str, Any]:
        """Return the right entry for a generation."""
        creations = [{"id": "c", "url": f"https://files.invalid/{name}.mp4"}] if self.states[name] == "success" else []
        return {"id": name, "key_id": "1", "state": self.states[name], "creations": creations, "credits": 4}

    def _page(self, query: dict[str, list[str]]) -> Answer:
        ids = self.read(query)
        self.lists.append(ids)
        self.times.append(time.monotonic())
        if self.is_down:
            return 503, {}, {"code": 503, "reason": "Unavailable", "message": "down"}
        found = self.listed(ids, [self.entry(name) for name in ids if name in self.states])
        return found if isinstance(found, tuple) else (200, {}, {"tasks": found, "next_page_token": ""})


async def fired(generation_id: str, conn_id: str = "vidu_listing", **kwargs: Any) -> dict[str, Any]:
    """Run a trigger and return the payload of its only event, as it is stored."""
    trigger = ViduGenerationTrigger(
        generation_id=generation_id, vidu_conn_id=conn_id, **{"poll_interval": INTERVAL, "max_failures": 3, **kwargs}
    )
    (event,) = [event.payload async for event in trigger.run()]
    assert KEY not in json.dumps(event)
    return json.loads(json.dumps(event))


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return when something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.01)
