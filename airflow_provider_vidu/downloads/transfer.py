"""The transfer engine: one file from a URL into a store, whole or not at all.

It uses two buffers in turn, hashes in the same pass and resumes broken transfers. The decisions are elsewhere:
:mod:`.decisions` interprets answers, :mod:`.content` checks content, :mod:`..network.addresses` checks addresses.
"""

from __future__ import annotations

import logging
import mmap
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_vidu.common.artifacts import Artifact, family_of
from airflow_provider_vidu.common.progress import ProgressLog, finish_line
from airflow_provider_vidu.common.redaction import Secret
from airflow_provider_vidu.common.text import sanitized, without_query
from airflow_provider_vidu.downloads.decisions import (
    MAX_FRESH_URLS,
    Do,
    Failures,
    Pace,
    Progress,
    Verdict,
    after_answer,
    codings_of,
    redirect_problem,
    validator_of,
)
from airflow_provider_vidu.downloads.incoming_file import IncomingFile, OpenWriter
from airflow_provider_vidu.exceptions import (
    ViduDownloadError,
    ViduDownloadRefusedError,
    ViduError,
    ViduIncompleteError,
    ViduURLExpiredError,
)
from airflow_provider_vidu.network.connection import TooSlowError
from airflow_provider_vidu.network.download_url import DownloadAccess, DownloadURL
from airflow_provider_vidu.network.limits import SLOW_TIMEOUTS
from airflow_provider_vidu.network.stream import NETWORK_ERRORS, Stream, failure_text
from airflow_provider_vidu.polling.retries import Backoff
from airflow_provider_vidu.stores.base import StoredRecord

