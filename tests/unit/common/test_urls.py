"""Addresses that cannot be fetched are shown, redacted, with what is wrong with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.api.dialects.answers import read
from airflow_provider_vidu.common.urls import shown_url, unusable_note, url_problem
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.orders.results import missing
from airflow_provider_vidu.polling.watch import Failed, PollPolicy, Watch
from tests.rows import each_row

URL = "https://cdn.example.com/v.mp4"


@each_row(
    ("url", "shown", "problem"),
    [
        ("/files/v.mp4?sig=GEHEIM", "/files/v.mp4", "is relative"),
        ("//[/v.mp4", "<unreadable URL>", "lacks its beginning"),
        ("cdn.example.com/v.mp4?sig=GEHEIM", "cdn.example.com/v.mp4", "lacks its beginning, https://"),
        ("user:GEHEIM@cdn.example.com/v.mp4", "cdn.example.com/v.mp4", "lacks its beginning"),
        ("localhost:8080/v.mp4", "localhost:8080/v.mp4", "lacks its beginning"),
        ("https://cdn.example.com/my v.mp4#x", "https://cdn.example.com/my v.mp4", "contains a space"),
        ("s3://bucket/v.mp4", "s3://bucket/v.mp4", "has the scheme 's3'"),
        ("data:video/mp4;base64," + "AAAA" * 9, "data:video/mp4;base64,… (36 characters cut out)", "the file itself"),
        ("https:///v.mp4", "https:///v.mp4", "no readable host"),
        (URL + "/" + "a" * 20_000, URL + "/" + "a" * 89 + "…", "longer than 16,384"),
    ],
)
def test_what_is_wrong_is_said(url, shown, problem):
    """No message holds a signature, a password or megabytes."""
    assert shown_url(url) == shown
    assert problem in (url_problem(url) or "")
    assert "GEHEIM" not in shown_url(url)


@given(st.text(max_size=60))
def test_every_text_is_shown(text):
    """Whatever an answer holds: one line, and a reason or none."""
    assert "\n" not in shown_url(text)
    assert url_problem(f" {URL} ") is None


UNUSABLE = {
    "flat": ({"status": "completed", "video_url": "/files/v.mp4?sig=GEHEIM"}, "video_url holds '/files/v.mp4'"),
    "OpenAI": (
        {"status": "completed", "metadata": {"url": "/v1/videos/g/content"}},
        "url holds '/v1/videos/g/content', which is relative",
    ),
    "official": (
        {"state": "success", "creations": [{"url": "", "watermarked_url": "cdn.example.com/w.mp4"}]},
        "watermarked_url holds 'cdn.example.com/w.mp4'",
    ),
    "wrapped": (
        {"code": "success", "data": {"status": "SUCCESS", "fail_reason": "/files/v.mp4", "progress": "100%"}},
        "fail_reason holds '/files/v.mp4'",
    ),
    "a list": ({"status": "completed", "output": ["/files/v.mp4"]}, "output holds '/files/v.mp4'"),
}


@pytest.mark.fault(
    "polling",
    "a success whose URL is relative or lacks https://",
    outcome="clear error",
    says="In its answer",
)
@pytest.mark.parametrize("family", UNUSABLE)
def test_an_unusable_url_is_shown(family):
    """Both the wait and the download say which address came, in which field, and what it lacks."""
    answer, words = UNUSABLE[family]
    generation = read("g", answer)
    assert words in str(missing(generation, None, 0))
    assert "no usable URL." in str(missing(generation, None, 0))
    watch = Watch(PollPolicy(missing_url_polls=0), generation_id="g", since=0.0)
    result = watch.saw(generation, 1.0)
    assert isinstance(result, Failed)
    assert words in str(result.error)
    assert "GEHEIM" not in str(result.error)


def test_a_cover_that_is_unusable_is_shown():
    """Beside a usable result, too; what was sent is not."""
    answer = {
        "state": "success", "callback_url": "nonsense", "images": ["a/b.png"], "payload": "x/y",
        "creations": [{"url": URL, "cover_url": "/covers/c.jpg"}],
    }  # fmt: skip
    told = str(missing(read("g", answer), "cover", 0))
    assert "It has: result. In its answer cover_url holds '/covers/c.jpg', which is relative" in told
    assert "nonsense" not in told
    assert "a/b.png" not in told


@each_row(
    "answer",
    [{}, {"video_url": None}, {"video_url": ""}, {"video_url": URL}, {"fail_reason": "It failed / timed out"},
     {"output": "text"}],
)  # fmt: skip
def test_nothing_is_said_where_nothing_is_wrong(answer):
    """An empty field is not an address, and a sentence is not one either."""
    assert unusable_note(answer) == ""
    assert "It has no URLs at all." in str(missing(Generation(id="g", status="succeeded", raw=answer), None, 0))


def test_an_address_without_a_scheme_means_https():
    """``//host/…`` has one meaning; a word with two slashes before it has none."""
    answer = {"state": "success", "creations": [{"url": "//cdn.example.com/v.mp4?a=b", "cover_url": "//word"}]}
    generation = read("g", answer)
    assert generation.video_url == "https://cdn.example.com/v.mp4?a=b"
    assert generation.cover_url is None
