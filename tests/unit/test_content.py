"""Telling a video from an error page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.content import BoxWalk, judged, sniffed, text_kind
from airflow_provider_vidu.exceptions import ViduDownloadRefusedError

MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isommp41"
WEBM = b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x82\x84webm"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF"
WEBP = b"RIFF\x24\0\0\0WEBPVP8 "
UNKNOWN = bytes(range(128, 200))


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (MP4, "video/mp4"),
        (b"\0\0\0\x14ftypqt  ", "video/quicktime"),
        (WEBM, "video/webm"),
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (WEBP, "image/webp"),
        (b"GIF89a", "image/gif"),
        (UNKNOWN, None),
        (b"", None),
    ],
)
def test_first_bytes(head, kind):
    """Each format shows itself in its first bytes."""
    assert sniffed(head) == kind


@pytest.mark.parametrize(
    ("declared", "head", "artifact", "path", "kind"),
    [
        ("video/mp4", MP4, "video", "", "video/mp4"),
        ("video/mp4; codecs=avc1", MP4, "video", "", "video/mp4"),
        ("application/octet-stream", MP4, "video", "", "video/mp4"),
        ("text/plain", MP4, "video", "", "video/mp4"),
        (None, WEBM, "video", "", "video/webm"),
        ("video/mp4", UNKNOWN, "video", "", "video/mp4"),
        ("binary/octet-stream", UNKNOWN, "video", "/a/b.MP4", "video/mp4"),
        (None, UNKNOWN, "video", "/a/b", "application/octet-stream"),
        (None, UNKNOWN, "video", "/a/b.jpg", "application/octet-stream"),
        ("image/gif", b"GIF89a", "video", "", "image/gif"),
        ("image/jpeg", JPEG, "cover", "", "image/jpeg"),
        ("application/octet-stream", WEBP, "cover", "", "image/webp"),
        ("image/avif", UNKNOWN, "cover", "", "image/avif"),
    ],
)
def test_accepted(declared, head, artifact, path, kind):
    """The bytes are believed first, then the header, then the name."""
    assert judged(declared, head, artifact, path) == kind


@pytest.mark.parametrize(
    ("declared", "head", "artifact"),
    [
        ("text/html", b"<html><body>Sorry</body>", "video"),
        ("video/mp4", b"<!DOCTYPE html><title>502</title>", "video"),
        ("video/mp4", b"\n  <HTML>", "video"),
        ("video/mp4", b"\xef\xbb\xbf<!doctype html>", "video"),
        ("video/mp4", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "video"),
        ("video/mp4", b"<Error><Code>NoSuchKey</Code>", "video"),
        ("application/json", b'{"error":"gone"}', "video"),
        ("video/mp4", b' {"code": 403}', "video"),
        ("video/mp4", b"[]", "video"),
        ("application/octet-stream", b"{}", "video"),
        ("video/mp4", "<html>".encode("utf-16"), "video"),
        ("text/html", UNKNOWN, "video"),
        ("application/json", UNKNOWN, "video"),
        ("text/plain", b"not found", "video"),
        ("application/zip", b"PK\3\4", "video"),
        ("image/png", PNG, "video"),
        ("video/mp4", JPEG, "video"),
        ("video/mp4", MP4, "cover"),
        ("video/mp4", UNKNOWN, "cover"),
        ("image/jpeg", b"<html>", "cover"),
    ],
)
def test_refused(declared, head, artifact):
    """Pages, JSON and files of the wrong family are refused whatever the header claims."""
    with pytest.raises(ViduDownloadRefusedError, match=r"Not stored: the server sent .* instead of an? "):
        judged(declared, head, artifact)


def test_a_refused_page_is_quoted_without_secrets():
    """The beginning of an error page helps; the signature of a URL in it is nobody's business."""
    with pytest.raises(ViduDownloadRefusedError) as caught:
        judged("text/html", b"<html>see https://x.example.com/v?sig=hush", "video")
    assert "<html>see" in str(caught.value)
    assert "hush" not in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_judged(head):
    """No beginning of a file breaks the sniffing."""
    sniffed(head)
    text_kind(head)


def _box(kind: bytes, size: int) -> bytes:
    return size.to_bytes(4, "big") + kind + bytes(size - 8)


FILE = _box(b"ftyp", 24) + _box(b"moov", 100) + (1).to_bytes(4, "big") + b"mdat" + (516).to_bytes(8, "big") + bytes(500)


@given(st.integers(1, 64), st.integers(0, len(FILE)))
def test_a_cut_video_is_noticed_at_every_byte_inside_a_box(piece, cut):
    """However the bytes come in, the walk knows whether a box is incomplete."""
    walk = BoxWalk()
    for at in range(0, cut, piece):
        walk.feed(FILE[at : min(at + piece, cut)])
    ends = (0, 24, 124, len(FILE))
    # Fewer than eight (or sixteen) bytes of a header say nothing; they count as garbage at the end.
    inside = not any(end <= cut < end + 8 for end in ends) and not 124 <= cut < 140
    assert walk.is_cut() == inside


@pytest.mark.parametrize(
    "data", [b"\0\0\0\0mdat" + bytes(50), b"no boxes here at all", b"", b"\0\0\0\x03free" + bytes(9)]
)
def test_what_is_no_chain_of_boxes_is_not_judged(data):
    """A box to the end of the file, and anything that is no MP4, is never called cut."""
    walk = BoxWalk()
    walk.feed(data)
    assert not walk.is_cut()
