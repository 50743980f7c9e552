"""Which values of a request name media, and what may stand in their fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest

from airflow_provider_vidu.api.json_values import as_json
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.orders.media import fields
from airflow_provider_vidu.orders.media.fields import MEDIA_FIELDS, address, as_list, read_json, replaced
from tests.rows import each_row

WEB = "https://example.com/a.png?sig=x%20y"


class Lazy(Sequence[Any]):
    """The output of a mapped task as Airflow hands it over: a sequence, but no list."""

    def __init__(self, *items: Any) -> None:
        self._items = items

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)


@pytest.mark.fault(
    "from Airflow", "HTTPS://, Data:, ssupload: and blanks around an address", outcome="survived", seen="the address"
)
@each_row(
    ("text", "expected"),
    [
        (WEB, WEB),
        (f" \n{WEB}\r\n", WEB),
        (f"\ufeff \u200b{WEB}\u200b", WEB),
        ("HTTP://Example.com/A.png", "http://Example.com/A.png"),
        ("Data:image/png;base64,iVBO\nRw0K Ggo=", "data:image/png;base64,iVBORw0KGgo="),
        ("data:image/svg+xml,<a b>", "data:image/svg+xml,<a b>"),
        (" ssupload:?id=1 ", "ssupload:?id=1"),
        ("SSUPLOAD:?id=1", "ssupload:?id=1"),
        ("/9j/" + "A" * 5000, "/9j/" + "A" * 5000),
        ("/data/a.png", None),
        ("s3://bucket/a.png", None),
        ("https:a.png", None),
        (PurePosixPath("/data/a.png"), None),
    ],
)
def test_addresses(text, expected):
    """What the service fetches itself passes, without the blanks around it; everything else is a path."""
    assert address(text) == expected


def test_every_field_is_found():
    """Each field of the table is replaced wherever it stands, with its place in words; nothing else is."""
    body = {
        "prompt": "/data/a.png",
        "images": ["a", "b"],
        "start_image": "c",
        "image_settings": [{"key_image": "d", "prompt": "x"}, {"key_image": "e"}],
        "subjects": Lazy({"name": "s", "images": ("f",), "videos": Lazy("g")}),
        "image": "h",
        "image_url": "i",
        "ref_photo_url": "j",
        "lip_ref_url": "o",
        "videos": ["k"],
        "video_url": "l",
        "audio_url": "m",
        "sounds": ["n"],
    }
    seen: dict[str, str] = {}

    def replace(value: Any, field: Any, where: str) -> str:
        seen[where] = field.path
        return f"<{value}>"

    found = replaced(body, replace)
    assert found == {
        "prompt": "/data/a.png",
        "images": ["<a>", "<b>"],
        "start_image": "<c>",
        "image_settings": [{"key_image": "<d>", "prompt": "x"}, {"key_image": "<e>"}],
        "subjects": [{"name": "s", "images": ["<f>"], "videos": ["<g>"]}],
        "image": "<h>",
        "image_url": "<i>",
        "ref_photo_url": "<j>",
        "lip_ref_url": "<o>",
        "videos": ["<k>"],
        "video_url": "<l>",
        "audio_url": "<m>",
        "sounds": ["<n>"],
    }
    assert set(seen.values()) == {field.path for field in MEDIA_FIELDS}
    assert {"images[1]", "image_settings[1].key_image", "subjects[0].videos[0]"} <= set(seen)


def test_what_only_a_gateway_knows_stays():
    """An object in place of an address, null, and an empty text pass; so does everything outside the table."""
    body = {
        "images": [{"type": "image_url"}],
        "image": None,
        "audio_url": "",
        "settings": {"images": ["/data/a.png"]},
        "image_settings": 5,
    }
    assert replaced(body, lambda *_: pytest.fail("nothing here is media")) == body


@pytest.mark.fault(
    "from Airflow",
    "images is a mapped task's lazy output, a tuple or the text of a list",
    outcome="survived",
    seen="a list of addresses",
)
@each_row(("value", "expected"), [
    (WEB, [WEB]),
    ([WEB, "/a"], [WEB, "/a"]),
    (Lazy(WEB, "/a"), [WEB, "/a"]),
    ((WEB,), [WEB]),
    (' ["/a", "/b"]\n', ["/a", "/b"]),
    (None, None), ([], []), ("", ""), ("None", "None"),
])  # fmt: skip
def test_an_argument_becomes_a_list(value, expected):
    """One address, a list in any of Airflow's forms, and the JSON text of a list mean the same."""
    assert as_list("images", value) == expected


