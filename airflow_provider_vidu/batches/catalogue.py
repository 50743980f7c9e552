"""Files that equal orders share (``reuse="identical"``): a catalogue beside them, one small object per order."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.api.ids import is_safe_id
from airflow_provider_vidu.batches.jobs import Event, opened
from airflow_provider_vidu.batches.lines import STORED, Line, checked_line
from airflow_provider_vidu.batches.manifest import failed_line, reused_line
from airflow_provider_vidu.batches.rows import HIDDEN_FOLDER, Row
from airflow_provider_vidu.batches.snapshot import json_of
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.common.text import UNPRINTABLE
from airflow_provider_vidu.common.values import mapping
from airflow_provider_vidu.exceptions import ViduError, ViduStorageError, ViduSubmitUnknownError
from airflow_provider_vidu.stores.small_files import content_of, write_file

if TYPE_CHECKING:
    from airflow_provider_vidu.api.settings.config import ViduConfig
    from airflow_provider_vidu.common.artifacts import Artifact
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.orders.claims import Claim
    from airflow_provider_vidu.stores.destination import Destination

MOST_BYTES: Final = 16 * 1024
"""The largest entry that is read; one takes about a kilobyte."""

_TEXTS: Final = ("generation_id", "sha256", "content_type")
"""What each entry has. A line without an id would count as the batch's own, and its price, of any sign, as spent; the
others are the result of a single task, whose outlets carry the medium."""

PARKED_SECONDS: Final = 15.0
LONGEST_PARKED_SECONDS: Final = 120.0
PARKED_SHARE: Final = 0.5
"""How often a row looks whether another task with an equal order has its file: each look may be a start of the task, so
it comes after this share of that order's age, within these bounds."""


class Catalogue:
    """The catalogue of a destination.

    :param service: names the service: the same request to another one is another order.
    :param artifact: which file of a generation is stored.
    :param log: gets a warning if the catalogue cannot be used.
    """

    def __init__(self, destination: Destination, service: str, artifact: Artifact | None, log: Any) -> None:
        self._destination = destination
        self._identity = f"{service}\n{artifact or ''}\n"
        self._log = log

    @classmethod
    def of(cls, destination: Destination, config: ViduConfig, artifact: Artifact | None, log: Any) -> Catalogue:
        """Return the catalogue of a destination for the service of a connection."""
        return cls(destination, f"{config.dialect.name} {config.base_url}", artifact, log)

    def find(self, request: str) -> Line | None:
        """Return the line of an equal order whose file is still there; None if there is none.

        :param request: the digest of the request.
        :raises ViduStorageError: when the store does not say whether there is one: what is paid for would be ordered
            again.
        """
        try:
            stored = content_of(self._file(request), MOST_BYTES)
            line: Line = dict(mapping(json_of(stored))) if stored else {}
            if not self._is_there(line):
                return None
            checked_line({**line, "key": ""})  # a batch would end at a line that it cannot record
            return line
        except ViduStorageError:
            raise
        except (ViduError, ValueError, RecursionError) as error:
            self._log.warning("The catalogue of earlier files cannot be read; ordering: %s", error)
            return None

    def keep(self, line: Line) -> None:
        """Add the line of a stored file, best effort."""
        try:
            content = json.dumps(line, separators=(",", ":")).encode()
            write_file(self._file(line["request"]), content, "application/json")
        except ViduError as error:
            self._log.warning("The file is stored, but later orders will not find it: %s", error)

    def claim(
        self, request: str, owner: str, hook: ViduHook, endpoint: str | None, look_up: Callable[[], None], **known: Any
    ) -> Claim:
        """Return the claim on an order in this destination.

        :param request: the digest of the request.
        :param look_up: raises if there is a file of an equal order.
        """
        from airflow_provider_vidu.orders.claims import Claim

        folder = f"{HIDDEN_FOLDER}/claims/{self.name_of(request)}"
        return Claim(
            lambda name: self._destination.file(f"{folder}/{name}"), owner, hook, look_up, self._log, endpoint, **known
        )

    def _is_there(self, line: Line) -> bool:
        folder, uri = self._destination.file("x").uri.removesuffix("x"), str(line.get("uri") or "")
        if line.get("status") != STORED or not uri.startswith(folder):
            return False
        if not all(isinstance(line.get(name), str) for name in _TEXTS):
            return False
        if not is_safe_id(line["generation_id"]):
            return False
        name = uri.removeprefix(folder)
        # Other writers of the destination could name a file elsewhere, which later tasks would then use.
        if not {"", ".", "..", HIDDEN_FOLDER}.isdisjoint(re.split(r"[/\\]", name)):
            return False
        if UNPRINTABLE.search(name):  # no file of ours is named so, and logs name it
            return False
        file, size = self._destination.file(name), line.get("size")
        file.check()  # refuses a link
        # A file that is not there has no size, either.
        return isinstance(size, int) and file.size() == size and self._destination.holds(name)

    def name_of(self, request: str) -> str:
        """Return what names an order: its request, the service, and the file that is kept of it."""
        return hashlib.sha256((self._identity + request).encode()).hexdigest()[:40]

    def _file(self, request: str) -> Any:
        return self._destination.file(f"{HIDDEN_FOLDER}/catalogue/{self.name_of(request)}.json")


