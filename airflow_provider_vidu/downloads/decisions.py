"""Decides what a transfer does after each answer and failure. No I/O."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.exceptions import ViduDownloadError, ViduDownloadRefusedError, ViduError
from airflow_provider_vidu.network.bodies import real_codings
from airflow_provider_vidu.network.framing import Answer
from airflow_provider_vidu.polling.retries import Backoff, retry_after

MAX_REDIRECTS: Final = 5
MAX_FRESH_URLS: Final = 3
"""New URLs of a generation requested within one attempt of the task."""

LEAST_GAIN: Final = 4096
"""Bytes beyond the furthest point that count as progress; a trickle gains a few on every attempt."""

# At most 19 digits per number: Python refuses to convert thousands, and no file is longer.
_CONTENT_RANGE = re.compile(r"bytes[ \t]{1,9}([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)
_EXPIRED_STATUSES: Final = frozenset({401, 403, 404, 410})
_TRANSIENT_STATUSES: Final = frozenset({202, 408, 425, 429})
# 201: some gateways create the file on request. 203: a proxy changed the answer. The bytes prove the content.
_WHOLE_STATUSES: Final = frozenset({200, 201, 203})
_PROXY_WANTS_PASSWORD: Final = 407
_EXPIRED = re.compile(rb"expired|RequestTimeTooSkewed", re.IGNORECASE)


class Do(enum.Enum):
    """The next step of a transfer."""

    TAKE_ALL = "take the body as the whole file, from its first byte"
    TAKE_REST = "take the body as the continuation"
    START_OVER = "discard the bytes received and request the whole file"
    FRESH_URL = "the URL has expired: get another one"
    WAIT = "wait and retry"
    STOP = "give up"


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a transfer.

    :param received: bytes received.
    :param total: bytes of the whole file, if announced.
    :param validator: identifies this version of the file (for If-Range), or None.
    :param codings: the content codings declared by the first answer.
    """

    received: int = 0
    total: int | None = None
    validator: str | None = None
    codings: tuple[str, ...] = ()

    @property
    def may_resume(self) -> bool:
        """Whether the rest can be requested without risking a mixture of two files."""
        return self.received > 0 and self.validator is not None

    def headers(self) -> dict[str, str]:
        """Return the request headers for the rest of the file, if it may be resumed."""
        if not self.may_resume or self.validator is None:
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self.validator}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The next step, with the file's total size or the error."""

    do: Do
    total: int | None = None
    error: ViduError | None = None


def after_answer(answer: Answer, progress: Progress, *, ranged: bool) -> Verdict:
    """Decide the next step after an answer that is not a redirect.

    :param answer: status, headers, and the body's announced length (None if there is none).
    :param progress: the progress when the request was sent.
    :param ranged: whether only the rest was requested.
    """
    if answer.status in _WHOLE_STATUSES:
        return Verdict(Do.TAKE_ALL, total=answer.length)
    if answer.status == 206:
        return _after_partial(answer, progress, ranged=ranged)
    if answer.status == 416 and ranged:
        return Verdict(Do.START_OVER, error=_http_error(answer, "the server cannot continue the transfer"))
    return _after_failure(answer)


def _after_partial(answer: Answer, progress: Progress, *, ranged: bool) -> Verdict:
    mixed = Verdict(Do.START_OVER, error=_http_error(answer, "the server sent another part than was requested"))
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", "").strip())
    if match is None:
        return mixed
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if last < first or (total is not None and last >= total) or answer.length not in (None, last - first + 1):
        return mixed
    if not ranged:
        whole = first == 0 and total == last + 1
        return Verdict(Do.TAKE_ALL, total=total) if whole else mixed
    if first != progress.received or _is_other_version(answer, progress):
        return mixed
    if progress.total is not None and total not in (None, progress.total):
        return mixed
    if codings_of(answer.headers) != progress.codings:
        return mixed  # a part of a compressed file continues only that file
    return Verdict(Do.TAKE_REST, total=total if total is not None else progress.total)


def _is_other_version(answer: Answer, progress: Progress) -> bool:
    # A server that supports Range but not If-Range may continue with another file. A 206 must repeat the ETag
    # (RFC 9110, 15.3.7), so one without it proves nothing; the date need not be repeated.
    if (progress.validator or "").startswith('"'):
        return answer.headers.get("etag", "").strip() != progress.validator
    return answer.headers.get("last-modified", progress.validator) != progress.validator


