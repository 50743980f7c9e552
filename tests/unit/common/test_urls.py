"""Addresses that cannot be fetched are shown, redacted, with what is wrong with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.api.dialects.answers import read
from airflow_provider_vidu.common.urls import shown_url, unusable_note, url_problem, without_store_signatures
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
        (
            "data:video/mp4;base64,(36 characters cut out)",
            "data:video/mp4;base64,(36 characters cut out)",
            "the file itself",
        ),
        ("(800000 characters cut out)", "(800000 characters cut out)", "the file itself"),
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


AMAZON = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F1&X-Amz-Date={0}&X-Amz-Expires=9"
    "&X-Amz-SignedHeaders=host&X-Amz-Security-Token={0}&X-Amz-Signature={0}"
)


@each_row(
    ("signed", "plain"),
    [
        (f"versionId=3&{AMAZON}&response-content-type=a", "?versionId=3&response-content-type=a"),
        ("x-oss-signature-version=OSS4&x-oss-date={0}&x-oss-signature={0}&x-oss-process=a", "?x-oss-process=a"),
        ("X-Goog-Algorithm=G&X-Goog-Date={0}&X-Goog-SignedHeaders=h&x%2Dgoog-signature={0}", ""),
        ("AWSAccessKeyId=A&Expires={0}&x-amz-security-token={0}&Signature={0}", ""),
        ("OSSAccessKeyId=A&Expires={0}&Signature={0}", ""),
        ("GoogleAccessId=A&Expires={0}&Signature={0}", ""),
        ("Key-Pair-Id=K&Policy={0}&Signature={0}", ""),
        ("sv=2020&snapshot=2&st={0}&se={0}&sr=b&sp=r&spr=https&sig={0}", "?snapshot=2"),
        ("q-sign-algorithm=sha1&q-ak=A&q-sign-time={0}&q-key-time={0}&q-header-list=&q-signature={0}", ""),
    ],
)
def test_a_fresh_signature_of_a_store_is_no_other_address(signed, plain):
    """Also within the JSON text of a list; the rest of the query may name the file."""
    for number in ("1", "2%3D"):
        url = f"https://bucket.example.com/a%20b.png?{signed.format(number)}#top"
        assert without_store_signatures(url) == f"https://bucket.example.com/a%20b.png{plain}#top"
        assert (
            without_store_signatures(f'["{url}", "x"]') == f'["https://bucket.example.com/a%20b.png{plain}#top", "x"]'
        )


@pytest.mark.parametrize(
    "query", ["token=a", "sign=a&expires=1", "signature=a&id=3", "sig=a", "expires=1", "", "x-amz-date=1", "q-ak=1"]
)
def test_what_may_name_the_file_stays(query):
    """Otherwise the file of another picture would be taken for this one's."""
    for url in (f"https://cdn.example.com/a.png?{query}", f"s3://bucket/a.png?{AMAZON}", f"a picture?{AMAZON}"):
        assert without_store_signatures(url) == url
    long = f"https://cdn.example.com/a.png?{AMAZON}&x={'x' * 20_000}"
    assert without_store_signatures(long) == long
