"""Equal orders of several tasks share one create (``reuse="identical"``): who is about to send it says so in a file.

::

    .vidu/claims/<digest of the order>/000001.json     the intent of a create, and its generation as soon as it has one
    .vidu/claims/<digest of the order>/000002.json     of the task that has taken it over since

The file with the highest number is the claim. A file is created only if its name is free, so of several tasks one has
the claim, and the others share its generation. It is given back when the create was refused, or when the file of the
generation is in the catalogue.

A claim whose task has died blocks no task for ever: once its create must have been answered, the account's list shows
whether there is a generation. If it proves that there is none, another task takes the claim over. If it is
inconclusive, nothing is submitted, and the error names the file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.api.ids import checked_id
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.common.values import number
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduNotFoundError, ViduSubmitUnknownError
from airflow_provider_vidu.network.limits import TOTAL_TIMEOUTS
from airflow_provider_vidu.orders.lost_order import GRACE_SECONDS, SETTLE_SECONDS, find_lost
from airflow_provider_vidu.orders.order import OrderRecord
from airflow_provider_vidu.stores.base import DestinationExistsError, StoredFile
from airflow_provider_vidu.stores.small_files import MOST_AHEAD_SECONDS, content_of, create_file, write_file

if TYPE_CHECKING:
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation

PAUSE_SECONDS: Final = 2.0
MOST_TAKEOVERS: Final = 1_000
"""The most files of one claim that are read: other writers of the folder may add files for ever."""
MOST_WAITS: Final = 10.0
"""How many times as long as a create may take one task waits for another's: claims may be renewed for ever."""
MAX_OWNER_CHARS: Final = 300
MOST_BYTES: Final = 64 * 1024
"""The largest claim that is read; one takes about a kilobyte."""


class SharedOrderError(Exception):
    """An equal order of another task has a generation, which this task is to wait for.

    :param since: when it was submitted, in epoch seconds; None if unknown.
    :param finished: the generation, if it has succeeded: the other task is about to store its file, or never will.
    """

    def __init__(self, generation_id: str, since: float | None = None, finished: Generation | None = None) -> None:
        super().__init__(generation_id)
        self.generation_id = generation_id
        self.since = since
        self.finished = finished


class ClaimLostError(Exception):
    """Another task has taken the claim over before the create was sent. No ViduError: it must not be repeated."""


class BusyClaimError(Exception):
    """Another task is about to submit an equal order; raised instead of waiting for it by a ``sleep`` that must not."""


def never_sleep(seconds: float) -> None:
    """Raise BusyClaimError in place of a ``sleep``, where many orders are under way."""
    raise BusyClaimError


class NoClaim:
    """The claim of a task that shares nothing."""

    def look(self, request: str) -> None:
        """Raise if nothing is to be submitted: there is a file, or a generation, of an equal order."""

    def take(self, record: OrderRecord) -> OrderRecord:
        """Claim a create that is about to be sent, or raise as :meth:`look` does; return its intent as of now."""
        return record

    def check(self) -> None:
        """Raise right before a send if another task has taken the claim over."""

    def submitted(self, generation_id: str) -> None:
        """Make the generation known to the tasks with equal orders."""

    def release(self) -> None:
        """Give the claim back, because nothing was created, or the file is in the catalogue."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What the file of a claim holds.

    :param record: the intent of its create, with the generation if there is one.
    """

    number: int
    owner: str
    record: OrderRecord