class Twins:
    """Decides which rows of a batch need no order of their own, because an equal one has a file, or is open.

    :param digest: returns the digest of a row's request; None if the row cannot be ordered.
    :param claim: returns the claim on the order of a request.
    :param keys: of the batch's rows; the state may hold others, which are no longer among them.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        state: BatchState,
        digest: Callable[[Row], str | None],
        claim: Callable[[str], Claim],
        keys: Collection[str],
    ) -> None:
        self._catalogue = catalogue
        self._state = state
        self._digest = digest
        self._claim = claim
        self._parked: list[tuple[float, Row]] = []
        self._keys = keys
        # A create of unknown outcome, too: an equal row must not be ordered before it is known.
        self._owners = {intent.record.request: key for key, intent in state.intents.items()}
        self._owners |= {job.request: key for key, job in state.open.items()}
        self._waiting: dict[str, list[Row]] = {}

    def __bool__(self) -> bool:
        """Whether a row waits for the file of an equal one."""
        return bool(self._waiting or self._parked)

    @property
    def due_at(self) -> float | None:
        """When a row that waits for another task is looked at again, in epoch seconds."""
        return min((at for at, _ in self._parked), default=None)

    def park(self, row: Row, request: str, since: float | None) -> None:
        """Let a row, and those that are equal to it, wait for another task that has submitted an equal order.

        :param since: when that was, in epoch seconds; None if unknown.
        """
        self._owners.pop(request, None)
        now = time.time()
        age = 0.0 if since is None else now - since
        at = now + max(min(age * PARKED_SHARE, LONGEST_PARKED_SECONDS), PARKED_SECONDS)
        self._parked += [(at, one) for one in (row, *self._waiting.pop(request, ()))]

    def taken(self, row: Row) -> Event | bool | None:
        """Return the event of a row that has a file already; True if it waits for an open one; None to order it."""
        request = self._digest(row)
        if request is None or self._owners.get(request) == row.key:
            return None
        if request in self._owners:
            self._waiting.setdefault(request, []).append(row)
            return True
        if (line := self._catalogue.find(request)) is not None:
            return {"e": "line", "line": reused_line(row, line)}
        self._owners[request] = row.key
        return None

    def settled(self) -> tuple[list[Event], list[Row]]:
        """Return the events of rows whose equal one now has a file, and the rows to order because it has failed."""
        events: list[Event] = []
        now = time.time()
        again = [row for at, row in self._parked if at <= now]
        self._parked = [(at, row) for at, row in self._parked if at > now]
        for request, rows in list(self._waiting.items()):
            owner = self._owners[request]
            line = self._state.lines.get(owner)
            if line is None:
                if owner not in self._keys and owner not in self._state.intents:  # that row was removed
                    del self._waiting[request]
                    self._owners[request] = rows[0].key
                    again += rows
                    if (job := self._state.open.get(owner)) is not None:  # but its generation is paid for
                        again.remove(rows[0])
                        mine = opened(rows[0].key, replace(job, index=rows[0].index))
                        events += [{"e": "back", "keys": [owner]}, mine]
                continue
            del self._waiting[request]
            if line["status"] == STORED:
                events += [{"e": "line", "line": reused_line(row, line)} for row in rows]
            elif line["error"].get("type") == ViduSubmitUnknownError.__name__:
                events += [{"e": "line", "line": failed_line(row, _unknown(owner), now)} for row in rows]
            else:
                del self._owners[request]
                again += rows
        return events, again

    def ended(self, line: Line) -> None:
        """Add a stored file to the catalogue, and give the claim on its order back."""
        if line["status"] == STORED:
            self._catalogue.keep(line)
        if line.get("request") and line.get("generation_id"):
            self._claim(line["request"]).ended(line["generation_id"])


def _unknown(owner: str) -> ViduSubmitUnknownError:
    return ViduSubmitUnknownError(
        f"The row is equal to row {owner!r}, and it cannot be determined whether that was created and billed, so "
        "nothing is submitted. Check the account's generations at the service, then clear the task."
    )
