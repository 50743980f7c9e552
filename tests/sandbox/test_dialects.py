"""Both dialects over real sockets, held against answers recorded from the real services."""

from __future__ import annotations

import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import pytest
import requests

from airflow_provider_vidu.sandbox import Sandbox

CREATED = {
    *("task_id", "type", "state", "model", "style", "prompt", "images", "duration", "seed", "aspect_ratio"),
    *("resolution", "movement_amplitude", "created_at", "credits", "payload", "cus_priority", "off_peak"),
    *("watermark", "is_rec", "wm_position", "wm_url", "meta_data", "client_request_id"),
}
QUERIED = {"id", "state", "err_code", "credits", "payload", "bgm", "off_peak", "creations"}
CREATION = {"id", "url", "cover_url", "watermarked_url", "video"}
TWO_IMAGES = ["https://example.com/a.png", "https://example.com/b.png"]


class TestNative:
    def test_a_create_answers_with_a_pending_generation(self, client) -> None:
        """The id holds a colon, the time has 13 digits."""
        body = client.call("POST", "/vidu-native/video/generations", json={"model": "TC-Vidu", "prompt": "x"}).json()
        assert set(body) == {"id", "status", "status_update_time"}
        assert ":" in body["id"]
        assert body["status"] == "pending"
        assert len(str(body["status_update_time"])) == 13

    def test_a_query_follows_the_generation_to_its_url(self, client, sandbox) -> None:
        """video_url stays null until the generation is completed."""
        created = client.create("a cat")
        first = client.query(created)
        assert (first["status"], first["video_url"], first["progress"]) == ("pending", None, 0)
        assert isinstance(first["enhanced_prompt"], str)
        sandbox.advance(14)
        middle = client.query(created)
        assert (middle["status"], middle["video_url"], middle["progress"]) == ("processing", None, 50)
        sandbox.advance(10)
        last = client.query(created)
        assert (last["status"], last["progress"], last["error"]) == ("completed", 100, "")
        assert last["video_url"].startswith(sandbox.url + "/files/")
        assert last["created_at"] <= last["completed_at"] <= time.time()
        assert last["thumbnail_url"].split("?")[0].endswith(".png")

    def test_every_query_hands_out_a_fresh_url(self, client, sandbox) -> None:
        """Two queries of a finished generation differ in their URLs."""
        client.video()
        assert client.query("done")["video_url"] != client.query("done")["video_url"]

    @pytest.mark.parametrize("generation_id", ["grok:29-b7", "8^^vidu-2.0^^0", "a/b", "ü ?#%", "a+b"])
    def test_any_id_can_be_asked_for(self, client, sandbox, generation_id) -> None:
        """Percent-encoded ids are matched on the raw path."""
        sandbox.add_generation(id=generation_id)
        assert client.query(generation_id)["id"] == generation_id

    def test_an_unknown_id_is_a_400(self, client) -> None:
        """The gateway says task_not_exist, not 404."""
        answer = client.call("GET", "/vidu-native/video/generations/nope")
        assert answer.status_code == 400
        assert answer.json().keys() == {"code", "message", "data"}
        assert answer.json()["code"] == "task_not_exist"

    @pytest.mark.parametrize("header", [None, "Bearer wrong", "Token sandbox-key", "sandbox-key"])
    def test_a_bad_key_is_a_401(self, sandbox, header) -> None:
        """Missing, wrong and wrongly introduced keys get the gateway's error object."""
        headers = {} if header is None else {"Authorization": header}
        answer = requests.get(sandbox.url + "/vidu-native/video/generations/x", headers=headers, timeout=5)
        assert answer.status_code == 401
        assert answer.json()["error"].keys() == {"message", "type", "code"}

    @pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"text"'])
    def test_a_body_that_is_no_object_is_a_400(self, client, body) -> None:
        """Nothing is created from it."""
        answer = client.call("POST", "/vidu-native/video/generations", data=body)
        assert (answer.status_code, client.sandbox.creates) == (400, [])

    def test_a_failure_gives_code_and_reason(self, client, sandbox) -> None:
        """[fail:CODE] ends in failed with that code and without a URL."""
        created = client.create("[fail:CreationPolicyViolation]")
        sandbox.advance(100)
        body = client.query(created)
        assert (body["status"], body["video_url"]) == ("failed", None)
        assert body["error"]["code"] == "CreationPolicyViolation"
        assert body["fail_reason"]

    def test_a_success_may_lack_its_url(self, client, sandbox) -> None:
        """[nourl] completes with a null URL."""
        created = client.create("[nourl]")
        sandbox.advance(100)
        assert (client.query(created)["status"], client.query(created)["video_url"]) == ("completed", None)

    def test_there_is_no_cancel(self, client) -> None:
        """The gateway is not known to have one."""
        created = client.create()
        assert client.call("POST", f"/vidu-native/video/generations/{quote(created)}/cancel").status_code == 404

    def test_an_exhausted_balance_is_told_by_its_code(self) -> None:
        """403 with insufficient_user_quota, and nothing is created."""
        with Sandbox(balance=79) as poor:
            headers = {"Authorization": f"Bearer {poor.key}"}
            answer = requests.post(
                poor.url + "/vidu-native/video/generations", json={"prompt": "x"}, headers=headers, timeout=5
            )
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "insufficient_user_quota"
            assert poor.creates == []


