"""What a transfer does next, as tables."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.downloads.decisions import (
    LEAST_GAIN,
    Do,
    Failures,
    Pace,
    Progress,
    after_answer,
    redirect_problem,
    validator_of,
)
from airflow_provider_vidu.exceptions import ViduDownloadError, ViduDownloadRefusedError
from airflow_provider_vidu.network.framing import Answer
from airflow_provider_vidu.polling.retries import Backoff
from tests.rows import each_row

HALF = Progress(received=50, total=100, validator='"v1"')
REST = {"content-range": "bytes 50-99/100", "etag": '"v1"'}


@each_row(
    ("headers", "length", "progress", "do"),
    [
        (REST, 50, HALF, Do.TAKE_REST),
        (REST, None, HALF, Do.TAKE_REST),
        ({**REST, "content-range": "bytes 50-99/*"}, 50, HALF, Do.TAKE_REST),
        ({**REST, "content-range": "bytes 50-69/100"}, 20, HALF, Do.TAKE_REST),
        ({**REST, "content-range": "BYTES  50-99/100"}, 50, HALF, Do.TAKE_REST),
        ({**REST, "content-range": "bytes 50-99/100"}, 50, Progress(50, None, '"v1"'), Do.TAKE_REST),
        ({**REST, "content-range": "bytes 49-99/100"}, 51, HALF, Do.START_OVER),
        ({**REST, "content-range": "bytes 0-99/100"}, 100, HALF, Do.START_OVER),
        ({**REST, "content-range": "bytes 50-119/120"}, 70, HALF, Do.START_OVER),
        ({**REST, "content-range": "bytes 50-100/100"}, 51, HALF, Do.START_OVER),
        ({**REST, "content-range": "bytes 50-49/100"}, 0, HALF, Do.START_OVER),
        ({**REST, "content-range": f"bytes 50-{'9' * 5000}/*"}, None, HALF, Do.START_OVER),
        ({**REST, "content-range": "bytes \u0665\u0660-\u0669\u0669/*"}, None, HALF, Do.START_OVER),
        ({**REST, "content-range": "bytes 50-99/100"}, 49, HALF, Do.START_OVER),
        ({**REST, "etag": '"v2"'}, 50, HALF, Do.START_OVER),
        ({**REST, "etag": 'W/"v1"'}, 50, HALF, Do.START_OVER),
        ({"content-range": "bytes 50-99/100"}, 50, HALF, Do.START_OVER),
        ({"content-range": "bytes 50-99/100"}, 50, Progress(50, 100, "a date"), Do.TAKE_REST),
        ({"content-range": "bytes 50-99/100", "last-modified": "new"}, 50, Progress(50, 100, "a date"), Do.START_OVER),
        ({**REST, "content-encoding": "gzip"}, 50, HALF, Do.START_OVER),
        (REST, 50, Progress(50, 100, '"v1"', ("gzip",)), Do.START_OVER),
        ({**REST, "content-encoding": "gzip"}, 50, Progress(50, 100, '"v1"', ("gzip",)), Do.TAKE_REST),
        ({**REST, "content-range": "items 50-99/100"}, 50, HALF, Do.START_OVER),
        ({}, 50, HALF, Do.START_OVER),
        ({"content-type": "multipart/byteranges; boundary=x"}, 500, HALF, Do.START_OVER),
    ],
)
def test_a_part_continues_only_what_it_fits(headers, length, progress, do):
    """206 is taken when place, size, total and version are those asked for; otherwise the transfer starts again."""
    assert after_answer(Answer(206, headers, length), progress, ranged=True).do is do


@pytest.mark.parametrize(
    ("span", "length", "do"),
    [("bytes 0-99/100", 100, Do.TAKE_ALL), ("bytes 0-49/100", 50, Do.START_OVER), ("bytes 0-99/*", 100, Do.START_OVER)],
)
def test_a_part_nobody_asked_for_is_fine_when_it_is_everything(span, length, do):
    """Some servers answer 206 to a plain request."""
    assert after_answer(Answer(206, {"content-range": span}, length), Progress(), ranged=False).do is do


@each_row(
    ("status", "ranged", "body", "do"),
    [
        (200, True, b"", Do.TAKE_ALL),
        (200, False, b"", Do.TAKE_ALL),
        (416, True, b"", Do.START_OVER),
        (416, False, b"", Do.STOP),
        (401, True, b"", Do.FRESH_URL),
        (403, True, b"", Do.FRESH_URL),
        (404, False, b"", Do.FRESH_URL),
        (410, False, b"", Do.FRESH_URL),
        (400, False, b"<Code>ExpiredToken</Code>", Do.FRESH_URL),
        (400, False, b"<Code>InvalidArgument</Code>", Do.STOP),
        (405, False, b"", Do.STOP),
        (204, False, b"", Do.STOP),
        (304, False, b"", Do.STOP),
        (302, False, b"", Do.STOP),
        (202, False, b"", Do.WAIT),
        (408, False, b"", Do.WAIT),
        (429, False, b"", Do.WAIT),
        (500, True, b"", Do.WAIT),
        (503, False, b"", Do.WAIT),
    ],
)
def test_statuses(status, ranged, body, do):
    """Every status has one meaning."""
    verdict = after_answer(Answer(status, {}, None, body), HALF, ranged=ranged)
    assert verdict.do is do
    assert (verdict.error is None) == (do is Do.TAKE_ALL)
    if do is Do.STOP:
        assert isinstance(verdict.error, ViduDownloadRefusedError)


def test_an_error_carries_what_the_server_said():
    """Status, Retry-After and the beginning of the body are in the error, without queries of URLs."""
    answer = Answer(503, {"retry-after": "7"}, None, b"busy, see https://x.example.com/a?sig=secret")
    error = after_answer(answer, Progress(), ranged=False).error
    assert error is not None
    assert (error.status_code, error.retry_after) == (503, 7)
    assert "busy" in str(error)
    assert "secret" not in str(error)


@each_row(
    ("headers", "validator"),
    [
        ({"etag": '"v1"'}, '"v1"'),
        ({"etag": 'W/"v1"'}, None),
        ({"etag": "v1"}, None),
        ({"etag": '""'}, None),
        ({}, None),
        ({"last-modified": "Mon, 06 Jul 2026 10:00:00 GMT"}, "Mon, 06 Jul 2026 10:00:00 GMT"),
        (
            {"last-modified": "Mon, 06 Jul 2026 10:00:00 GMT", "date": "Mon, 06 Jul 2026 10:00:01 GMT"},
            "Mon, 06 Jul 2026 10:00:00 GMT",
        ),
        ({"last-modified": "Mon, 06 Jul 2026 10:00:00 GMT", "date": "Mon, 06 Jul 2026 10:00:00 GMT"}, None),
        ({"last-modified": "Mon, 06 Jul 2026 10:00:00 GMT", "etag": 'W/"v1"'}, None),
        ({"last-modified": "yesterday"}, None),
        ({"etag": '"v1"', "accept-ranges": "none"}, None),
    ],
)
def test_validators(headers, validator):
    """Only what proves equal bytes goes into If-Range."""
    assert validator_of(headers) == validator


def test_only_a_validated_rest_is_asked_for():
    """Without a validator, or without bytes, the whole file is asked for."""
    assert HALF.headers() == {"Range": "bytes=50-", "If-Range": '"v1"'}
    assert Progress(50, 100, None).headers() == {}
    assert Progress(0, 100, '"v1"').headers() == {}


def test_the_budget_resets_only_beyond_the_furthest_byte():
    """Progress earns new tries; coming to the same point again and again does not."""
    failures = Failures(2, Backoff(base=1.0))
    error = ViduDownloadError("broken")
    reached = (LEAST_GAIN, LEAST_GAIN, 2 * LEAST_GAIN, 2 * LEAST_GAIN, 2 * LEAST_GAIN)
    assert [failures.count(error, at) is None for at in reached] == [False, False, False, False, True]


def test_a_trickle_earns_no_new_tries():
    """A few bytes more at every try do not count as progress."""
    failures = Failures(2, Backoff(base=1.0))
    error = ViduDownloadError("too slow")
    assert [failures.count(error, at) is None for at in (40, 41, 43)] == [False, False, True]


def test_the_budget_ends_even_with_progress():
    """A server that gives a little per connection does not hold the worker for ever."""
    failures = Failures(2, Backoff(base=1.0))
    counted = [failures.count(ViduDownloadError("broken"), at * LEAST_GAIN) is None for at in range(1, 30)]
    assert counted.index(True) == 20


def test_no_retries_means_none():
    """With max_retries 0 the first failure is the last."""
    assert Failures(0, Backoff()).count(ViduDownloadError("broken"), 5) is None


def test_retry_after_is_a_lower_bound():
    """The server's wish is honoured."""
    delay = Failures(3, Backoff(base=1.0)).count(ViduDownloadError("busy", retry_after=30), 0)
    assert delay is not None
    assert delay >= 30


def test_pace_is_judged_by_the_last_window():
    """A fast start does not excuse a trickle, and a long transfer is not a slow one."""
    pace = Pace(least=1000, window=60)
    pace.start(0, 0)
    assert not pace.is_too_slow(59, 0)
    assert not pace.is_too_slow(60, 60_000)
    assert not pace.is_too_slow(100, 60_001)
    assert pace.is_too_slow(120, 60_002)


@each_row(
    ("count", "old", "new", "words"),
    [
        (1, "https", "https", None),
        (5, "http", "https", None),
        (6, "https", "https", "more than 5"),
        (1, "https", "http", "unencrypted"),
        (1, "http", "http", None),
        (1, "https", None, "not an http"),
    ],
)
def test_redirects(count, old, new, words):
    """Up to five, never to cleartext, never out of http(s)."""
    problem = redirect_problem(count, old, new)
    assert (words is None and problem is None) or (words and problem and words in problem)
