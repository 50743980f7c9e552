"""The polls of one wait: shared with other waits where possible, and otherwise sent by the wait itself.

Results, reasons of failures and ids that the account's list omits are always queried.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from airflow_provider_vidu.exceptions import ViduError, from_details
from airflow_provider_vidu.models import Generation, Snapshot
from airflow_provider_vidu.polling.watch import PollResult, Wait, Watch

if TYPE_CHECKING:
    from airflow_provider_vidu.api.shared_polls import SharedPolls

MOST_MISSES: Final = 2
"""A generation that the list omits this many times in a row is queried by itself from then on."""


class Polls:
    """The polls of one wait.

    :param endpoint: where the generation was submitted, for products with a query of their own.
    :param shorten: returns the delay to use instead of a given one, in seconds; None if each is kept.
    """

    # A triggerer holds thousands of these.
    __slots__ = ("_endpoint", "_is_audit", "_misses", "_shared", "_shorten", "_woken", "watch")

    def __init__(
        self, shared: SharedPolls, watch: Watch, endpoint: str | None, shorten: Callable[[float], float] | None
    ) -> None:
        self.watch = watch
        self._shared = shared
        self._endpoint = endpoint
        self._shorten = shorten
        self._woken: asyncio.Future[PollResult | None] | None = None
        self._misses = 0
        self._is_audit = False

    async def after(self, delay: float) -> PollResult:
        """Poll after ``delay`` seconds and on, until there is news: a note to log, or the end of the wait."""
        while True:
            if self._misses < MOST_MISSES and self._shared.covers(self.watch.generation_id, self._endpoint):
                self._woken = asyncio.get_running_loop().create_future()
                self._shared.add(self, delay)
                try:
                    result = await self._woken
                finally:
                    self._woken = None
                if result is not None:
                    return result
            else:
                await asyncio.sleep(delay)
            result = await self._queried()
            if result.note or not isinstance(result, Wait):
                return result
            delay = self._shortened(result)
            del result  # thousands of these sleep here

    async def _queried(self) -> PollResult:
        watch, client, has_connection = self.watch, self._shared.client, False
        try:
            if client.known_config is None:
                await client.config()
            has_connection = True
            seen = await client.poll(watch.generation_id, self._endpoint)
        except ViduError as error:
            self._is_audit = False
            return watch.missed(error, time.time(), has_connection=has_connection)
        if self._is_audit:
            self._is_audit = False
            self._shared.audited(is_done=isinstance(seen, Generation) and seen.is_done)
        return watch.saw(seen, time.time()) if isinstance(seen, Generation) else watch.listed(seen, time.time())

    # -- called by SharedPolls, in the event loop --------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether the wait still awaits its next result; a cancelled one does not."""
        return self._woken is not None and not self._woken.done()

    def query(self, *, is_audit: bool = False) -> None:
        """Let the wait query its generation by itself."""
        if self._woken is not None and not self._woken.done():
            self._is_audit = is_audit
            self._woken.set_result(None)

    def miss(self) -> None:
        """Note that the list has omitted the generation, which is queried then."""
        self._misses += 1
        self.query()

    def listed(self, snapshot: Snapshot, now: float) -> None:
        """Take the state that a list shows at ``now`` (epoch seconds)."""
        self._misses = 0
        if snapshot.status.is_terminal:
            self.query()
        else:
            self._go_on(self.watch.listed(snapshot, now))

    def failed(self, error: ViduError, now: float) -> None:
        """Take the failure of a request that was to show the state; each wait has a copy of its error."""
        if self.is_waiting:
            self._go_on(self.watch.missed(from_details(error.details()), now))

    def _go_on(self, result: PollResult) -> None:
        """Wake the wait if there is news, otherwise plan its next poll."""
        if isinstance(result, Wait) and not result.note:
            self._shared.add(self, self._shortened(result))
        elif self._woken is not None:
            self._woken.set_result(result)

    def _shortened(self, result: Wait) -> float:
        return result.delay if self._shorten is None else self._shorten(result.delay)