@pytest.mark.parametrize("speed", [1, 1000])
def test_reported_times_are_on_the_wall_clock(fetch, speed) -> None:
    """At any speed: no time lies in the future, and the end comes after the beginning."""
    began = time.time()
    with Sandbox(speed=speed, queue=0.01, duration=0.02) as sandbox:
        headers = {"Authorization": f"Bearer {sandbox.key}"}
        path = f"{sandbox.url}/vidu-native/video/generations"
        sandbox.advance(5_000)
        name = requests.post(path, json={"prompt": "x"}, headers=headers, timeout=5).json()["id"]
        body: dict = {}
        while body.get("status") != "completed":
            body = requests.get(f"{path}/{quote(name, safe='')}", headers=headers, timeout=5).json()
        task = {"model": "viduq2", "prompt": "x"}
        headers = {"Authorization": f"Token {sandbox.key}"}
        created = requests.post(f"{sandbox.url}/ent/v2/text2video", json=task, headers=headers, timeout=5).json()
        stored = fetch(body["video_url"]).headers["last-modified"]
    ended = time.time()
    assert int(began) <= body["created_at"] <= body["completed_at"] <= ended
    assert began - 1 <= body["status_update_time"] / 1000 <= ended
    assert began - 1 <= datetime.fromisoformat(created["created_at"][:26] + "+00:00").timestamp() <= ended
    assert began - 1 <= parsedate_to_datetime(stored).timestamp() <= ended


