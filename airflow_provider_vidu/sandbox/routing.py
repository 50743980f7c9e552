"""Maps a raw path to its API and the generation that it names.

Paths are matched raw, because an id may hold ``:``, ``^``, ``%2F`` or other escapes that decoding loses.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote

from airflow_provider_vidu.sandbox.messages.calls import ENT, NATIVE, Route, Shape
from airflow_provider_vidu.sandbox.official.endpoints import CREATES

_ENDPOINTS = "|".join(re.escape(name) for name in CREATES)
_NATIVE = re.compile(r".*/vidu-native/video/generations(?:/([^/]+))?/?")
_UNIFIED = re.compile(r".*/v1/video/(create|query)/?")
_OPENAI = re.compile(r".*/v1/videos(?:/([^/]+)(/content)?)?/?")
_NEW_API = re.compile(r".*/v1/video/generations(?:/([^/]+))?/?")
_ENT = re.compile(rf".*/ent/v2/(?:({_ENDPOINTS})|(tasks?)/([^/]+)/(creations|cancel)|(tasks|credits))/?")
_FILM = re.compile(r".*/ent/v2/one-click/mv/([^/]+)(?:/(edit|compose))?/?")
_AD = re.compile(r".*/ent/v2/ad-one-click/(?:(edit|compose)|([^/]+))/?")
_SUBJECT = re.compile(r".*/ent/v2/subjects(?:/([^/]+))?/?")
_UPLOAD = re.compile(r".*/tools/v2/files/uploads(?:/([^/]+)/finish)?/?")
_PUT = re.compile(r"/uploads/([^/]+)")
_FILE = re.compile(r"/files/([0-9a-f]+)(?:-(image|watermarked|speech|sound))?\.(mp4|png|mp3)")
_POST = ("POST",)


def route(method: str, path: str, query: str = "") -> Route:
    """Return the route of ``method`` and raw ``path``; kind ``other`` for an unknown path."""
    if path.startswith("/_sandbox/"):
        return Route("control", endpoint=path[len("/_sandbox/") :].rstrip("/"))
    if match := _FILE.fullmatch(path):
        part = {None: "cover" if match[3] == "png" else "video", "image": "video"}.get(match[2], match[2])
        return Route("file", artifact=part, token=match[1])
    return _gateway_route(path, query) or _official_route(method, path) or Route("other", allowed=(method,))


def _gateway_route(path: str, query: str) -> Route | None:
    if match := _NATIVE.fullmatch(path):
        return _create_or_query(match[1], "")
    if match := _UNIFIED.fullmatch(path):
        if match[1] == "create":
            return Route("create", NATIVE, allowed=_POST, shape="unified")
        # Here the id is a query parameter, with the decoding of queries.
        wanted = parse_qs(query, errors="surrogateescape").get("id", [""])[0]
        return Route("query", NATIVE, wanted, shape="unified")
    if match := _OPENAI.fullmatch(path):
        if match[2]:
            return Route("content", NATIVE, _decoded(match[1]), allowed=("GET", "HEAD"), shape="openai")
        return _create_or_query(match[1], "openai")
    if match := _NEW_API.fullmatch(path):
        return _create_or_query(match[1], "new-api")
    return None


def _create_or_query(raw_id: str | None, shape: Shape) -> Route:
    if raw_id is None:
        return Route("create", NATIVE, allowed=_POST, shape=shape)
    return Route("query", NATIVE, _decoded(raw_id), shape=shape)


def _official_route(method: str, path: str) -> Route | None:
    if (match := _SUBJECT.fullmatch(path)) and (method in ("GET", "PUT") or match[1]):
        subject = None if match[1] is None else _decoded(match[1])
        return Route("subject", ENT, subject, allowed=("GET", "PUT"))
    if match := _ENT.fullmatch(path):
        return _task_route(match)
    if match := _FILM.fullmatch(path):
        if match[2]:
            return Route("create", ENT, _decoded(match[1]), f"one-click/mv/{match[2]}", allowed=_POST, shape="film")
        return Route("query", ENT, _decoded(match[1]), shape="film")
    if match := _AD.fullmatch(path):
        if match[1]:
            return Route("create", ENT, endpoint=f"ad-one-click/{match[1]}", allowed=_POST)
        return Route("query", ENT, _decoded(match[2]), shape="ad")
    if match := _UPLOAD.fullmatch(path):
        if match[1]:
            return Route("upload", ENT, token=match[1], allowed=("PUT",), shape="finish")
        return Route("upload", ENT, allowed=_POST, shape="announce")
    if match := _PUT.fullmatch(path):
        return Route("upload", ENT, token=match[1], allowed=("PUT",), shape="put")
    return None


def _task_route(match: re.Match[str]) -> Route:
    endpoint, tasks, task_id, action, collection = match.groups()
    if endpoint:
        return Route("create", ENT, endpoint=endpoint, allowed=_POST)
    if action == "creations":
        return Route("query", ENT, _decoded(task_id), shape="flat-task" if tasks == "task" else "")
    if action == "cancel":
        return Route("cancel", ENT, _decoded(task_id), allowed=_POST)
    return Route("list" if collection == "tasks" else "credits", ENT)


def _decoded(segment: str) -> str:
    return unquote(segment, errors="surrogateescape")
