"""Downloads over real sockets: signatures, ranges, validators, and whether the key came along."""

from __future__ import annotations

import pytest


@pytest.fixture
def url(client) -> str:
    """Return the URL of a finished video."""
    return client.video()


def test_a_verbatim_request_gets_the_file(sandbox, fetch, url) -> None:
    """Length, type, validators and bytes are those of the file."""
    reply = fetch(url)
    assert reply.body == sandbox.file_bytes("done")
    assert reply.status == 200
    assert reply.headers["content-type"] == "video/mp4"
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["etag"].startswith('"')


def test_a_repaired_url_is_refused_with_xml(fetch, url) -> None:
    """Unquoting what was quoted gives a 403 as from S3."""
    reply = fetch(url.replace("%7E", "~"))
    assert (reply.status, reply.headers["content-type"]) == (403, "application/xml")
    assert b"SignatureDoesNotMatch" in reply.body


def test_a_url_expires_and_a_query_renews_it(sandbox, client, fetch, url) -> None:
    """After its life time it gives 403; asking again yields one that works."""
    sandbox.advance(86_401)
    assert fetch(url).status == 403
    assert fetch(client.query("done")["video_url"]).status == 200


def test_every_signature_is_remembered(sandbox, client, url) -> None:
    """Each query hands out new ones, and the sandbox can tell which, for one generation and for all."""
    first = sandbox.issued_signatures("done")
    again = client.query("done")["video_url"]
    found = sandbox.issued_signatures("done")
    assert url.rpartition("Signature=")[2] in first
    assert again.rpartition("Signature=")[2] in found - first
    assert sandbox.issued_signatures() == found
    assert sandbox.issued_signatures("other") == set()


def test_an_unknown_file_is_a_404(sandbox, fetch) -> None:
    """A file that never existed gets another answer than one that expired."""
    assert fetch(f"{sandbox.url}/files/{'0' * 32}.mp4?a=b").status == 404


def test_head_has_the_headers_and_no_body(sandbox, fetch, url) -> None:
    """Content-Length is that of the file."""
    reply = fetch(url, "HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["content-length"] == str(len(sandbox.file_bytes("done")))


def test_a_part_can_be_fetched_when_the_validator_matches(sandbox, fetch, url) -> None:
    """206 with the right part, and the whole file when If-Range names another ETag."""
    whole, etag = sandbox.file_bytes("done"), fetch(url, "HEAD").headers["etag"]
    part = fetch(url, Range="bytes=1000-", If_Range=etag)
    assert (part.status, part.body) == (206, whole[1000:])
    assert part.headers["content-range"] == f"bytes 1000-{len(whole) - 1}/{len(whole)}"
    changed = fetch(url, Range="bytes=1000-", If_Range='"other"')
    assert (changed.status, changed.body) == (200, whole)


def test_a_range_beyond_the_end_is_a_416(sandbox, fetch, url) -> None:
    """The answer tells the true size."""
    reply = fetch(url, Range="bytes=99999999-")
    assert (reply.status, reply.body) == (416, b"")
    assert reply.headers["content-range"] == f"bytes */{len(sandbox.file_bytes('done'))}"


def test_the_cover_is_an_image(client, sandbox, fetch, url) -> None:
    """The thumbnail is a PNG and served as one."""
    reply = fetch(client.query("done")["thumbnail_url"])
    assert (reply.headers["content-type"], reply.body) == ("image/png", sandbox.file_bytes("done", "cover"))


def test_the_watermarked_video_is_another_file(client, sandbox, fetch) -> None:
    """ent-v2 hands it out when it was asked for."""
    sandbox.add_generation(id="7", dialect="ent-v2", states=[["success", 0]], watermark=True, creations=2)
    creations = client.ent("GET", "tasks/7/creations").json()["creations"]
    marked = fetch(creations[0]["watermarked_url"]).body
    assert marked == sandbox.file_bytes("7", "watermarked")
    bodies = {marked, *(fetch(creation["url"]).body for creation in creations)}
    assert len(bodies) == 3


def test_a_video_can_have_any_size(client, sandbox, fetch) -> None:
    """A padded file has exactly the bytes asked for, also by parts."""
    url = client.video(size=3_000_000)
    whole = fetch(url).body
    assert len(whole) == 3_000_000
    assert fetch(url, Range="bytes=2999990-").body == whole[-10:]
    assert whole == sandbox.file_bytes("done")


def test_the_end_of_a_huge_file_costs_nothing(client, fetch) -> None:
    """Five gigabytes are announced, and their last bytes come at once."""
    url = client.video(size=5 * 2**30)
    assert fetch(url, "HEAD").headers["content-length"] == str(5 * 2**30)
    assert len(fetch(url, Range="bytes=-100").body) == 100


def test_files_need_no_key_but_notice_one(sandbox, fetch, url) -> None:
    """The books tell a download with an Authorization header, or with the key in any header, from one without."""
    fetch(url)
    fetch(url, Authorization="Bearer other")
    fetch(url, X_Api=f"key={sandbox.key}", Range="bytes=0-1")
    entries = sandbox.ledger["files"]
    assert [entry["authorization"] for entry in entries] == [False, True, False]
    assert [entry["key_sent"] for entry in entries] == [False, False, True]
    assert [entry["range"] for entry in entries] == [None, None, "bytes=0-1"]
    assert {entry["id"] for entry in entries} == {"done"}