class Claim(NoClaim):
    """The claim on one order in a folder.

    :param file: returns a file in the claim's folder, by its name.
    :param owner: identifies the task instance, over all of its tries.
    :param look_up: raises if the catalogue has a file of an equal order.
    :param endpoint: of the create; equal orders have the same.
    """

    def __init__(
        self,
        file: Callable[[str], StoredFile],
        owner: str,
        hook: ViduHook,
        look_up: Callable[[], None],
        log: Any,
        endpoint: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint = endpoint
        self._file_of = file
        self._owner = owner
        self._hook = hook
        self._look_up = look_up
        self._log = log
        self._sleep = sleep
        self._own: _Held | None = None

    def look(self, request: str) -> None:
        """Raise if there is a file, or a generation, of an equal order."""
        self._look_up()
        self._settled()

    def take(self, record: OrderRecord) -> OrderRecord:
        """Claim a create that is about to be sent.

        :return: its intent, as of now: waiting for others may have taken minutes.
        :raises SharedOrderError: when an equal order of another task has a generation.
        :raises ViduSubmitUnknownError: when it cannot be determined whether it has one.
        """
        while True:
            held = self._settled()
            number = 1 if held is None else held.number
            if held is not None and held.owner != self._owner:
                number += 1  # its task has died, or its generation has failed
            own = _Held(number, self._owner, replace(record, at=time.time()))
            try:
                if held is not None and held.number == number:
                    write_file(self._file(number), _content(own), "application/json")
                else:
                    create_file(self._file(number), _content(own), "application/json")
            except DestinationExistsError:
                continue  # another task was faster
            if held is not None and held.number != number and self._at(held.number) != held:
                self._file(number).remove()  # while it was searched for, its task has come back to life
                continue
            self._own = own
            try:
                self._look_up()  # an equal order may have ended since the first look
            except BaseException:  # a kill, too: nothing was sent, so no other task may wait for this claim
                self.release()
                raise
            return own.record

    def check(self) -> None:
        """Renew the claim right before a send.

        Who takes a claim over writes a file, and then reads whether the claim was renewed; here it is the other way
        round. So at least one of the two notices the other.

        :raises ClaimLostError: when another task has taken it over.
        """
        if self._own is None:
            return
        self._check_own(self._own)
        self._write(replace(self._own.record, at=time.time()))
        self._check_own(self._own)

    def _check_own(self, own: _Held) -> None:
        held = self._current()
        if held is None or (held.number, held.owner) != (own.number, self._owner):
            self._own = None
            raise ClaimLostError

    def submitted(self, generation_id: str) -> None:
        """Make the generation known to the tasks with equal orders, best effort: it is paid for."""
        try:
            if self._own is None and (held := self._current()) is not None and held.owner == self._owner:
                self._own = held  # of an earlier try
            if self._own is not None:
                self._write(replace(self._own.record, generation_id=generation_id))
        except ViduError as error:
            self._log.warning("Equal orders cannot share generation %s: %s", generation_id, error)

    def release(self) -> None:
        """Give the claim back, best effort."""
        own, self._own = self._own, None
        if own is not None:
            self._remove_if(lambda held: (held.number, held.owner) == (own.number, own.owner))

    def ended(self, generation_id: str) -> None:
        """Remove the claim of a generation whose file is in the catalogue, or that has failed; best effort.

        :param generation_id: of any task.
        """
        self._remove_if(lambda held: held.record.generation_id == generation_id)

    def _settled(self) -> _Held | None:
        """Return the claim if it is this task's, or stands for nothing any more; None if there is none.

        :raises SharedOrderError: when it has a generation that this task is to share.
        """
        began = seen_at = time.time()
        seen: _Held | None = None
        while True:
            held = self._current()
            if held is None or held.owner == self._owner:
                return held
            if held.record.generation_id is None:
                if held != seen:
                    seen, seen_at = held, time.time()
                # A time to come, of a forged claim or of a clock that is ahead, counts as that of the first look.
                left = min(held.record.at, seen_at) + self._longest - time.time()
                if left > 0:  # its task is about to know
                    self._check_patience(held, began)
                    self._sleep(min(left, PAUSE_SECONDS))
                    continue
                if (found := self._found(held)) is None:
                    return held
                held = replace(held, record=replace(held.record, generation_id=found))
                write_file(self._file(held.number), _content(held), "application/json")
            return self._shared(held)

    def _check_patience(self, held: _Held, began: float) -> None:
        """Raise, so that a retry waits again, if another task has been about to submit for far too long."""
        waited = time.time() - began
        if waited > MOST_WAITS * self._longest:
            raise ViduError(
                f"Another task ({_shown(held.owner)}) has been about to submit an equal order for {waited:.0f} "
                "seconds, so nothing was submitted. If that task does not run, remove "
                f"{self._file(held.number).uri}; then retry.",
                conn_id=self._hook.vidu_conn_id,
            )

    @property
    def _longest(self) -> float:
        """The seconds after which a create has been answered, or never will be."""
        return TOTAL_TIMEOUTS * self._hook.config.timeout + SETTLE_SECONDS

    def _found(self, held: _Held) -> str | None:
        """Return the generation of a task that has died while it submitted; None if there is certainly none."""
        try:
            return find_lost(self._hook, held.record, self._log, self._sleep)
        except ViduSubmitUnknownError as error:
            raise ViduSubmitUnknownError(
                f"Another task ({_shown(held.owner)}) was interrupted while it submitted an equal order, and it cannot "
                "be determined whether that was created and billed, so nothing is submitted. Check the account's "
                f"generations at the service; then remove {self._file(held.number).uri}, or retry that task.",
                conn_id=self._hook.vidu_conn_id,
            ) from error

    def _shared(self, held: _Held) -> _Held:
        """Return the claim if its generation is of no use; share it otherwise."""
        generation_id = held.record.generation_id or ""
        try:
            generation = self._hook.get_generation(generation_id, endpoint=self._endpoint)
        except ViduNotFoundError:
            if time.time() - held.record.at < GRACE_SECONDS:
                raise SharedOrderError(generation_id, held.record.at) from None
            return held
        if generation.failed:
            return held
        finished = generation if generation.succeeded and generation.video_url else None
        raise SharedOrderError(generation_id, held.record.at, finished)

    def _current(self) -> _Held | None:
        held = None
        while (following := self._at(1 if held is None else held.number + 1)) is not None:
            held = following
            if held.number > MOST_TAKEOVERS:
                raise ViduConfigError(
                    f"The claim on this order was taken over {MOST_TAKEOVERS:,} times, so nothing was submitted. If no "
                    f"task with an equal order runs, remove the folder of {self._file(1).uri}.",
                    conn_id=self._hook.vidu_conn_id,
                )
        return held

    def _at(self, number: int) -> _Held | None:
        content = content_of(self._file(number), MOST_BYTES)
        return None if content is None else _read(content, number)

    def _write(self, record: OrderRecord) -> None:
        assert self._own is not None
        self._own = replace(self._own, record=record)
        write_file(self._file(self._own.number), _content(self._own), "application/json")

    def _remove_if(self, is_meant: Callable[[_Held], bool]) -> None:
        """Remove the claim and what it has replaced, best effort, if it is still the one that is meant."""
        try:
            held = self._current()
            for number in range(1, held.number + 1) if held is not None and is_meant(held) else ():
                self._file(number).remove()
        except ViduError as error:
            self._log.debug("A claim remains: %s", error)

    def _file(self, number: int) -> StoredFile:
        return self._file_of(f"{number:06d}.json")


def _shown(owner: str) -> str:
    return sanitized(owner, MAX_OWNER_CHARS)


def _content(held: _Held) -> bytes:
    return json.dumps({"owner": held.owner, "record": held.record.to_json()}).encode()


def _read(content: bytes, number: int) -> _Held:
    """Return what a claim holds; a damaged one counts as that of a task that died right now, and is never sent over."""
    try:
        stored = json.loads(content)
        record = OrderRecord.from_json(stored["record"])
        if record is not None:
            return _Held(number, str(stored["owner"]), _checked(record, stored["record"].get("began")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ViduConfigError):
        pass
    return _Held(number, "unknown", OrderRecord(0, "", 0.0))


def _checked(record: OrderRecord, began: object) -> OrderRecord:
    """Return a record that this package may have written; other writers of the folder may forge one.

    :param began: the time of the first send, as stored: in a record, one that is none counts as unknown.
    :raises ValueError, ViduConfigError: for any other.
    """
    latest = time.time() + MOST_AHEAD_SECONDS  # a claim of a later time is damaged
    if not (0 < record.at <= latest and 0 <= (number(began) or 0.0) <= latest):
        raise ValueError("a time that no clock shows")
    if not isinstance(record.marker, str) or len(record.marker) > MAX_OWNER_CHARS:
        raise ValueError("a marker that is not one")
    if record.generation_id is None:
        return record
    return replace(record, generation_id=checked_id(record.generation_id))
