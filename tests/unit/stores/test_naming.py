"""Names of files: safe everywhere, and never one name for two ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.common.artifacts import ARTIFACTS
from airflow_provider_vidu.common.media_types import EXTENSIONS, extension, type_of_name
from airflow_provider_vidu.stores.naming import (
    MAX_NAME_BYTES,
    candidate_names,
    file_name,
    stem_of,
)
from tests.rows import each_row

IDS = st.text(min_size=1, max_size=300)
FORBIDDEN = set('<>:"/\\|?*') | {chr(code) for code in range(32)}


@pytest.mark.parametrize("plain", ["task_0123", "550e8400-e29b-41d4-a716-446655440000", "a.b", "7", "855316273906"])
def test_plain_ids_stay_readable(plain):
    """An id of lower-case letters, digits and the like is the name itself."""
    assert file_name(stem_of(plain, None), "video", "video/mp4") == f"{plain}.mp4"


@each_row(
    ("one", "other"),
    [
        ("abc", "ABC"),
        ("é", "e\u0301"),
        ("a/b", "a_b"),
        ("a ", "a"),
        ("a.", "a"),
        ("a\u200b", "a"),
        ("con", "vidu-con"),
        ("x" * 300, "x" * 301),
        ("../a", "a"),
        (".a", "a"),
    ],
)
def test_ids_that_a_file_system_could_confuse_get_different_names(one, other):
    """Case, Unicode forms, stripped characters and cut lengths never make two ids one file."""
    assert stem_of(one, None).casefold() != stem_of(other, None).casefold()


def test_a_watermarked_video_does_not_meet_the_video_of_a_similar_id():
    """The id ``a-watermarked`` and the watermarked video of ``a`` are two files."""
    assert file_name(stem_of("a", None), "watermarked", "video/mp4") != file_name(
        stem_of("a-watermarked", None), "video", "video/mp4"
    )


def test_a_made_name_cannot_be_asked_for_as_an_id():
    """An id that looks like a name with our hash gets a hash of its own."""
    made = stem_of("ABC", None)
    assert stem_of(made.lower(), None).lower() != made.lower()


@given(IDS, st.sampled_from(ARTIFACTS), st.sampled_from(["video/mp4", "image/jpeg", "x/y", ""]))
def test_every_name_is_safe_on_every_file_system(text, artifact, kind):
    """No separators, control characters, reserved words, trailing dots, or more than 200 bytes."""
    name = file_name(stem_of(text, None), artifact, kind)
    assert name.isascii()
    assert not FORBIDDEN & set(name)
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert name[0].isalnum() or name[0] == "_"
    assert not name.endswith((".", " "))
    assert name.partition(".")[0].lower() not in ("con", "prn", "aux", "nul", "com1", "lpt9")


@each_row("artifact", [None, *ARTIFACTS])
def test_each_creation_and_artifact_has_a_name_of_its_own(artifact):
    """A further creation is numbered as people count, and meets neither another file nor another id."""
    first, second = (file_name(stem_of("a", None), artifact, "video/mp4", creation) for creation in (0, 1))
    assert second == first.replace(".mp4", "-2.mp4")
    for made in (first, second):
        other = made.removesuffix(".mp4")
        assert other == "a" or stem_of(other, None) != other


@pytest.mark.parametrize("plain", ["a-1", "a-02", "a-1234", "550e8400-e29b-41d4-a716-446655440000"])
def test_only_a_number_that_a_creation_gets_is_taken_for_one(plain):
    """Other numbers at the end of an id stay readable."""
    assert stem_of(plain, None) == plain


@given(IDS, IDS)
def test_two_ids_never_share_a_name(one, other):
    """Also where the file system ignores case."""
    if one != other:
        assert stem_of(one, None).lower() != stem_of(other, None).lower()


def test_a_url_is_named_by_its_path_and_a_hash():
    """Two files called video.mp4 in different folders do not overwrite each other."""
    first, second = (stem_of(None, f"https://cdn.example.com/{n}/video.mp4?Signature=x") for n in (1, 2))
    assert first != second
    assert first.startswith("video-")


SIGNING = (
    "X-Amz-Credential", "X-Goog-Signature", "x-oss-credential", "x-cos-security-token", "X-Tos-Signature",
    "X-Obs-Date", "q-key-time", "q-header-list", "q-url-param-list", "Signature", "sig", "sign", "Expire", "Expires",
    "Policy", "Key-Pair-Id", "AWSAccessKeyId", "AccessKeyId", "GoogleAccessId", "auth_key", "security-token",
)  # fmt: skip
"""Parameters that sign: those of Amazon, Google, Alibaba, Tencent, Volcano Engine and Huawei, and of CDNs."""


@each_row(
    ("one", "other"),
    [
        ("X-Amz-Date=1&X-Amz-Signature=a", "X-Amz-Date=2&X-Amz-Signature=b"),
        ("Expires=1&OSSAccessKeyId=k&Signature=a", "Expires=2&OSSAccessKeyId=k&Signature=b"),
        ("q-sign-algorithm=sha1&q-ak=1&q-signature=x", "q-sign-algorithm=sha1&q-ak=1&q-signature=y"),
        ("sv=1&se=2026&sr=b&sp=r&sig=a", "sv=1&se=2027&sr=b&sp=r&sig=b"),
        ("id=7&token=a", "id=7&token=b"),
        *((f"id=7&{name}=a", f"id=7&{name}=b") for name in SIGNING),
    ],
)
def test_a_new_signature_keeps_the_name(one, other):
    """The same object signed again has the same name."""
    assert stem_of(None, f"https://b.example.com/v.mp4?{one}") == stem_of(None, f"https://b.example.com/v.mp4?{other}")


@pytest.mark.parametrize(
    ("one", "other"),
    [("id=7", "id=8"), ("t=1", "t=2"), ("se=1", "se=2"), ("x-oss-process=a", "x-oss-process=b"), ("7", "8")],
)
def test_what_a_query_names_is_part_of_the_name(one, other):
    """Where the query says which file it is, two files have two names."""
    assert stem_of(None, f"https://b.example.com/get?{one}") != stem_of(None, f"https://b.example.com/get?{other}")


@pytest.mark.parametrize("name", ["token", "sign", "auth_key", "signature"])
def test_what_may_name_the_file_is_part_of_the_name_if_nothing_else_is(name):
    """Otherwise all files of a gateway's one address would have one name, and each would replace the one before."""
    one, other = (stem_of(None, f"https://b.example.com/download?{name}={value}") for value in "ab")
    assert one != other
    signed = "https://b.example.com/clips/7?X-Amz-Date={0}&X-Amz-Signature={0}"
    assert stem_of(None, signed.format(1)) == stem_of(None, signed.format(2))


