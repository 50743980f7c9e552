"""The upload service: announced, sent, finished, used; and everything out of that order."""

from __future__ import annotations

import hashlib

import pytest

from tests.sandbox.service import PNG, Service

ANNOUNCE = "/tools/v2/files/uploads"


def uploaded(service: Service, data: bytes = PNG) -> str:
    """Upload ``data`` and return its address."""
    _, body = service.call("POST", ANNOUNCE, {"scene": "vidu"})
    assert put(service, body["put_url"], data) == 200
    etag = f'"{hashlib.md5(data).hexdigest()}"'
    status, finished = service.call("PUT", f"{ANNOUNCE}/{body['id']}/finish", {"etag": etag})
    assert (status, finished) == (200, {"uri": f"ssupload:?id={body['id']}"})
    return finished["uri"]


def put(service: Service, url: str, data: bytes) -> int:
    """Send bytes to a signed URL, without a key, and return the status."""
    return service.call("PUT", url[url.index("/uploads/") :], data, Authorization="")[0]


def test_an_upload_may_stand_for_an_image(service) -> None:
    """It is finished with the ETag that the store has answered; the books know its digest."""
    address = uploaded(service)
    assert service.ent("POST", "img2video", {"model": "viduq2", "images": [address]})[0] == 200
    (upload,) = service.core.world.uploads.values()
    assert (upload.size, upload.sha256) == (len(PNG), hashlib.sha256(PNG).hexdigest())
    assert [r.key_sent for r in service.core.ledger.requests if r.kind == "upload"] == [True, False, True]


def test_only_finished_uploads_count(service) -> None:
    """Unknown, announced and merely sent ones are refused as an image that cannot be fetched."""
    _, body = service.call("POST", ANNOUNCE, {"scene": "vidu"})
    for address in ("ssupload:?id=1", f"ssupload:?id={body['id']}"):
        _, refused = service.ent("POST", "img2video", {"model": "viduq2", "images": [address]})
        assert refused["reason"] == "ImageDownloadFailure"
    assert put(service, body["put_url"], PNG) == 200
    _, refused = service.ent("POST", "img2video", {"model": "viduq2", "images": [f"ssupload:?id={body['id']}"]})
    assert refused["reason"] == "ImageDownloadFailure"


def test_an_upload_that_is_no_picture(service) -> None:
    """It cannot stand for one, but for a video."""
    address = uploaded(service, b"\0\0\0\x18ftypmp42")
    _, refused = service.ent("POST", "img2video", {"model": "viduq2", "images": [address]})
    assert refused["reason"] == "ImageFormatInvalid"
    assert service.ent("POST", "extend", {"video_url": address})[0] == 200


@pytest.mark.parametrize(("accepted", "image", "video"), [("any", 200, 200), ("images", 200, 400)])
def test_where_uploads_are_accepted(accepted, image, video) -> None:
    """The page speaks of images alone; whether the other media fields take uploads is not known."""
    service = Service(uploads=accepted)
    assert service.ent("POST", "img2video", {"model": "viduq2", "images": [uploaded(service)]})[0] == image
    assert service.ent("POST", "extend", {"video_url": uploaded(service)})[0] == video


def test_there_may_be_no_upload_service() -> None:
    """It is only likely that there is one."""
    assert Service(uploads="off").call("POST", ANNOUNCE, {"scene": "vidu"})[0] == 404


@pytest.mark.parametrize(
    ("body", "reason"), [({}, "FieldInvalid"), ({"scene": "other"}, "FieldInvalid"), (b"", "BadRequest")]
)
def test_an_announcement_names_its_scene(service, body, reason) -> None:
    """Anything but "vidu" is refused."""
    status, answer = service.call("POST", ANNOUNCE, body)
    assert (status, answer["reason"]) == (400, reason)


@pytest.mark.parametrize(("etag", "reason"), [(None, "FieldLacking"), ('"other"', "FieldInvalid")])
def test_the_end_needs_the_right_etag(service, etag, reason) -> None:
    """It proves that the right bytes have arrived."""
    _, body = service.call("POST", ANNOUNCE, {"scene": "vidu"})
    put(service, body["put_url"], PNG)
    status, answer = service.call("PUT", f"{ANNOUNCE}/{body['id']}/finish", {"etag": etag})
    assert (status, answer["reason"]) == (400, reason)


def test_the_store_is_strict(service) -> None:
    """A URL that was touched, an unknown one and too many bytes are refused; an upload needs a key, its bytes none."""
    _, body = service.call("POST", ANNOUNCE, {"scene": "vidu"})
    assert put(service, body["put_url"] + "x", PNG) == 403
    assert put(service, body["put_url"].replace(body["id"], "7"), PNG) == 404
    assert put(service, body["put_url"], bytes(50_000_001)) == 400
    assert service.call("POST", ANNOUNCE, {"scene": "vidu"}, Authorization="")[0] == 401
    assert service.call("PUT", f"{ANNOUNCE}/7/finish", {"etag": "x"})[0] == 404
