"""One HTTP request as data, and what it is about: kind, dialect, generation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

Dialect = Literal["vidu-native", "ent-v2"]
NATIVE: Final[Dialect] = "vidu-native"
ENT: Final[Dialect] = "ent-v2"

Kind = Literal[
    "create", "query", "cancel", "list", "credits", "subject", "upload", "content", "file", "control", "other"
]
#: What a fault rule may be about; the control API itself never fails on demand.
KINDS: tuple[Kind, ...] = (
    *("create", "query", "cancel", "list", "credits", "subject", "upload", "content"),
    *("file", "other"),
)
Shape = Literal["", "unified", "openai", "new-api", "flat-task", "film", "ad", "announce", "put", "finish"]
"""In which form a route answers, where one dialect has several."""


@dataclass(frozen=True)
class Call:
    """One HTTP request as data: ``target`` is the raw request target, ``origin`` the scheme and host it came to."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    origin: str = "http://127.0.0.1"

    def header(self, name: str) -> str | None:
        """Return the value of the header ``name``, written in any case, or None."""
        return next((value for key, value in self.headers.items() if key.lower() == name), None)


@dataclass(frozen=True)
class Route:
    """Where a request goes: what ``kind`` it is, in which dialect, for which decoded ``id`` (or file ``token``)."""

    kind: Kind
    dialect: Dialect | None = None
    id: str | None = None
    endpoint: str = ""
    artifact: str = ""
    token: str = ""
    allowed: tuple[str, ...] = ("GET",)
    shape: Shape = ""


def split_target(target: str) -> tuple[str, str]:
    """Return the raw path and the raw query of a request target, which may be absolute when a proxy was meant."""
    if not target.startswith("/"):
        _, _, rest = target.partition("://")
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("?")
    return path, query
