"""Polls the open generations of a batch and stores their files, several at a time, while the leg submits."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.batches.arguments import Settings
from airflow_provider_vidu.batches.jobs import Open
from airflow_provider_vidu.batches.rows import Row, stem
from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduConfigError,
    ViduError,
    ViduNotFoundError,
    ViduStorageError,
)
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.orders.results import count_of, log_others, store_result
from airflow_provider_vidu.polling.watch import Done, Failed, PollPolicy, Watch
from airflow_provider_vidu.stores.base import StoredRecord
from airflow_provider_vidu.stores.naming import candidate_names
from airflow_provider_vidu.stores.targets import FolderTarget

if TYPE_CHECKING:
    from airflow_provider_vidu.api.settings.config import ViduConfig
    from airflow_provider_vidu.downloads.transfer import Transfer
    from airflow_provider_vidu.stores.destination import Destination

POLLS: Final = 8
DOWNLOADS: Final = 3
"""How many at once. An upload to a store takes about 15 MiB of memory."""
EARLY_POLL_SECONDS: Final = 3.0
"""Between two polls while it is unknown how long a generation takes."""
EARLY_SECONDS: Final = 20.0
USUAL_SHARE: Final = 0.8
"""The share of the usual time after which an end is likely, so that polls become more frequent."""
DUE_SHARE: Final = 1 / 15
BEAT_SECONDS: Final = 5.0
"""Between two signs of life while generations are cancelled."""


class Quiet:
    """A logger whose information goes to the debug level: a batch logs a line per leg, not per clip."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def info(self, *arguments: Any, **known: Any) -> None:
        """Log at the debug level."""
        self._log.debug(*arguments, **known)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class QuietHook(ViduHook):
    """A hook that does not log each request."""

    @property
    def log(self) -> Any:
        """The hook's logger, without information."""
        return Quiet(super().log)


@dataclass(frozen=True, slots=True)
class Stored:
    """The file of a generation is stored."""

    key: str
    job: Open
    generation: Generation
    record: StoredRecord
    ended: float


@dataclass(frozen=True, slots=True)
class Lost:
    """A generation has failed, or has no file.

    :param is_paid: whether the generation itself has succeeded, or may still succeed.
    """

    key: str
    job: Open
    error: ViduError
    generation: Generation | None = None
    is_paid: bool = False


Collected = Stored | Lost


@dataclass(slots=True)
class _Watched:
    key: str
    job: Open
    watch: Watch
    poll_at: float
    is_busy: bool = False
    ended_at: float | None = None