def _generator() -> Iterator[str]:
    yield WEB


@pytest.mark.fault("from Airflow", "images is not a list of addresses and paths", outcome="refused", says="images")
@pytest.mark.parametrize(("value", "message"), [
    ("['/a', '/b']", "images is not valid JSON: .*tojson"),
    (["/a", 5], r"images\[1\] holds 5: it must be an address or a path"),
    (["/a", None], r"images\[1\] holds None"),
    (["/a", True], r"images\[1\] holds True"),
    (["/a", " "], r"images\[1\] holds an empty text"),
    (["/a", b"x"], r"images\[1\] holds b'x'"),
    ([["/a"]], r"images\[0\] holds \['/a'\]"),
    ('["/a", 5]', r"images\[1\] holds 5"),
    (_generator(), "images must be an address, a path or a list of them, not generator"),
    ({"/a"}, "not set"),
    (b"x", "not bytes"),
    (5, "not int"),
    ("https://e/a.png\nhttps://e/b.png", "images holds several addresses in one text: .*as a list"),
    ("https://e/a.png,https://e/b.png", "images holds several addresses in one text"),
    ("https://e/a.png; s3://b/c.png", "images holds several addresses in one text"),
    ("data:image/png;base64,AAAA,data:image/png;base64,BBBB", "images holds several addresses in one text"),
    ("/a/b.png, /a/c.png", "images holds several addresses in one text"),
    (["https://e/a.png\nb"], r"images\[0\] holds an address with a line break: .*as a list"),
    ("a b/" * 1250, "images holds 5,000 characters that are neither"),
])  # fmt: skip
def test_what_is_refused(value, message):
    """The error names the field and the index, as an argument and inside a body."""
    with pytest.raises(ViduConfigError, match=message):
        as_list("images", value)
    if isinstance(value, Iterator):
        value = _generator()
    with pytest.raises(ViduConfigError, match=message):
        replaced({"images": value}, lambda value, *_: value)


@pytest.mark.fault("from Airflow", "lazy outputs inside parameters and body", outcome="survived", seen="lists")
def test_lazy_sequences_become_lists_at_any_depth():
    """Airflow's lazy sequences stand wherever a task's output may; bytes and text are not sequences here."""
    assert as_json({"a": Lazy(Lazy(1), {"b": (2,)}), "c": "text", "d": b"x"}) == {
        "a": [[1], {"b": [2]}], "c": "text", "d": b"x",
    }  # fmt: skip


@pytest.mark.parametrize("mock", [MagicMock(), Mock()])
def test_a_mock_is_no_path(mock):
    """In a unit test of a user, a mock has every attribute of a path."""
    with pytest.raises(ViduConfigError, match="images must be an address, a path or a list of them, not M"):
        as_list("images", mock)
    with pytest.raises(ViduConfigError, match=r"images\[0\] holds <M"):
        as_list("images", [mock])


def test_a_single_address_with_an_address_inside():
    """Commas occur in signed URLs and data URIs; in a list, a text is one address whatever it holds."""
    proxied = "https://e/fit,https://h/a.png"
    assert as_list("images", [proxied]) == [proxied]
    assert replaced({"video_url": proxied}, lambda value, field, where: value) == {"video_url": proxied}
    for single in ("data:image/png;base64,/9j/4AAQ,/", "https://e/a,b;c|d.png?x=1,2", "/a,b/c.png", "a, b.png"):
        assert as_list("images", single) == [single]
    with pytest.raises(ViduConfigError, match=r"subjects\[0\]\.images holds several addresses"):
        replaced({"subjects": [{"images": "https://e/1,https://e/2"}]}, lambda value, field, where: value)


@pytest.mark.parametrize("name", ["images", "rows"])
def test_a_list_that_is_nested_without_end(name):
    """The user who triggers a DAG gets an error with the field's name, and Airflow does not try it again."""
    with pytest.raises(ViduConfigError, match=f"{name} is not valid JSON"):
        read_json(name, "[" * 100_000 + "]" * 100_000, "list")


def test_a_list_of_very_many_values(monkeypatch):
    """They are counted before they are parsed: 50 MB of them take a gigabyte."""
    monkeypatch.setattr(fields, "MOST_VALUES", 100)
    with pytest.raises(ViduConfigError, match="rows holds more than 100 values"):
        read_json("rows", "[" + "[]," * 100 + "1]", "list")
    assert read_json("rows", "[" + '"a, b, c",' * 99 + "1]", "list")[-1] == 1
