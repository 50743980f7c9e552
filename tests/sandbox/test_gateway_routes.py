"""The other routes that users hold keys for: each is created, queried and refused in its own shape."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.sandbox.service import Service

ORDER = {"model": "TC-Vidu", "prompt": "a cat"}
NATIVE = "/vidu-native/video/generations"


def made(service: Service, path: str, prompt: str = "a cat") -> str:
    """Create on a route and return the id, wherever the answer has it."""
    status, body = service.gateway("POST", path, {**ORDER, "prompt": prompt})
    assert status == 200, body
    return body.get("id") or body["task_id"]


class TestUnified:
    def test_the_id_is_a_parameter_of_the_query(self, service) -> None:
        """GET /v1/video/query?id=…, with an id that holds what a query must escape."""
        name = made(service, "/v1/video/create")
        assert ":" in name
        query = f"/v1/video/query?id={quote(name, safe='')}"
        assert service.gateway("GET", query)[1]["status"] == "pending"
        service.core.clock.advance(100)
        body = service.gateway("GET", query)[1]
        assert (body["id"], body["status"]) == (name, "completed")
        assert service.fetch(body["video_url"])[:2] == (200, "video/mp4")
        assert service.gateway("GET", "/v1/video/query?id=x")[1]["code"] == "task_not_exist"
        assert service.gateway("GET", "/v1/video/query")[0] == 400

    def test_a_prefix_is_kept(self, service) -> None:
        """The same routes below any path."""
        name = made(service, "/a/b/v1/video/create")
        assert service.gateway("GET", f"/a/b/v1/video/query?id={name}")[0] == 200


class TestOpenAI:
    def test_the_url_is_in_the_metadata(self, service) -> None:
        """queued, in_progress, completed; metadata.url."""
        name = made(service, "/v1/videos")
        path, states = f"/v1/videos/{name}", []
        for _ in range(3):
            body = service.gateway("GET", path)[1]
            states.append(body["status"])
            service.core.clock.advance(12)
        assert states == ["queued", "in_progress", "completed"]
        assert (body["object"], body["model"], body["progress"]) == ("video", "TC-Vidu", 100)
        assert service.fetch(body["metadata"]["url"])[:2] == (200, "video/mp4")

    def test_a_failure_has_an_error_object(self, service) -> None:
        """Message and code, and no metadata."""
        name = made(service, "/v1/videos", "[fail:CreationPolicyViolation]")
        service.core.clock.advance(100)
        body = service.gateway("GET", f"/v1/videos/{name}")[1]
        assert (body["status"], body["error"]["code"]) == ("failed", "CreationPolicyViolation")
        assert "metadata" not in body

    def test_the_content_endpoint_needs_the_key(self) -> None:
        """The URL may lead to it; it serves the bytes once they are there, to those who have the key."""
        service = Service(openai_url="content")
        name = made(service, "/p/v1/videos")
        path = f"/p/v1/videos/{name}"
        assert service.gateway("GET", f"{path}/content")[0] == 400
        service.core.clock.advance(100)
        url = service.gateway("GET", path)[1]["metadata"]["url"]
        assert url == f"http://127.0.0.1{path}/content"
        status, video = service.gateway("GET", f"{path}/content")
        assert (status, video[4:8]) == (200, b"ftyp")
        assert service.call("GET", f"{path}/content", Authorization="")[0] == 401
        assert [r.kind for r in service.core.ledger.requests].count("content") == 3


class TestNewApi:
    @pytest.mark.parametrize("field", ["result_url", "fail_reason"])
    def test_both_ages(self, field) -> None:
        """The URL of a success is in result_url, or in fail_reason where the gateway is older."""
        service = Service(new_api_url=field)
        name = made(service, "/v1/video/generations")
        path = f"/v1/video/generations/{name}"
        assert service.gateway("GET", path)[1]["data"]["status"] == "QUEUED"
        service.core.clock.advance(100)
        body = service.gateway("GET", path)[1]
        data = body["data"]
        assert (body["code"], data["status"], data["progress"]) == ("success", "SUCCESS", "100%")
        assert service.fetch(data[field])[:2] == (200, "video/mp4")
        assert data["fail_reason"] == "" or field == "fail_reason"
        assert ("result_url" in data) == (field == "result_url")
        inner = data["data"]
        assert (inner["state"], inner["credits"]) == ("success", 80)
        assert service.fetch(inner["creations"][0]["cover_url"])[:2] == (200, "image/png")

    @pytest.mark.parametrize("field", ["result_url", "fail_reason"])
    def test_a_failure_has_a_reason(self, field) -> None:
        """In fail_reason, at both ages."""
        service = Service(new_api_url=field)
        name = made(service, "/v1/video/generations", "[fail]")
        service.core.clock.advance(100)
        data = service.gateway("GET", f"/v1/video/generations/{name}")[1]["data"]
        assert (data["status"], bool(data["fail_reason"]), data["data"]["state"]) == ("FAILURE", True, "failed")


class TestShapes:
    def test_the_singular_path_answers_flat(self, service) -> None:
        """/vidu/ent/v2/task/{id}/creations: status and video_url, with Bearer."""
        task = service.task()
        path = f"/vidu/ent/v2/task/{task}/creations"
        assert service.gateway("GET", path)[1]["status"] == "created"
        service.core.clock.advance(100)
        body = service.gateway("GET", path)[1]
        assert (body["id"], body["status"], "state" in body) == (task, "success", False)
        assert service.fetch(body["video_url"])[0] == 200

    @pytest.mark.parametrize("shape", ["flat", "wrapped", "official"])
    def test_bodies_under_the_native_path(self, shape) -> None:
        """Flat as documented, wrapped, or the official body."""
        service = Service(native_shape=shape)
        name = made(service, NATIVE)
        path = f"{NATIVE}/{quote(name, safe='')}"
        first = service.gateway("GET", path)[1]
        service.core.clock.advance(100)
        body = service.gateway("GET", path)[1]
        url = {
            "flat": lambda: body["video_url"],
            "wrapped": lambda: body["data"]["result_url"],
            "official": lambda: body["creations"][0]["url"],
        }[shape]()
        assert service.fetch(url)[:2] == (200, "video/mp4")
        words = {"flat": "pending", "wrapped": "pending", "official": "queueing"}
        assert {"wrapped": first.get("data", {}).get("status"), "official": first.get("state")}.get(
            shape, first.get("status")
        ) == words[shape]


class TestKeys:
    @pytest.mark.parametrize("path", ["/v1/video/query?id=x", "/v1/videos/x", "/v1/video/generations/x"])
    def test_a_key_may_come_without_a_scheme(self, service, path) -> None:
        """The software behind these routes cuts off "Bearer " where it comes."""
        key = service.settings.keys[0]
        for header, status in ((key, 400), (f"Bearer {key}", 400), ("other", 401), (f"Basic {key}", 401)):
            assert service.call("GET", path, Authorization=header)[0] == status

    @pytest.mark.parametrize(("bare_keys", "status"), [(False, 401), (True, 200)])
    def test_other_paths_take_them_when_told(self, bare_keys, status) -> None:
        """A reseller may do so under any path."""
        service = Service(bare_keys=bare_keys)
        assert service.call("GET", "/ent/v2/credits", Authorization=service.settings.keys[0])[0] == status
