"""Every fault, as a client meets it."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import time
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_vidu.sandbox import Sandbox

CONNECTION_LOST = (requests.ConnectionError, ConnectionError, http.client.HTTPException)


@pytest.fixture
def url(client) -> str:
    """Return the URL of a finished video."""
    return client.video()


def fault(sandbox: Sandbox, kind: str, times: int | None = 1, skip: int = 0, **action) -> None:
    """Add a rule for one kind of request."""
    sandbox.add_fault({"match": {"kind": kind}, "times": times, "skip": skip, "action": action})


class TestAnswers:
    def test_a_status_replaces_the_answer(self, client, sandbox) -> None:
        """Status, body and headers are as asked, and the request is not performed."""
        fault(sandbox, "create", status=503, body={"error": {"code": "x"}}, headers={"Retry-After": "7"})
        answer = client.call("POST", "/vidu-native/video/generations", json={"prompt": "x"})
        assert (answer.status_code, answer.json()) == (503, {"error": {"code": "x"}})
        assert answer.headers["Retry-After"] == "7"
        assert sandbox.creates == []

    def test_a_create_can_be_performed_and_yet_answered_with_an_error(self, client, sandbox) -> None:
        """With perform the create is billed although the client sees a 504."""
        fault(sandbox, "create", status=504, perform=True)
        assert client.call("POST", "/vidu-native/video/generations", json={}).status_code == 504
        assert len(sandbox.creates) == 1

    def test_a_status_alone_has_an_empty_body(self, client, sandbox) -> None:
        """The rate limiter of the gateways answers so."""
        fault(sandbox, "query", status=429)
        answer = client.call("GET", "/vidu-native/video/generations/x")
        assert (answer.status_code, answer.content) == (429, b"")

    def test_rules_hit_after_skip_and_as_often_as_told(self, client, sandbox) -> None:
        """One request is let through, two are hit, the rest are not."""
        client.video()
        fault(sandbox, "query", times=2, skip=1, status=500)
        path = "/vidu-native/video/generations/done"
        assert [client.call("GET", path).status_code for _ in range(5)] == [200, 500, 500, 200, 200]

    def test_rules_hit_only_what_they_match(self, client, sandbox) -> None:
        """Id and dialect narrow a rule down; no limit means for ever, until the rules are cleared."""
        client.video()
        sandbox.add_generation(id="other")
        sandbox.add_fault({"match": {"id": "other"}, "times": None, "action": {"status": 500}})
        sandbox.add_fault({"match": {"dialect": "ent-v2"}, "times": None, "action": {"status": 500}})
        path = "/vidu-native/video/generations/"
        assert [client.call("GET", path + name).status_code for name in ("done", "other", "other")] == [200, 500, 500]
        sandbox.clear_faults()
        assert client.call("GET", path + "other").status_code == 200

    @pytest.mark.parametrize("garbage", ["html", "truncated-json", "empty"])
    def test_garbage_is_no_json(self, client, sandbox, garbage) -> None:
        """The status stays 200 while the body cannot be parsed."""
        client.video()
        fault(sandbox, "query", garbage=garbage)
        answer = client.call("GET", "/vidu-native/video/generations/done")
        assert answer.status_code == 200
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            answer.json()

    @pytest.mark.parametrize("path", ["/vidu-native/video/generations", "/ent/v2/text2video", "/_sandbox/faults"])
    def test_a_body_that_is_nested_too_deeply(self, sandbox, path) -> None:
        """Is refused like any other that is not a JSON object."""
        scheme = "Token" if "ent" in path else "Bearer"
        headers = {"Authorization": f"{scheme} sandbox-key", "Content-Type": "application/json"}
        told = requests.post(sandbox.url + path, data=b"[" * 100_000, headers=headers, timeout=10)
        assert 400 <= told.status_code < 500

    def test_garbage_can_be_json_of_another_shape(self, client, sandbox) -> None:
        """A list where an object was promised."""
        fault(sandbox, "query", garbage="list")
        assert isinstance(client.call("GET", "/vidu-native/video/generations/x").json(), list)

    def test_garbage_can_be_huge(self, client, sandbox) -> None:
        """A valid answer of millions of bytes."""
        fault(sandbox, "query", garbage="huge", huge_bytes=2_000_000)
        assert len(client.call("GET", "/vidu-native/video/generations/x").json()["padding"]) == 2_000_000

    def test_a_preset_can_answer_anything(self, client, sandbox) -> None:
        """The override is sent as it is, even null."""
        for answer in (None, [], {"code": "success", "data": {"status": "SUCCESS"}}, "text"):
            sandbox.add_generation(id="odd", answer=answer)
            assert client.query("odd") == answer

    def test_a_redirect_leads_elsewhere(self, client, sandbox) -> None:
        """302 with the location given."""
        fault(sandbox, "query", redirect="http://127.0.0.1:9/away")
        answer = client.call("GET", "/vidu-native/video/generations/x", allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (302, "http://127.0.0.1:9/away")

    def test_a_content_type_can_be_wrong(self, fetch, sandbox, url) -> None:
        """The bytes stay, the label changes."""
        fault(sandbox, "file", content_type="text/html")
        reply = fetch(url)
        assert (reply.headers["content-type"], reply.body) == ("text/html", sandbox.file_bytes("done"))

    @pytest.mark.parametrize(
        "rule",
        [
            {},
            {"action": {"stauts": 500}},
            {"match": {"kind": "qeury"}, "action": {}},
            {"match": {"what": 1}, "action": {}},
            {"action": {"garbage": "soup"}},
            {"action": {"delay": -1}},
            {"action": {"status": "500"}},
            {"times": -1, "action": {}},
            {"rule": 1},
        ],
    )
    def test_a_rule_that_is_not_understood_is_refused(self, sandbox, rule) -> None:
        """A test with a misspelt fault fails rather than passes."""
        with pytest.raises(ValueError, match=r"must|unknown"):
            sandbox.add_fault(rule)


class TestTiming:
    def test_a_delay_comes_before_the_headers(self, client, sandbox) -> None:
        """The client's time-out strikes, and the create was performed."""
        fault(sandbox, "create", delay=30)
        with pytest.raises(requests.ReadTimeout):
            requests.post(
                sandbox.url + "/vidu-native/video/generations",
                json={},
                headers={"Authorization": f"Bearer {sandbox.key}"},
                timeout=0.2,
            )
        assert len(sandbox.creates) == 1

    def test_a_stall_comes_inside_the_body(self, fetch, sandbox, url) -> None:
        """The headers and the first half arrive, then silence, then the rest."""
        fault(sandbox, "file", stall=0.2)
        start = time.monotonic()
        assert fetch(url).body == sandbox.file_bytes("done")
        assert time.monotonic() - start >= 0.2

    def test_a_trickle_limits_the_rate(self, fetch, sandbox, url) -> None:
        """About 100 kB at 300 kB/s take about a third of a second."""
        fault(sandbox, "file", trickle=300_000)
        start = time.monotonic()
        assert fetch(url).body == sandbox.file_bytes("done")
        assert time.monotonic() - start >= 0.2