class TestEnt:
    def create(self, client, endpoint="text2video", **body) -> requests.Response:
        """Return the answer to a create."""
        return client.ent("POST", endpoint, json={"prompt": "a cat", "model": "viduq1", **body})

    def test_a_create_answers_as_the_service_does(self, client) -> None:
        """Field names, the large decimal id and nine fractional digits match the recording."""
        body = self.create(client, "start-end2video", images=TWO_IMAGES, seed=7, meta_data="{}").json()
        assert set(body) >= CREATED
        assert body["task_id"].isdecimal()
        assert int(body["task_id"]) > 2**53
        assert len(body["created_at"]) == len("2026-01-20T06:52:02.323137590Z")
        assert (body["type"], body["state"], body["credits"]) == ("headtailimg2video", "created", 80)
        assert (body["seed"], body["meta_data"]) == (7, "{}")

    def test_a_query_follows_the_task_to_its_creations(self, client, sandbox) -> None:
        """created, queueing, processing, success; the payload comes back."""
        task = self.create(client, payload="mine", watermark=True).json()["task_id"]
        seen = []
        for _ in range(5):
            body = client.ent("GET", f"tasks/{task}/creations").json()
            assert set(body) >= QUERIED
            seen.append(body["state"])
            sandbox.advance(6)
        assert list(dict.fromkeys(seen)) == ["created", "processing", "success"]
        creation = body["creations"][0]
        assert set(creation) == CREATION
        assert creation["video"].keys() == {"duration", "fps", "resolution"}
        assert creation["watermarked_url"]
        assert (body["payload"], body["progress"], body["err_code"]) == ("mine", 100, "")

    @pytest.mark.parametrize("path", ["/vidu/ent/v2/task/{}/creations", "/a/b/ent/v2/tasks/{}/creations"])
    def test_resellers_keep_the_shape_under_other_prefixes(self, client, path) -> None:
        """A prefix, the singular path and Bearer all work."""
        task = self.create(client).json()["task_id"]
        assert client.call("GET", path.format(task), "Bearer").json()["id"] == task

    def test_a_failed_task_has_only_a_code(self, client, sandbox) -> None:
        """err_code without a text, credits zero, no creations."""
        task = self.create(client, prompt="[fail:CreationPolicyViolation]").json()["task_id"]
        sandbox.advance(100)
        body = client.ent("GET", f"tasks/{task}/creations").json()
        assert set(body) == QUERIED
        assert (body["err_code"], body["credits"], body["creations"]) == ("CreationPolicyViolation", 0, [])

    @pytest.mark.parametrize(
        ("path", "key", "status", "reason"),
        [
            ("tasks/abc/creations", "wrong", 400, "CODEC"),
            ("tasks/123/creations", "wrong", 401, "Unauthorized"),
            ("tasks/123/creations", None, 404, "TaskNotFound"),
        ],
    )
    def test_errors_name_their_reason(self, client, path, key, status, reason) -> None:
        """The path is decoded before the key is checked, and the key before the task is looked up."""
        answer = client.call("GET", f"/ent/v2/{path}", "Token", key)
        body = answer.json()
        assert (answer.status_code, body["code"], body["reason"]) == (status, status, reason)
        assert body["metadata"]["trace_id"]

    @pytest.mark.parametrize(
        ("endpoint", "body", "reason"),
        [
            ("text2video", {"prompt": ""}, "FieldLacking"),
            ("img2video", {}, "FieldLacking"),
            ("img2video", {"images": []}, "FieldItemCountOutOfRange"),
            ("img2video", {"images": TWO_IMAGES}, "FieldItemCountOutOfRange"),
            ("start-end2video", {"images": TWO_IMAGES[:1]}, "FieldItemCountOutOfRange"),
            ("reference2video", {"images": []}, "FieldItemCountOutOfRange"),
            ("reference2video", {"images": TWO_IMAGES * 4}, "FieldItemCountOutOfRange"),
            ("img2video", {"images": "a.png"}, "FieldInvalid"),
            ("text2video", {"payload": 5}, "FieldInvalid"),
        ],
    )
    def test_wrong_requests_are_refused_and_not_charged(self, client, endpoint, body, reason) -> None:
        """400 with the reason of the service's table."""
        answer = self.create(client, endpoint, **body)
        assert (answer.status_code, answer.json()["reason"]) == (400, reason)
        assert client.sandbox.creates == []

    def test_a_waiting_task_can_be_cancelled(self, client, sandbox) -> None:
        """It then has failed with UserCancelled and costs nothing."""
        task = self.create(client).json()["task_id"]
        answer = client.ent("POST", f"tasks/{task}/cancel", json={"id": task})
        assert (answer.status_code, answer.json()) == (200, {})
        body = client.ent("GET", f"tasks/{task}/creations").json()
        assert (body["state"], body["err_code"], body["credits"]) == ("failed", "UserCancelled", 0)
        assert sandbox.creates[0].charge == "cancelled"
        assert sandbox.ledger["balance"] == 100_000

    def test_a_running_task_cannot_be_cancelled(self, client, sandbox) -> None:
        """400 with the sentence of the service, and the task goes on."""
        task = self.create(client).json()["task_id"]
        sandbox.advance(10)
        answer = client.ent("POST", f"tasks/{task}/cancel", json={"id": task})
        assert answer.status_code == 400
        assert answer.json()["message"] == "task state is scheduled, can not cancel"
        sandbox.advance(100)
        assert client.ent("GET", f"tasks/{task}/creations").json()["state"] == "success"

    def test_the_balance_shrinks_until_it_is_used_up(self) -> None:
        """The credits endpoint counts down, then a create is refused with CreditInsufficient."""
        order = {"model": "viduq2", "prompt": "x"}
        with Sandbox(balance=100, speed=0) as poor:
            headers = {"Authorization": f"Token {poor.key}"}
            first, second = (
                requests.post(poor.url + "/ent/v2/text2video", json=order, headers=headers, timeout=5) for _ in range(2)
            )
            assert (first.status_code, second.json()["reason"]) == (200, "CreditInsufficient")
            body = requests.get(poor.url + "/ent/v2/credits", headers=headers, timeout=5).json()
            (left,) = body["remains"]
            assert (left["credit_remain"], left["queue_count"], left["current_concurrency"]) == (20, 1, 0)
            assert left["concurrency_limit"] == 5
            assert body["packages"][0]["credit_remain"] == 20

    def test_a_failure_gives_the_credits_back(self, client, sandbox) -> None:
        """The books show refunded, and the balance is whole again."""
        self.create(client, prompt="[fail]")
        sandbox.advance(100)
        assert sandbox.creates[0].charge == "refunded"
        assert client.ent("GET", "credits").json()["remains"][0]["credit_remain"] == 100_000

    def test_a_wrong_method_is_a_405(self, client) -> None:
        """A create is a POST."""
        assert client.ent("GET", "text2video").status_code == 405