def _after_failure(answer: Answer) -> Verdict:
    if answer.status in _EXPIRED_STATUSES or (answer.status == 400 and _EXPIRED.search(answer.body)):
        return Verdict(Do.FRESH_URL, error=_http_error(answer, "the URL is no longer valid"))
    if answer.status in _TRANSIENT_STATUSES or answer.status >= 500:
        return Verdict(Do.WAIT, error=_http_error(answer, "the server cannot serve the file now"))
    refusal = "the server refused the request"
    if answer.status == _PROXY_WANTS_PASSWORD:
        refusal = "the proxy requires a user name and password; add them to the proxy's URL"
    problem = f"Not fetched: {refusal}{_quoted(answer)}"
    return Verdict(Do.STOP, error=ViduDownloadRefusedError(problem, status_code=answer.status))


def _http_error(answer: Answer, problem: str) -> ViduDownloadError:
    return ViduDownloadError(
        f"The file could not be fetched: {problem}{_quoted(answer)}",
        status_code=answer.status,
        retry_after=retry_after(answer.headers),
    )


def _quoted(answer: Answer) -> str:
    message = redacted(answer.body.decode("utf-8", "replace"))
    return f". It said: {message}" if message else "."


def codings_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the real content codings that an answer declares, in lower case."""
    return tuple(real_codings(headers.get("content-encoding", "")))


def validator_of(headers: Mapping[str, str], status: int = 200) -> str | None:
    """Return the validator for If-Range: a strong ETag, else a Last-Modified that is old enough, else None.

    A weak ETag promises equal meaning, not equal bytes. A date proves nothing within the second in which the file was
    written (RFC 9110, 8.8.2.2). ``Accept-Ranges: none`` rules resuming out, and so does 203: the ETag is the origin's,
    but the bytes are not.
    """
    if status == 203 or headers.get("accept-ranges", "").strip().lower() == "none":
        return None
    etag = headers.get("etag", "").strip()
    if etag:
        return etag if len(etag) > 2 and etag.startswith('"') and etag.endswith('"') else None
    modified, now = _date(headers.get("last-modified")), _date(headers.get("date"))
    if modified is None or (now is not None and now - modified < timedelta(seconds=1)):
        return None
    return headers["last-modified"]


def _date(value: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(value) if value else None
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return date if date is not None and date.tzinfo is not None else None


class Failures:
    """Counts the failures of a transfer.

    A gain of at least ``LEAST_GAIN`` bytes resets the count, so that a large file arrives over an unstable line; after
    ten times ``retries`` failures in all it gives up.

    :param retries: tolerated failures in a row.
    """

    def __init__(self, retries: int, backoff: Backoff) -> None:
        self.retries = retries
        self.in_row = 0
        self._backoff = backoff
        self._all = 0
        self._furthest = 0

    def count(self, error: ViduError, received: int) -> float | None:
        """Count a failure after ``received`` bytes; return the seconds to wait, or None to give up."""
        if received - self._furthest >= LEAST_GAIN:
            self._furthest, self.in_row = received, 0
        self.in_row += 1
        self._all += 1
        if self.in_row > self.retries or self._all > 10 * self.retries:
            return None
        return self._backoff.delay(self.in_row, error)


@dataclass(slots=True)
class Pace:
    """Detects a transfer slower than ``least`` bytes a second over the last ``window`` seconds.

    Its total duration does not matter, so a large file may take long.
    """

    least: float = 1024.0
    window: float = 60.0
    since: float = 0.0
    at: int = 0

    def start(self, now: float, received: int) -> None:
        """Begin a new window."""
        self.since, self.at = now, received

    def is_too_slow(self, now: float, received: int) -> bool:
        """Whether the window that ends now received too few bytes."""
        if now - self.since < self.window:
            return False
        is_slow = received - self.at < self.least * (now - self.since)
        self.start(now, received)
        return is_slow


def redirect_problem(count: int, old: str, new: str | None) -> str | None:
    """Return why a redirect must not be followed, or None.

    :param count: the number of this redirect, from 1.
    :param old: the scheme of the URL that redirected.
    :param new: the scheme of the target; None when the target is not an http(s) URL.
    """
    if count > MAX_REDIRECTS:
        return f"there were more than {MAX_REDIRECTS} redirects"
    if new is None:
        return "it redirects to a target that is not an http(s) URL"
    if old == "https" and new == "http":
        return "it redirects from https to unencrypted http"
    return None