class TestCutConnections:
    @pytest.mark.parametrize("fin", [False, True])
    @pytest.mark.parametrize("moment", ["before", "headers", "body"])
    def test_a_connection_can_be_cut_at_any_moment(self, fetch, sandbox, url, moment, fin) -> None:
        """Before the answer, after the headers, or in the body; by a reset or an orderly close."""
        fault(sandbox, "file", reset=moment, fin=fin)
        with pytest.raises(CONNECTION_LOST):
            fetch(url)
        assert fetch(url).status == 200
        assert sandbox.requests("file")[0].status == (0 if moment == "before" else 200)

    @pytest.mark.parametrize(("after", "share"), [(0.25, 0.25), (1000, None)])
    def test_the_body_is_cut_exactly_where_asked(self, sandbox, url, after, share) -> None:
        """The client has the bytes before the cut, given as a fraction or a count."""
        fault(sandbox, "file", reset="body", after=after)
        whole = sandbox.file_bytes("done")
        expected = int(len(whole) * share) if share else after
        parts = urlsplit(url)
        got = b""
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
            connection.sendall(f"GET {url[url.index('/files/') :]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            with contextlib.suppress(ConnectionError):
                while data := connection.recv(65_536):
                    got += data
        got = got.partition(b"\r\n\r\n")[2]
        assert got == whole[:expected]

    def test_a_lost_answer_leaves_a_billed_create(self, client, sandbox) -> None:
        """The connection is cut, the books hold the create."""
        fault(sandbox, "create", lose_answer=True)
        with pytest.raises(requests.ConnectionError):
            client.create()
        assert [(record.charge, record.answered) for record in sandbox.creates] == [("charged", False)]

    def test_a_create_cut_before_is_not_performed(self, client, sandbox) -> None:
        """The client cannot tell the difference, the books can."""
        fault(sandbox, "create", reset="before")
        with pytest.raises(requests.ConnectionError):
            client.create()
        assert sandbox.creates == []


class TestFiles:
    def test_an_expired_url_answers_like_a_store(self, fetch, sandbox, url) -> None:
        """403 with an XML body, once."""
        fault(sandbox, "file", expire=True)
        reply = fetch(url)
        assert (reply.status, b"AccessDenied" in reply.body) == (403, True)
        assert fetch(url).status == 200

    def test_fewer_bytes_than_announced(self, fetch, sandbox, url) -> None:
        """The connection ends early."""
        fault(sandbox, "file", content_length=10)
        with pytest.raises(http.client.IncompleteRead):
            fetch(url)

    def test_fewer_bytes_announced_than_there_are(self, fetch, sandbox, url) -> None:
        """The client sees a file that is too short."""
        fault(sandbox, "file", content_length=-10)
        assert fetch(url).body == sandbox.file_bytes("done")[:-10]

    def test_chunked_has_no_length(self, fetch, sandbox, url) -> None:
        """The bytes are the same without Content-Length."""
        fault(sandbox, "file", chunked=True)
        reply = fetch(url)
        assert "content-length" not in reply.headers
        assert reply.body == sandbox.file_bytes("done")

    def test_gzip_packs_what_nobody_asked_to_pack(self, fetch, sandbox, url) -> None:
        """Content-Encoding gzip, and the unpacked bytes are the file."""
        fault(sandbox, "file", gzip=True)
        reply = fetch(url)
        assert reply.headers["content-encoding"] == "gzip"
        assert gzip.decompress(reply.body) == sandbox.file_bytes("done")

    @pytest.mark.parametrize(("kind", "status", "start"), [("ignore", 200, 0), ("wrong", 206, 99), ("416", 416, None)])
    def test_ranges_can_be_handled_badly(self, fetch, sandbox, url, kind, status, start) -> None:
        """Ignored, answered with another part, or refused."""
        fault(sandbox, "file", range=kind)
        reply = fetch(url, Range="bytes=100-")
        assert reply.status == status
        assert reply.body == (b"" if start is None else sandbox.file_bytes("done")[start:])

    def test_validators_can_be_missing_weak_or_changing(self, fetch, sandbox, url) -> None:
        """none, weak and change, each for one request."""
        tags = []
        for kind in ("none", "weak", "change", "change"):
            fault(sandbox, "file", etag=kind)
            tags.append(fetch(url).headers.get("etag"))
        assert tags[0] is None
        assert tags[1].startswith('W/"')
        assert tags[2] != tags[3]
