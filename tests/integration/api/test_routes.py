"""Every route of the manual: its connection, taken from the page, against a server that answers as that route does."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.models import Generation
from tests.integration.servers import Request, Server, Wire, fixed

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[3] / "docs" / "routes.md"
URL = "https://cdn.example.com/out/v.mp4?sig=a%2Fb~;c"
COVER = "https://cdn.example.com/out/v.jpg"
GATEWAY_ID = "veo3.1:1770-x/y z^^0"
ENCODED = "veo3.1%3A1770-x%2Fy%20z%5E%5E0"
OFFICIAL_ID = "911088422699962368"


@dataclass(frozen=True)
class Route:
    """What a recipe sends, and what its service answers.

    :param create: the path of the create.
    :param query: the target of the query.
    :param authorization: the header that carries the key ``{}``.
    :param id: the generation.
    :param created: the body of the answer to the create.
    :param done: the body of the answer to the query.
    :param host: scheme and host of the recipe, or None where it has none.
    """

    create: str
    query: str
    authorization: str
    id: str
    created: dict[str, Any]
    done: dict[str, Any]
    host: str | None = "https://gateway.example.com"


OFFICIAL: dict[str, Any] = {
    "created": {
        "task_id": OFFICIAL_ID, "state": "created", "credits": 80, "created_at": "2026-01-20T06:52:02.323137590Z",
    },
    "done": {
        "id": OFFICIAL_ID, "state": "success", "err_code": "", "credits": 80, "payload": "",
        "creations": [{"id": "1", "url": URL, "cover_url": COVER, "watermarked_url": ""}],
    },
    "id": OFFICIAL_ID,
}  # fmt: skip
FLAT: dict[str, Any] = {
    "created": {"id": GATEWAY_ID, "status": "pending", "status_update_time": 1762241017286},
    "done": {"id": "x", "status": "completed", "video_url": URL, "status_update_time": 1774494622},
    "id": GATEWAY_ID,
}

ROUTES = {
    "Official API, global": Route(
        "/ent/v2/text2video", f"/ent/v2/tasks/{OFFICIAL_ID}/creations", "Token {}", host=None, **OFFICIAL
    ),
    "Official API, China": Route(
        "/ent/v2/text2video", f"/ent/v2/tasks/{OFFICIAL_ID}/creations", "Token {}",
        host="https://api.vidu.cn", **OFFICIAL,
    ),
    "Gateway, vidu-native": Route(
        "/vidu-native/video/generations", f"/vidu-native/video/generations/{ENCODED}", "Bearer {}", **FLAT
    ),
    "Unified video API": Route("/v1/video/create", f"/v1/video/query?id={ENCODED}", "Bearer {}", **FLAT),
    "OpenAI video API": Route(
        "/v1/videos", "/v1/videos/task_a", "Bearer {}", "task_a",
        {"id": "task_a", "task_id": "task_a", "object": "video", "model": "viduq2", "status": "queued", "progress": 0},
        {"id": "task_a", "object": "video", "status": "completed", "progress": 100, "metadata": {"url": URL}},
    ),
    "new-api": Route(
        "/v1/video/generations", "/v1/video/generations/task_a", "Bearer {}", "task_a", {"task_id": "task_a"},
        {
            "code": "success", "message": "",
            "data": {
                "task_id": "task_a", "status": "SUCCESS", "fail_reason": "", "result_url": URL, "progress": "100%",
                "data": {"state": "success", "credits": 80, "creations": [{"url": URL, "cover_url": COVER}]},
            },
        },
    ),
    "new-api, older": Route(
        "/v1/video/generations", "/v1/video/generations/task_a", "Bearer {}", "task_a", {"task_id": "task_a"},
        {
            "code": "success", "message": "",
            "data": {"task_id": "task_a", "status": "SUCCESS", "fail_reason": URL, "progress": "100%"},
        },
    ),
    "Official API behind a prefix": Route(
        "/vidu/ent/v2/text2video", f"/vidu/ent/v2/tasks/{OFFICIAL_ID}/creations", "Bearer {}",
        host="https://reseller.example.com", **OFFICIAL,
    ),
    "Singular task path": Route(
        "/vidu/ent/v2/text2video", f"/vidu/ent/v2/task/{OFFICIAL_ID}/creations", "Bearer {}",
        host="https://reseller.example.com",
        **{**OFFICIAL, "done": {"id": OFFICIAL_ID, "status": "success", "video_url": URL}},
    ),
    "Official answers under another path": Route(
        "/proxy/vidu-native/video/generations", f"/proxy/vidu-native/video/generations/{OFFICIAL_ID}", "Bearer {}",
        **OFFICIAL,
    ),
    "A key without a scheme": Route(
        "/vidu-native/video/generations", f"/vidu-native/video/generations/{ENCODED}", "{}", **FLAT
    ),
}  # fmt: skip


def recipes() -> dict[str, dict[str, Any]]:
    """Return the page's connections by the headings above them."""
    found = {}
    for section in re.split(r"(?m)^## ", PAGE.read_text("utf-8"))[1:]:
        if block := re.search(r"```json\n(.*?)```", section, re.DOTALL):
            found[section.partition("\n")[0]] = json.loads(block[1])
    return found


def test_every_recipe_has_a_route() -> None:
    """The page and the table name the same routes, and the page's overview leads to each."""
    assert {name.partition(", older")[0] for name in ROUTES} == set(recipes())
    overview = PAGE.read_text("utf-8").partition("\n## ")[0]
    assert set(re.findall(r"\[([^\]]+)\]\(#", overview)) == set(recipes())


def serve(route: Route) -> Any:
    """Return what answers the route's create and its query, and nothing else."""

    def answer(request: Request, wire: Wire) -> None:
        missing = int(request.headers.get("content-length", 0)) - len(request.body)
        while missing > 0:  # a connection that is closed on unread bytes ends in a reset
            missing -= len(wire.sock.recv(65536))
        known = {("POST", route.create): route.created, ("GET", route.query): route.done}
        body = known.get((request.method, request.target))
        told = {"code": "not_found", "message": request.line, "data": None} if body is None else body
        fixed(404 if body is None else 200, json.dumps(told).encode(), Content_Type="application/json")(request, wire)

    return answer


@pytest.mark.parametrize("client", ["sync", "async"])
@pytest.mark.parametrize("name", ROUTES)
def test_a_route(monkeypatch, name: str, client: str) -> None:
    """A create, a query and the URL of the result: over the recipe's paths, with its header."""
    route, recipe = ROUTES[name], recipes()[name.partition(", older")[0]]
    stated = urlsplit(recipe.get("host", ""))
    assert (f"{stated.scheme}://{stated.netloc}" if stated.netloc else None) == route.host
    with Server(serve(route)) as server:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(recipe | {"host": f"{server.url('')}{stated.path}"}))
        hook = ViduHook()
        created = hook.create_generation(model="viduq2", prompt="a cat")
        assert (created.id, created.succeeded, created.failed) == (route.id, False, False)
        found: Generation = (
            hook.get_generation(created.id, retries=0)
            if client == "sync"
            else asyncio.run(hook.aget_generation(created.id, retries=0))
        )
    assert (found.id, found.succeeded, found.video_url) == (route.id, True, URL)
    assert [request.target for request in server.requests] == [route.create, route.query]
    sent = {request.headers["authorization"] for request in server.requests}
    assert sent == {route.authorization.format(recipe["password"])}
