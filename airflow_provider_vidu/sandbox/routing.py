"""Which of the two APIs a raw path belongs to, and which generation it names.

Only the raw path tells: an id may hold ``:``, ``^``, ``%2F`` or other escapes that a decoded path has lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from airflow_provider_vidu.sandbox.generations import ENT, NATIVE, Dialect

Kind = Literal["create", "query", "cancel", "list", "credits", "file", "control", "other"]
#: What a fault rule may be about; the control API itself never fails on demand.
KINDS: tuple[Kind, ...] = ("create", "query", "cancel", "list", "credits", "file", "other")

_ENDPOINTS = "text2video|img2video|start-end2video|reference2video|multiframe|extend|template"
_NATIVE = re.compile(r".*/vidu-native/video/generations(?:/([^/]+))?/?")
_ENT = re.compile(
    rf".*/ent/v2/(?:({_ENDPOINTS})|tasks?/([^/]+)/(creations|cancel)|(tasks|credits))/?",
)
_FILE = re.compile(r"/files/([0-9a-f]+)(?:-(watermarked))?\.(mp4|png|jpg)")


@dataclass(frozen=True)
class Route:
    """Where a request goes: what ``kind`` it is, in which dialect, for which decoded ``id`` (or file ``token``)."""

    kind: Kind
    dialect: Dialect | None = None
    id: str | None = None
    endpoint: str = ""
    artifact: str = ""
    token: str = ""
    allowed: str = "GET"


def split_target(target: str) -> tuple[str, str]:
    """Return the raw path and the raw query of a request target, which may be absolute when a proxy was meant."""
    if not target.startswith("/"):
        _, _, rest = target.partition("://")
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("?")
    return path, query


def route(method: str, path: str) -> Route:
    """Return the route of ``method`` and raw ``path``; kind ``other`` when the sandbox knows no such path."""
    if path.startswith("/_sandbox/"):
        return Route("control", endpoint=path[len("/_sandbox/") :].rstrip("/"))
    if match := _FILE.fullmatch(path):
        artifact = (match[2] or "video") if match[3] == "mp4" else "cover"
        return Route("file", artifact=artifact, token=match[1])
    if match := _NATIVE.fullmatch(path):
        if match[1] is None:
            return Route("create", NATIVE, allowed="POST")
        return Route("query", NATIVE, _decoded(match[1]))
    if match := _ENT.fullmatch(path):
        return _ent_route(match)
    return Route("other", allowed=method)


def _ent_route(match: re.Match[str]) -> Route:
    endpoint, task_id, action, collection = match.groups()
    if endpoint:
        return Route("create", ENT, endpoint=endpoint, allowed="POST")
    if action == "creations":
        return Route("query", ENT, _decoded(task_id))
    if action == "cancel":
        return Route("cancel", ENT, _decoded(task_id), allowed="POST")
    return Route("list" if collection == "tasks" else "credits", ENT)


def _decoded(segment: str) -> str:
    return unquote(segment, errors="surrogateescape")