BUFFER_BYTES: Final = 1024 * 1024
_NAP: Final = 0.5
_THROUGH_PROXY: Final = (
    " It was requested through the proxy {}, which may itself have refused it; NO_PROXY exempts a host from the proxy."
)
_UNPROVEN: Final = (
    "The server announced no length and closed the connection after %s bytes, and this kind of file does not show "
    "where it ends: nothing proves that it is complete."
)


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits and timing of a transfer.

    :param artifact: the wanted file; None for a result of any medium.
    :param max_bytes: the largest accepted size.
    :param clock: returns monotonic seconds.
    """

    artifact: Artifact | None = None
    max_bytes: int | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(base=1.0, cap=60.0))
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)


class Transfer:
    """One download. Create an instance and call :meth:`run` once.

    :param url: the file's URL; None to call ``fresh_url`` first.
    :param open_writer: opens the destination once the content is known to be acceptable.
    :param fresh_url: returns a new URL after the old one has expired; None if there is no way to get one.
    """

    def __init__(
        self,
        url: str | None,
        open_writer: OpenWriter,
        *,
        access: DownloadAccess | None = None,
        rules: Rules | None = None,
        fresh_url: Callable[[], str] | None = None,
        log: Any = None,
    ) -> None:
        self._url = url
        self._open_writer = open_writer
        self._access = access or DownloadAccess()
        self._rules = rules or Rules()
        self._fresh_url = fresh_url
        self._log: Any = log or logging.getLogger(__name__)
        self._failures = Failures(self._access.max_retries, self._rules.backoff)
        self._pace = Pace(window=SLOW_TIMEOUTS * self._access.timeout)
        self._progress_log = ProgressLog()
        # One from the heap stays with its thread's arena: a thousand small files in a batch's threads kept 30 MiB.
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._buffers = [memoryview(mmap.mmap(-1, BUFFER_BYTES, flags=private)) for _ in range(2)]
        self._seconds = 0.0
        """Seconds spent receiving the file's bodies, without requests, pauses and the end of an upload."""
        self._fresh_urls = 0
        self._cancelled = False
        self._relay: str | None = None
        self._stream: Stream | None = None
        self._file = self._new_file()

    def run(self) -> StoredRecord:
        """Fetch and publish.

        :return: the record of the stored file.
        :raises ViduDownloadRefusedError: when address, size or content are not allowed.
        :raises ViduURLExpiredError: when the URL has expired and there is no way to get a new one.
        :raises ViduIncompleteError: when the file is incomplete after all retries.
        :raises ViduStorageError: when it could not be written.
        :raises ViduDownloadError: for any other failure. After any exception nothing has been published.
        """
        try:
            if self._url is None:
                self._url = self._another_url(None)
            self._log.info("Fetching %s", self._source)
            while not self._attempt(self._url):
                pass
            self._check_cancelled()
            record = self._file.publish(self._source)
        except BaseException:  # also after SystemExit and KeyboardInterrupt, leave nothing half-done
            self._file.discard()
            raise
        if self._file.unpacked:
            self._log.info(
                "The server sent the file %s-compressed although no compression was requested; it is stored unpacked.",
                self._file.unpacked,
            )
        self._log.info("%s", finish_line(self._file.received, self._file.content_type, self._seconds))
        return record

    def cancel(self) -> None:
        """Make :meth:`run` raise soon. May be called from a signal handler or another thread."""
        self._cancelled = True
        if (stream := self._stream) is not None:
            stream.abort()

    def _attempt(self, url: str) -> bool:
        """Send one request and take the answer; return whether the file is complete."""
        self._check_cancelled()
        progress = self._file.progress
        problem: str | None = None
        broken: ViduDownloadError | None = None
        try:
            with closing(self._open(url, progress)) as stream:
                self._relay = stream.relay
                verdict = after_answer(stream.answer(), progress, ranged=progress.may_resume)
                if takes := verdict.do in (Do.TAKE_ALL, Do.TAKE_REST):
                    problem = self._take(stream, verdict)
        except NETWORK_ERRORS as error:
            broken, is_final = self._broken(error), isinstance(error, ssl.SSLCertVerificationError)
        finally:
            self._stream = None
        if broken is not None:
            # Raised outside the handler: http.client's errors quote the answer, which may contain the key.
            self._check_cancelled()
            if is_final:
                raise broken
            self._wait_or_raise(broken)
            return False
        if not takes:
            self._act_on(verdict)
            return False
        return self._finish(problem)

    def _open(self, url: str, progress: Progress) -> Stream:
        """Send the request and follow redirects, without the key from the first foreign origin on."""
        family = family_of(self._rules.artifact)
        accept = {"Accept": f"{family}/*,application/octet-stream;q=0.9,*/*;q=0.5" if family else "*/*"}
        target, own, hops = DownloadURL.parse(url), True, 0
        while True:
            own = own and self._access.origin is not None and target.origin == self._access.origin
            stream = self._stream = Stream(target, self._access, {**accept, **progress.headers()}, own=own)
            if stream.status not in (301, 302, 303, 307, 308) or stream.location is None:
                return stream
            stream.close()
            hops += 1
            target = self._next_target(target, stream.location, hops)

    def _next_target(self, target: DownloadURL, location: Secret, hops: int) -> DownloadURL:
        following = _followed(target, location)
        if problem := redirect_problem(hops, target.scheme, following.scheme if following else None):
            # Secrets are looked for before anything else changes the spelling.
            shown = _absolute(target, self._access.redact_text(location.reveal(), target.url))
            raise ViduDownloadRefusedError(
                f"Not fetched from {without_query(target.url)}: {problem} ({sanitized(without_query(shown), 120)})."
            )
        assert following is not None
        return following

    def _act_on(self, verdict: Verdict) -> None:
        """Wait, start over, get another URL or give up, after an answer without the file."""
        assert verdict.error is not None
        if verdict.do is Do.STOP:
            raise verdict.error
        if verdict.do is Do.FRESH_URL:
            self._url = self._another_url(verdict.error)
            return
        if verdict.do is Do.START_OVER:
            self._start_over()
        self._wait_or_raise(verdict.error)

    def _another_url(self, expired: ViduError | None) -> str:
        """Request a fresh URL, a few times at most."""
        through = _THROUGH_PROXY.format(self._relay) if self._relay else ""
        if self._fresh_url is None:
            status = expired.status_code if expired else None
            raise ViduURLExpiredError(
                f"The URL {self._source} is invalid or has expired, and without a generation_id no new one can be "
                f"requested. Pass generation_id, or download sooner: such URLs expire within hours.{through}",
                status_code=status,
            )
        if expired is not None:
            self._fresh_urls += 1
            if self._fresh_urls > MAX_FRESH_URLS:
                raise ViduDownloadError(
                    f"The server refused {self._fresh_urls} URLs in a row, including fresh ones: {expired}{through}",
                    status_code=expired.status_code,
                )
            if self._fresh_urls > 1:
                self._nap(self._rules.backoff.delay(self._fresh_urls - 1, expired))
            self._log.info("The URL has expired (HTTP %s); requesting a fresh one.", expired.status_code)
        return self._fresh_url()

    def _take(self, stream: Stream, verdict: Verdict) -> str | None:
        """Take the body; return what is wrong with its end, or None if the file is complete."""
        if verdict.do is Do.TAKE_ALL:
            self._start_over()
            path = stream.target.path.partition("?")[0]
            validator = validator_of(stream.headers, stream.status)
            self._file.describe(stream.headers.get("content-type"), validator, path, codings_of(stream.headers))
        file, clock = self._file, self._rules.clock
        file.expect(verdict.total)
        began = clock()
        self._pace.start(began, file.received)
        self._progress_log.start(began, file.received, file.total)
        before, first = self._seconds, None
        while count := stream.readinto(self._buffers[0]):
            now = clock()
            first = now if first is None else first
            file.accept(self._buffers[0][:count])
            self._buffers.reverse()  # the last piece may still be hashed
            self._seconds = before + now - first
            if line := self._progress_log.line(now, file.received, file.total):
                self._log.info("%s", line)
            if self._cancelled or self._pace.is_too_slow(now, file.received):
                self._check_cancelled()
                raise TooSlowError
        problem = file.problem(surplus=file.received == file.total and stream.has_surplus())
        if problem is None and not (stream.shows_its_end or file.shows_its_end):
            self._log.warning(_UNPROVEN, f"{file.received:,}")
        return problem

    def _finish(self, problem: str | None) -> bool:
        """Handle the end of a body; return whether the file is complete, else wait before the next attempt."""
        self._check_cancelled()
        if problem is None:
            self._file.complete()
            return True
        error = ViduIncompleteError(problem)
        if self._file.received in (0, self._file.total):
            # An empty body, or one with surplus bytes, cannot be continued.
            self._start_over()
        self._wait_or_raise(error)
        return False

    def _broken(self, error: BaseException) -> ViduDownloadError:
        detail = self._access.redact_text(failure_text(error), self._url)
        if self._file.received == 0:
            return ViduDownloadError(f"The file at {self._source} could not be fetched: {detail}.")
        of = f" of {self._file.total:,}" if self._file.total is not None else ""
        return ViduIncompleteError(f"The transfer broke after {self._file.received:,}{of} bytes: {detail}.")

    def _wait_or_raise(self, error: ViduError) -> None:
        delay = self._failures.count(error, self._file.received)
        if delay is None:
            if self._failures.retries:
                error.reason += f" Gave up after {self._failures.in_row} failures in a row."
            raise error
        self._log.warning("%s Retrying in %.1f s.", error, delay)
        self._nap(delay)

    def _nap(self, seconds: float) -> None:
        # In slices: a signal handler only sets a flag, which does not end a sleep.
        while seconds > 0:
            self._check_cancelled()
            self._rules.sleep(min(seconds, _NAP))
            seconds -= _NAP
        self._check_cancelled()

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise ViduDownloadError("The download was cancelled; nothing was published.")

    def _start_over(self) -> None:
        self._seconds = 0.0
        self._file.discard()
        self._file = self._new_file()

    def _new_file(self) -> IncomingFile:
        return IncomingFile(self._open_writer, self._rules.artifact, self._rules.max_bytes, self._redact)

    def _redact(self, data: bytes) -> bytes:
        return self._access.redact(data, self._stream.target.url if self._stream else self._url)

    @property
    def _source(self) -> str:
        return sanitized(without_query(self._url), 300) if self._url else "the generation's URL"


def _followed(target: DownloadURL, location: Secret) -> DownloadURL | None:
    """Return what a redirect leads to; None when that is not an http(s) URL. No frame that raises holds it."""
    try:
        return DownloadURL.parse(target.redirected(location.reveal()))
    except (ViduDownloadRefusedError, ValueError):  # ValueError: of urlsplit, for http://[ and the like
        return None


def _absolute(target: DownloadURL, location: str) -> str:
    try:
        return target.redirected(location)
    except ValueError:
        return location