def test_a_url_without_a_path_has_a_name():
    """Nothing to take a name from still gives one."""
    assert stem_of(None, "https://cdn.example.com").startswith("vidu-")


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("video/mp4", ".mp4"), ("image/jpeg", ".jpg"), ("video/webm", ".webm"), ("application/x-nonsense", ".bin")],
)
def test_extensions(kind, ending):
    """The extension follows the content type."""
    assert extension(kind) == ending


def test_candidates_begin_with_the_usual_name():
    """What is looked for first is what is nearly always there."""
    assert candidate_names("a", "video")[0] == "a.mp4"
    assert candidate_names("a", "cover")[0] == "a-cover.jpg"
    assert candidate_names("a", "watermarked")[0] == "a-watermarked.mp4"
    assert candidate_names("a", "speech", 1)[0] == "a-speech-2.mp3"
    assert candidate_names("a", None)[0] == "a.mp4"


@pytest.mark.parametrize(
    ("name", "kind"), [("a.MP4", "video/mp4"), ("a.jpeg", "image/jpeg"), ("a", None), ("a.bin", None)]
)
def test_types_of_names(name, kind):
    """A name's extension stands for a content type, in any case."""
    assert type_of_name(name) == kind


def test_every_kind_of_file_is_looked_for():
    """Whatever a download may be stored as is found again by the names that are tried."""
    kinds = {
        "video": ("video/mp4", "video/webm", "video/x-msvideo", "image/gif", "image/webp", "application/octet-stream"),
        "cover": ("image/jpeg", "image/png", "image/avif", "image/heic", "application/octet-stream"),
        "speech": ("audio/mpeg", "audio/wav", "audio/mp4", "audio/ogg"),
        None: tuple(EXTENSIONS),
    }
    for artifact, stored in kinds.items():
        assert {file_name("a", artifact, kind) for kind in stored} <= set(candidate_names("a", artifact))
