"""Telling a video, a picture or sound from an error page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.common.media_types import sniffed
from airflow_provider_vidu.downloads.content import BoxWalk, checked_type, text_kind
from airflow_provider_vidu.exceptions import ViduDownloadRefusedError
from tests.rows import each_row

MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isommp41"
WEBM = b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x82\x84webm"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF"
WEBP = b"RIFF\x24\0\0\0WEBPVP8 "
WAV = b"RIFF\x24\0\0\0WAVEfmt "
M4A = b"\0\0\0\x1cftypM4A \0\0\0\0M4A mp42isom"
VIDEO_TRACK = b"\0\0\0\x21hdlr" + bytes(8) + b"vide"
SOUND_TRACK = b"\0\0\0\x21hdlr" + bytes(8) + b"soun"
UNKNOWN = bytes(range(128, 200))


@pytest.mark.fault(
    "stores and files",
    "types such as image/jpg, video/x-m4v, video/mpeg4 and */*",
    outcome="survived",
    seen="the type that the bytes prove",
)
@each_row(
    ("declared", "head", "artifact", "path", "kind"),
    [
        ("video/mp4", MP4, "video", "", "video/mp4"),
        ("video/mp4; codecs=avc1", MP4, "video", "", "video/mp4"),
        ("application/octet-stream", MP4, "video", "", "video/mp4"),
        ("text/plain", MP4, "video", "", "video/mp4"),
        (None, WEBM, "video", "", "video/webm"),
        ("video/x-m4v", MP4, "video", "", "video/mp4"),
        ("video/mpeg4", MP4, "watermarked", "", "video/mp4"),
        ("*/*", MP4, None, "", "video/mp4"),
        ("image/jpg", JPEG, None, "", "image/jpeg"),
        ("video/mp4", JPEG, None, "", "image/jpeg"),
        ("image/gif", b"GIF89a", "video", "", "image/gif"),
        ("image/jpeg", JPEG, "cover", "", "image/jpeg"),
        ("application/octet-stream", WEBP, "image", "", "image/webp"),
        ("audio/x-wav", WAV, None, "", "audio/wav"),
        ("application/octet-stream", WAV, "speech", "", "audio/wav"),
        ("video/mp4", M4A, "sound", "", "audio/mp4"),
        ("audio/x-m4a", MP4, "audio", "", "audio/mp4"),
        ("audio/mp4", MP4, None, "", "audio/mp4"),
        ("audio/mp4", MP4, "video", "", "video/mp4"),
        ("binary/octet-stream", MP4, "audio", "/a/b.M4A", "audio/mp4"),
        ("video/mp4", MP4, None, "/a/b.m4a", "video/mp4"),
        ("audio/webm", WEBM, "audio", "", "audio/webm"),
        ("audio/mp4", MP4 + VIDEO_TRACK, None, "/a.m4a", "video/mp4"),
        ("audio/webm", WEBM + b"\x86\x85V_VP9", None, "", "video/webm"),
        ("application/octet-stream", MP4 + SOUND_TRACK, "speech", "", "audio/mp4"),
        (None, WEBM + b"\x86\x86A_OPUS", "audio", "", "audio/webm"),
        (None, WEBM + b"\x86\x86A_OPUS", None, "", "video/webm"),
    ],
)
def test_accepted(declared, head, artifact, path, kind):
    """The bytes decide; the header and the name only say whether a container holds sound alone."""
    assert checked_type(declared, head, artifact, path) == kind


@each_row(
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
        ("application/pdf", b"%PDF-1.7", None),
        ("video/mp4", UNKNOWN, "video"),
        ("video/mp4", UNKNOWN, None),
        (None, b"", None),
        ("image/png", UNKNOWN, "image"),
        ("image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image"),
        ("image/svg+xml", b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        ("text/html", b"<html><body>Sorry</body>", None),
        ("audio/mpeg", b'{"code": 403}', "audio"),
        ("audio/mpeg", "nicht gefunden, größer".encode(), "audio"),
        ("audio/wav", WAV, "video"),
        ("audio/wav", WAV, "image"),
        ("video/mp4", MP4, "speech"),
        ("audio/mp4", MP4 + VIDEO_TRACK, "speech"),
        ("video/mp4", MP4 + SOUND_TRACK, "speech"),
        ("image/svg+xml", b"\xfe\xff" + "<svg xmlns='x'/>".encode("utf-16-be"), None),
        ("image/png", PNG, "audio"),
        ("image/gif", b"GIF89a", "audio"),
        ("image/png", PNG, "video"),
        ("video/mp4", JPEG, "video"),
        ("video/mp4", MP4, "cover"),
        ("video/mp4", UNKNOWN, "cover"),
        ("image/jpeg", b"<html>", "cover"),
    ],
)
def test_refused(declared, head, artifact):
    """Pages, JSON and files of the wrong family are refused whatever the header claims."""
    with pytest.raises(ViduDownloadRefusedError, match=r"Not stored: the server sent .* instead of a "):
        checked_type(declared, head, artifact)


@each_row(
    ("head", "artifact", "words"),
    [
        (PNG, "video", r"image/png instead of a video\. Without artifact the result is kept"),
        (b"PK\3\4", "video", r"application/zip instead of a video\.$"),
        (b"<svg/>", "cover", "an SVG file instead of a picture"),
        ("<svg xmlns='x'/>".encode("utf-16"), None, "an SVG file instead"),
        (b"\xfe\xff" + "<svg xmlns='x'/>".encode("utf-16-be"), None, "an SVG file instead"),
        (b"GIF89a/*<html>alert(1)*/=1;", None, "text instead of"),
        (b"<html><svg>", "cover", "an HTML or XML page instead of a picture"),
        (b"not found", None, "text instead of a video, a picture or a sound file. It begins: not found"),
        (UNKNOWN, None, r"bytes of an unknown format \(its header says video/x\) instead.* It begins: 80 81 82"),
    ],
)
def test_a_refusal_says_what_came_and_what_to_do(head, artifact, words):
    """The message names the type that was found, and how to keep a result of another medium."""
    with pytest.raises(ViduDownloadRefusedError, match=words):
        checked_type("video/x", head, artifact)


def test_a_refused_page_is_quoted_without_secrets():
    """The beginning of an error page helps; the signature of a URL in it is not shown."""
    with pytest.raises(ViduDownloadRefusedError) as caught:
        checked_type("text/html", b"<html>see https://x.example.com/v?sig=hush", "video")
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
    """A box to the end of the file, and anything that is not an MP4, is never called cut."""
    walk = BoxWalk()
    walk.feed(data)
    assert not walk.is_cut()
