"""An HTTP request as data, and its route: kind, dialect, generation."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

Dialect = Literal["vidu-native", "ent-v2"]
NATIVE: Final[Dialect] = "vidu-native"
ENT: Final[Dialect] = "ent-v2"

Kind = Literal[
    "create", "query", "cancel", "list", "credits", "subject", "upload", "content", "file", "control", "other"
]
#: The kinds that a fault rule may match; the control API itself never fails on demand.
KINDS: Final[tuple[Kind, ...]] = tuple(kind for kind in get_args(Kind) if kind != "control")
Shape = Literal["", "unified", "openai", "new-api", "flat-task", "film", "ad", "announce", "put", "finish"]
"""The form of a route's answers, if its dialect has several."""


@dataclass(frozen=True)
class Call:
    """An HTTP request as data: ``target`` is the raw request target, ``origin`` its scheme and host."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    origin: str = "http://127.0.0.1"

    def header(self, name: str) -> str | None:
        """Return the value of the header ``name`` (lower case), or None."""
        return next((value for key, value in self.headers.items() if key.lower() == name), None)

    def parsed(self) -> Any:
        """Return the body as JSON, as text if it is not JSON, or None if it is empty."""
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return self.body.decode("utf-8", "replace")


@dataclass(frozen=True)
class Route:
    """The destination of a request: its ``kind``, dialect, and decoded ``id`` (or file ``token``)."""

    kind: Kind
    dialect: Dialect | None = None
    id: str | None = None
    endpoint: str = ""
    artifact: str = ""
    token: str = ""
    allowed: tuple[str, ...] = ("GET",)
    shape: Shape = ""


def split_target(target: str) -> tuple[str, str]:
    """Return raw path and raw query of a request target; one meant for a proxy may be absolute."""
    if not target.startswith("/"):
        _, _, rest = target.partition("://")
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("?")
    return path, query
