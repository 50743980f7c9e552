"""A sandbox without sockets, for tests of what it decides."""

from __future__ import annotations

import base64
import json
from typing import Any

from airflow_provider_vidu.sandbox import Core, Settings
from airflow_provider_vidu.sandbox.media import pictures
from airflow_provider_vidu.sandbox.messages.calls import Call
from airflow_provider_vidu.sandbox.world.clock import Clock

PNG = pictures.png("a picture")
INLINE_PNG = "data:image/png;base64," + base64.b64encode(PNG).decode()


class Service:
    """A sandbox without sockets whose clocks stand still; ``wall`` seconds pass on the wall when a test says so."""

    def __init__(self, **settings: Any) -> None:
        self.real = 0.0
        self.settings = Settings(**{"speed": 0, "seed": 1, **settings})
        clock = Clock(self.settings.speed, source=lambda: self.real, start=1_800_000_000)
        self.core = Core(self.settings, clock=clock)

    def call(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Return status and body of the answer; JSON bodies come parsed, others as bytes."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Token {self.settings.keys[0]}", **headers}
        answer, _ = self.core.handle(Call(method, target, headers, data))
        raw = answer.body()
        is_json = answer.headers.get("Content-Type", "").startswith("application/json")
        return answer.status, json.loads(raw) if is_json else raw

    def ent(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Call the official API."""
        return self.call(method, f"/ent/v2/{path}", body)

    def gateway(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Call a gateway."""
        return self.call(method, path, body, Authorization=f"Bearer {self.settings.keys[0]}")

    def task(self, **body: Any) -> str:
        """Create a task of text2video and return its id."""
        status, created = self.ent("POST", "text2video", {"model": "viduq2", "prompt": "a cat", **body})
        assert status == 200, created
        return created["task_id"]

    def state(self, task: str) -> str:
        """Return the state of a task."""
        return self.ent("GET", f"tasks/{task}/creations")[1]["state"]

    def fetch(self, url: str) -> tuple[int, str, bytes]:
        """Return status, type and bytes of what a signed URL leads to; no key is sent."""
        path = url[url.index("/files/") :]
        answer, _ = self.core.handle(Call("GET", path, {}))
        return answer.status, answer.headers["Content-Type"], answer.body()