class Collector:
    """The open generations of a leg.

    All methods belong to the leg's own thread; other threads only send requests and store files.

    :param config: the connection, already looked up.
    :param usual: returns how long a generation usually takes, in seconds, if that is known.
    """

    def __init__(
        self,
        settings: Settings,
        config: ViduConfig,
        destination: Destination,
        log: Any,
        usual: Callable[[], float | None],
    ) -> None:
        self._settings = settings
        self._config = config
        self._destination = destination
        self._log = Quiet(log)
        self._usual = usual
        self._policy = PollPolicy.for_worker(settings.poll_interval, settings.max_failures)
        self._watched: dict[str, _Watched] = {}
        self._rows: dict[str, Row] = {}
        self._polls: dict[Future[Generation], _Watched] = {}
        self._downloads: dict[Future[StoredRecord], tuple[_Watched, Generation]] = {}
        self._waiting: deque[tuple[_Watched, Generation]] = deque()
        self._hooks: SimpleQueue[ViduHook] = SimpleQueue()
        self._pollers = ThreadPoolExecutor(POLLS, thread_name_prefix="vidu-batch-poll")
        self._storers = ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="vidu-batch-store")
        self._transfers: set[Transfer] = set()
        self._is_cancelled = False
        self._has_others = False
        self.is_resting = False
        """Whether no more polls begin: those of many generations at a slow service would never all be answered."""
        self.trouble: ViduError | None = None
        """An error of the account or of the destination, which concerns all rows."""
        self.last_end = time.time()
        self.names: Mapping[str, str] = {}
        """The names of files that differ from those of ``naming``, by their rows' keys (``rows.names_beside``)."""

    @property
    def in_flight(self) -> int:
        """How many generations have not ended, as far as it is known."""
        return sum(one.ended_at is None for one in self._watched.values())

    @property
    def is_busy(self) -> bool:
        """Whether something is being polled or stored."""
        return bool(self._polls) or self.is_storing

    @property
    def is_storing(self) -> bool:
        """Whether a file is being stored, or is about to be."""
        return bool(self._downloads or self._waiting)

    def open_jobs(self) -> list[Open]:
        """Return the generations that have not ended, as far as it is known."""
        return [one.job for one in self._watched.values() if one.ended_at is None]

    def watch(self, row: Row, job: Open, *, poll_at: float | None = None, done: Generation | None = None) -> None:
        """Take over a generation.

        :param poll_at: when to poll first, in epoch seconds; None to decide by its age.
        :param done: the generation, if the create's answer holds its result.
        """
        watch = Watch(
            self._policy,
            generation_id=job.id,
            since=job.at,
            conn_id=self._settings.vidu_conn_id,
            known=True,
        )
        watched = _Watched(row.key, job, watch, poll_at if poll_at is not None else 0.0)
        if poll_at is None:
            watched.poll_at = self._next_poll(watched, time.time(), None)
        self._watched[row.key], self._rows[row.key] = watched, row
        if done is not None:
            self._ended(watched, done)

    def forget(self, key: str) -> None:
        """Stop watching a row's generation."""
        self._watched.pop(key, None)
        self._rows.pop(key, None)

    def poll_due(self) -> None:
        """Begin the polls that are due, and the downloads for which there is room."""
        now = time.time()
        for one in self._watched.values() if not self.is_resting else ():
            if one.ended_at is None and not one.is_busy and one.poll_at <= now and len(self._polls) < 2 * POLLS:
                one.is_busy = True
                self._polls[self._pollers.submit(self._polled, one.job)] = one
        while self._waiting and len(self._downloads) < DOWNLOADS and self.trouble is None:
            watched, generation = self._waiting.popleft()
            self._downloads[self._storers.submit(self._stored, self._rows[watched.key], watched.job, generation)] = (
                watched,
                generation,
            )
        if self.trouble is not None and not self._downloads:
            self._waiting.clear()  # a retry of the task stores them

    def next_poll(self) -> float:
        """Return when the next poll is due, in epoch seconds."""
        times = (one.poll_at for one in self._watched.values() if one.ended_at is None and not one.is_busy)
        return min(times, default=time.time() + EARLY_SECONDS)

    def pause(self, seconds: float) -> None:
        """Wait until something has happened, at most for the given seconds."""
        futures: list[Future[Any]] = [*self._polls, *self._downloads]
        if futures:
            wait(futures, timeout=seconds, return_when="FIRST_COMPLETED")
        else:
            time.sleep(seconds)

    def collected(self) -> Iterator[Collected]:
        """Yield what has ended since the last call."""
        for poll in [poll for poll in self._polls if poll.done()]:
            watched = self._polls.pop(poll)
            watched.is_busy = False
            if (lost := self._took_poll(watched, poll)) is not None:
                yield lost
        for download in [download for download in self._downloads if download.done()]:
            watched, generation = self._downloads.pop(download)
            if (collected := self._took_download(watched, generation, download)) is not None:
                yield collected

    def cancel(self) -> None:
        """Stop all transfers soon; may be called from a signal handler."""
        self._is_cancelled = True
        for transfer in list(self._transfers):
            transfer.cancel()

    def close(self) -> None:
        """Wait for the threads, and release them."""
        self._pollers.shutdown(wait=True, cancel_futures=True)
        self._storers.shutdown(wait=True, cancel_futures=True)

    def _took_poll(self, watched: _Watched, poll: Future[Generation]) -> Lost | None:
        now = time.time()
        generation: Generation | None = None
        try:
            generation = poll.result()
        except ViduError as error:
            result = watched.watch.missed(error, now)
        else:
            result = watched.watch.saw(generation, now)
        if isinstance(result, Done):
            self._ended(watched, result.generation)
        elif isinstance(result, Failed):
            return self._gave_up(watched, generation, result.error)
        else:
            if result.paused and self.trouble is None:
                self._log.warning("Generation %s: %s", watched.job.id, result.note)
            watched.poll_at = self._next_poll(watched, now, result.delay, is_trouble=result.trouble)
        return None

    def _gave_up(self, watched: _Watched, generation: Generation | None, error: ViduError) -> Lost:
        self.last_end = time.time()
        self.forget(watched.key)
        if isinstance(error.__cause__, ViduNotFoundError):  # no retry may order it again, but a clear
            error = error.__cause__
        is_known = (generation is not None and generation.failed) or isinstance(error, ViduNotFoundError)
        # Otherwise the service did not answer, or named no file: the generation is paid for, and may be polled again.
        return Lost(watched.key, watched.job, error, generation, is_paid=not is_known)

    def _ended(self, watched: _Watched, generation: Generation) -> None:
        watched.ended_at = self.last_end = time.time()
        self._waiting.append((watched, generation))

    def _took_download(
        self, watched: _Watched, generation: Generation, download: Future[StoredRecord]
    ) -> Collected | None:
        assert watched.ended_at is not None
        self.forget(watched.key)
        try:
            record = download.result()
        except ViduError as error:
            if isinstance(error, (ViduStorageError, ViduAuthError)) or self._is_cancelled:
                self.trouble = self.trouble or error  # it stays open: a retry of the task stores its file
                return None
            return Lost(watched.key, watched.job, error, generation, is_paid=True)
        if not self._has_others and count_of(generation, self._settings.artifact) > 1:
            self._has_others = True  # once, not for each of thousands of rows
            log_others(generation, self._settings.artifact, self._log)
        return Stored(watched.key, watched.job, generation, record, watched.ended_at)

    def _next_poll(self, one: _Watched, now: float, delay: float | None, *, is_trouble: bool = False) -> float:
        """Return when to poll a generation again.

        :param delay: of the policy; None before the first poll.
        """
        if self._settings.poll_interval is not None or (is_trouble and delay is not None):
            return now + (self._policy.delay() if delay is None else delay)
        usual, age = self._usual(), now - one.job.at
        if usual is None:
            pause = EARLY_POLL_SECONDS if age < EARLY_SECONDS else self._policy.delay()
            return now + min(pause, delay or pause)
        if age < usual * USUAL_SHARE:
            return now + min(usual * USUAL_SHARE - age, delay or usual)
        return now + min(max(usual * DUE_SHARE, 0.5), delay or usual)

    @contextmanager
    def _hook(self) -> Iterator[ViduHook]:
        """Lend a hook to a thread: its connections are not shared."""
        hook = lent(self._hooks, self._settings.vidu_conn_id, self._config)
        try:
            yield hook
        finally:
            self._hooks.put(hook)

    def _polled(self, job: Open) -> Generation:
        with self._hook() as hook:
            return hook.get_generation(job.id, endpoint=job.endpoint, retries=0)

    def checked(self, row: Row) -> Row:
        """Return a row that is to be ordered, with a problem if something is in the way of its file or folder.

        Only a local destination shows that.

        :raises ViduStorageError: when its mount is missing, or does not answer.
        """
        if row.problem is not None:
            return row
        likeliest = candidate_names(self._stem(row, None), self._settings.artifact)[0]
        if (reason := self._destination.obstacle(likeliest)) is None:
            return row
        message = f"The row was not ordered: its file could not be stored. {reason.rstrip('.')}."
        return replace(row, problem=ViduConfigError(message))

    def _stem(self, row: Row, generation: Generation | None) -> str:
        return self.names.get(row.key) or stem(row, self._settings.naming, generation)

    def _stored(self, row: Row, job: Open, generation: Generation) -> StoredRecord:
        name = self._stem(row, generation)
        target = FolderTarget(self._destination, "replace", name, self._settings.artifact)
        transfers: list[Transfer] = []

        def began(transfer: Transfer) -> None:
            transfers.append(transfer)
            self._transfers.add(transfer)
            if self._is_cancelled:
                transfer.cancel()

        try:
            with self._hook() as hook:
                return store_result(
                    generation,
                    target,
                    hook=hook,
                    endpoint=job.endpoint,
                    artifact=self._settings.artifact,
                    most=self._settings.most,
                    log=self._log,
                    on_start=began,
                )
        finally:
            self._transfers.difference_update(transfers)


def lent(hooks: SimpleQueue[ViduHook], conn_id: str, config: ViduConfig) -> ViduHook:
    """Return a hook that no other thread uses: one that was put back, or a new one."""
    try:
        return hooks.get_nowait()
    except Empty:
        return QuietHook(conn_id, config=config)


def cancelled(conn_id: str, config: ViduConfig, jobs: Sequence[Open], beat: Callable[[], None]) -> int:
    """Cancel generations, best effort, several at a time; return how many the service has cancelled.

    :param config: the connection, already looked up, because a signal handler cannot do that.
    :param beat: is called every few seconds meanwhile: a service that does not answer takes a minute for each.
    """
    hooks: SimpleQueue[ViduHook] = SimpleQueue()

    def cancel(job: Open) -> bool:
        one = lent(hooks, conn_id, config)
        try:
            return one.cancel_generation(job.id, endpoint=job.endpoint).accepted
        except ViduError:
            return False
        finally:
            hooks.put(one)

    with ThreadPoolExecutor(POLLS, thread_name_prefix="vidu-batch-cancel") as pool:
        futures = [pool.submit(cancel, job) for job in jobs]
        while wait(futures, timeout=BEAT_SECONDS).not_done:
            beat()
        return sum(future.result() for future in futures)
