"""One request for the states of many waits: a client carries out the decisions of :mod:`..polling.state_lists`.

A wait gets its polls (:mod:`.polls`) from :meth:`SharedPolls.polls` and awaits their results. While the account's list
answers for named ids, due waits share a request, and a state that has not changed wakes no task.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from airflow_provider_vidu.api.messages import TOO_LARGE
from airflow_provider_vidu.api.polls import Polls
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.models import Snapshot
from airflow_provider_vidu.polling.state_lists import (
    FEWEST_IDS,
    STEP_SECONDS,
    Gathering,
    ListTrust,
    StateList,
    may_be_listed,
    window,
)
from airflow_provider_vidu.polling.watch import Watch

if TYPE_CHECKING:
    from airflow_provider_vidu.api.clients.async_client import AsyncClient
    from airflow_provider_vidu.api.settings.config import ViduConfig

log = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.25
"""So long those who ask at once whether their generations have ended wait for one another."""
BLOCKED_SECONDS: Final = 1.0
"""While a request decides whether others follow, how often deadlines are checked."""
MOST_AT_ONCE: Final = 8
"""Requests under way: enough for thousands of states a second, and a bound on the memory that huge answers take."""
SHARE: Final = 100
"""Waits that are handled in one turn of the event loop."""


class SharedPolls:
    """The shared requests of one connection on one event loop."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self._trust = ListTrust()
        self._trust_of: object = None
        self._gathering: Gathering[Polls] = Gathering()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # uvloop's handle of what is due at once has no "when"
        self._trying = asyncio.Lock()
        self._sending: set[asyncio.Task[None]] = set()
        self._asked_at_once: set[str] = set()
        self._answering: asyncio.Task[dict[str, Snapshot]] | None = None
        # Log lines are about the connection: in the context of a trigger, they would go to the log of its task.
        self._context = contextvars.Context()

    def polls(
        self, watch: Watch, endpoint: str | None = None, shorten: Callable[[float], float] | None = None
    ) -> Polls:
        """Return the polls of a wait; see :class:`Polls`."""
        return Polls(self, watch, endpoint, shorten)

    async def states(self, generation_ids: Iterable[str]) -> dict[str, Snapshot]:
        """Return the states of unfinished generations, as far as the list shows them.

        All others are to be queried one by one.

        :raises ViduError: when a request failed in a way that would fail for single queries as well.
        """
        shown = await self._listed(generation_ids)
        return {name: seen for name, seen in shown.items() if not seen.status.is_terminal}

    async def is_over(self, generation_id: str, endpoint: str | None = None) -> bool:
        """Whether a generation has ended. Those who ask at once share their requests.

        :raises ViduError: when the request failed.
        """
        seen = None
        if self.covers(generation_id, endpoint):
            if self._answering is None:
                answering = self._at_once()
                self._answering = asyncio.get_running_loop().create_task(answering, context=self._context)
            self._asked_at_once.add(generation_id)
            seen = (await asyncio.shield(self._answering)).get(generation_id)
        if seen is None:
            return (await self.client.get_generation(generation_id, endpoint)).is_done
        return seen.status.is_terminal

    async def _at_once(self) -> dict[str, Snapshot]:
        await asyncio.sleep(GATHER_SECONDS)
        ids, self._asked_at_once, self._answering = self._asked_at_once, set(), None
        return await self._listed(sorted(ids))

    async def _listed(self, generation_ids: Iterable[str]) -> dict[str, Snapshot]:
        ids = [name for name in generation_ids if self.covers(name)]
        shown: dict[str, Snapshot] = {}
        while len(ids) >= FEWEST_IDS:
            part, ids, sent_at = ids[: self._trust.size], ids[self._trust.size :], _now()
            try:
                found = await self._states_of(part)
            except ViduError as error:
                if self._blames_all(error, sent_at):
                    await self._probe(part[0])
                    raise
                break
            if found is None:
                break
            shown |= found.states
        return shown

    async def _probe(self, generation_id: str) -> None:
        """Find out whether queries work while the list fails."""
        if self._trust.is_suspect:
            with suppress(ViduError):
                self.audited(is_done=(await self.client.get_generation(generation_id)).is_done)

    def covers(self, generation_id: str, endpoint: str | None = None) -> bool:
        """Whether a generation's state is to be requested together with others."""
        config = self.client.known_config
        if endpoint if config is None else not self._learned(config).dialect.can_list_states(endpoint):
            return False
        return may_be_listed(generation_id) and self._trust.is_in_use(_now())

    def add(self, polls: Polls, delay: float) -> None:
        """Plan a poll in ``delay`` seconds."""
        due = _now() + delay
        self._gathering.add(polls, due, window(delay))
        self._wake_at(due)

    def audited(self, *, is_done: bool) -> None:
        """Take what the query of an audit has found."""
        self._trust.audited(is_done=is_done)
        self._log_note()

    def close(self) -> None:
        """Forget all waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._gathering.clear()
        for task in self._sending:
            task.cancel()

    # -- when to send ------------------------------------------------------------------------------

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._wake, context=self._context)
        self._timer_at = when

    def _wake(self) -> None:
        self._timer = None
        now = _now()
        try:
            next_at = self._serve(now)
        except Exception:  # the boundary: no wait may be forgotten
            log.exception("The shared polls of connection %s broke.", self.client.conn_id)
            _query(self._gathering.take_due())
            next_at = self._gathering.next_at(now)
        if next_at is not None:
            self._wake_at(next_at)

    def _serve(self, now: float) -> float | None:
        """Send what is complete; return the time at which to continue."""
        gathering, trust = self._gathering, self._trust
        gathering.advance(now)
        config = self.client.known_config
        if (config is not None and not self._learned(config).dialect.has_state_list) or not trust.is_in_use(now):
            _query(gathering.take_due())
            return gathering.next_at(now)
        epoch = time.time() + STEP_SECONDS
        _query(gathering.drop(lambda polls: not polls.is_waiting or polls.watch.must_be_queried(epoch)))
        if now < trust.paused_until:
            return min(trust.paused_until, now + BLOCKED_SECONDS)
        while len(self._sending) < (MOST_AT_ONCE if trust.is_certain else 1):
            if not (portion := gathering.portion(trust.size, now)):
                return gathering.next_at(now)
            if len(portion) < FEWEST_IDS:
                _query(portion)
                continue
            task = asyncio.get_running_loop().create_task(self._poll(portion))
            self._sending.add(task)
            task.add_done_callback(self._ended)
        return now + BLOCKED_SECONDS

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled():
            self._wake_at(_now())

    # -- one request -------------------------------------------------------------------------------

    async def _poll(self, portion: list[Polls]) -> None:
        """Request the states of some waits, and let each go on."""
        left = [polls for polls in portion if polls.is_waiting]
        ids = list(dict.fromkeys(polls.watch.generation_id for polls in left))
        sent_at, size = _now(), self._trust.size
        try:
            found = await self._states_of(ids) if len(ids) >= FEWEST_IDS else None
            if found is not None:
                # If the service's pages are shorter, the others are on further ones.
                self._show(left, found, is_cut=self._trust.size < size)
        except ViduError as error:
            if self._blames_all(error, sent_at):
                left += self._gathering.take_due()
                await self._fail(left, error)
        except Exception:  # the boundary: no wait may be forgotten
            log.exception("The shared polls of connection %s broke.", self.client.conn_id)
        _query(left)

    def _show(self, left: list[Polls], found: StateList, *, is_cut: bool) -> None:
        """Give each wait its state; remove it from ``left``, so that none is planned twice."""
        now, is_audit = time.time(), self._trust.audits(_now())
        while left:
            polls = left.pop()
            snapshot = found.states.get(polls.watch.generation_id)
            if not polls.is_waiting:
                continue
            if snapshot is None and not is_cut:
                polls.miss()
            elif snapshot is None:
                self.add(polls, 0.0)
            elif is_audit and not snapshot.status.is_terminal:
                is_audit = False
                polls.query(is_audit=True)
            else:
                polls.listed(snapshot, now)

    async def _fail(self, left: list[Polls], error: ViduError) -> None:
        """Let each wait count a failure, and one find out whether queries work; remove it from ``left``."""
        is_probe = self._trust.is_suspect
        while left:
            polls = left.pop()
            if is_probe and polls.is_waiting:
                is_probe = False
                polls.query(is_audit=True)
                continue
            polls.failed(error, time.time())
            if len(left) % SHARE == 0:
                await asyncio.sleep(0)

    async def _states_of(self, ids: list[str]) -> StateList | None:
        """Return what the list shows of some ids; None if single queries are to be sent. A failed request raises."""
        if self._trust.is_proven:
            return await self._in_some_form(ids)
        async with self._trying:  # the forms of the filter are tried one after the other
            return await self._in_some_form(ids)

    async def _in_some_form(self, ids: list[str]) -> StateList | None:
        while (trust := self._trust).is_in_use(_now()):
            form = trust.form
            # mypy infers no type for a lambda with a default.
            found = await self.client.carry(lambda dialect, form=form: dialect.list_states(ids, form))  # type: ignore[misc]
            shown = trust.took(len(ids), found, _now())
            self._log_note()
            if shown is not None:
                return shown
        return None

    def _blames_all(self, error: ViduError, sent_at: float) -> bool:
        """Take the error of a request; return whether it counts as a failed poll of all that are due."""
        if error.code == TOO_LARGE:
            self._trust.was_too_large(_now())
            is_shared = False
        else:
            is_shared = self._trust.failed(error, _now(), sent_at)
        self._log_note()
        return is_shared

    def _learned(self, config: ViduConfig) -> ViduConfig:
        """Forget what is known about the list if the connection leads to another service."""
        service = (config.base_url, config.dialect)
        if self._trust_of != service:
            if self._trust_of is not None:
                self._trust = ListTrust()
            self._trust_of = service
        return config

    def _log_note(self) -> None:
        if note := self._trust.take_note():
            log.warning("Vidu connection %s: %s", self.client.conn_id, note)


def _query(several: Iterable[Polls]) -> None:
    for polls in several:
        polls.query()


def _now() -> float:
    return asyncio.get_running_loop().time()
