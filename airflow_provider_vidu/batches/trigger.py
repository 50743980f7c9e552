"""The trigger that watches the open generations of a batch; its class path is in ``airflow_provider_vidu.triggers``."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_vidu.batches.plan import TOKEN_KEY, make_batch_event, wake_at
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduGenerationFailedError
from airflow_provider_vidu.models import GenerationStatus
from airflow_provider_vidu.polling.schedule import BEGINNING, adaptive_interval
from airflow_provider_vidu.polling.turns import check_plain, is_plain
from airflow_provider_vidu.polling.watch import Done, PollPolicy, Wait, Watch, earliest_event
from airflow_provider_vidu.tasks.clients import shared_client
from airflow_provider_vidu.tasks.handover import STILL_WAITED_FOR, detached, is_handed_over, persistently
from airflow_provider_vidu.tasks.slots.queue import slot_queue

if TYPE_CHECKING:
    from airflow_provider_vidu.api.clients.async_client import AsyncClient


MOST_JOBS: Final = 1000
"""The most generations that one trigger watches; our tasks name no more. The author of a DAG may: the watches of
100,000 held the loop of all triggers for 39 seconds when they ended."""


class ViduBatchTrigger(BaseTrigger):
    """Watches the open generations of a batch; fires once, when the task has enough to do.

    The event names the generations that have ended (see ``batches.plan``). The arguments are stored in Airflow's
    database as plain text: ids and times only.

    :param vidu_conn_id: the Airflow connection.
    :param jobs: the time of the submit, in whole epoch seconds, by generation id.
    :param endpoints: where generations were submitted, by id, for products with a query of their own.
    :param token: the order of the batch, which the task has published as an XCom.
    :param wanted: how many generations must have ended before the task is woken at once.
    :param deadline: epoch seconds at which the batch's timeout expires.
    :param deferred_at: epoch seconds of this deferral.
    :param resume_at: epoch seconds at which the task is woken in any case; None for none.
    :param poll_interval: seconds between polls; None for the adaptive schedule.
    :param max_failures: consecutive failed polls of a generation that are tolerated.
    :param cancel_on_kill: cancel the generations when a user kills or clears the task.
    """

    def __init__(
        self,
        *,
        vidu_conn_id: str,
        jobs: Mapping[str, float],
        token: str,
        wanted: int,
        deadline: float,
        deferred_at: float,
        endpoints: Mapping[str, str] | None = None,
        resume_at: float | None = None,
        poll_interval: float | None = None,
        max_failures: int = 10,
        cancel_on_kill: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.vidu_conn_id = vidu_conn_id
        self.jobs = dict(jobs)
        self.endpoints = dict(endpoints or {})
        self.token = token
        self.wanted = wanted
        self.deadline = deadline
        self.deferred_at = deferred_at
        self.resume_at = resume_at
        self.poll_interval = poll_interval
        self.max_failures = max_failures
        self.cancel_on_kill = cancel_on_kill
        self._ended: dict[str, float] = {}
        self._changed = asyncio.Event()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, for the metadata database."""
        names = (
            "vidu_conn_id", "jobs", "endpoints", "token", "wanted", "deadline", "deferred_at", "resume_at",
            "poll_interval", "max_failures", "cancel_on_kill",
        )  # fmt: skip
        return "airflow_provider_vidu.triggers.ViduBatchTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the task has enough to do; yield one event."""
        problem: str | None = None
        try:
            if len(self.jobs) > MOST_JOBS:
                raise ViduConfigError(f"A trigger watches at most {MOST_JOBS:,} generations, not {len(self.jobs):,}.")
            needed = (self.deadline, self.deferred_at, self.max_failures, *self.jobs.values())
            check_plain(*needed, optional=(self.resume_at,))
            async with await shared_client(self.vidu_conn_id) as client:
                await self._watched(client)
        except asyncio.CancelledError:
            if not hasattr(BaseTrigger, "on_kill"):
                await self.on_kill()  # before Airflow 3.3 nothing else reports a kill
            raise
        except Exception as error:  # the boundary: an unknown error must reach the task as an event
            self.log.exception("The trigger of batch %s failed.", self.token)
            problem = type(error).__name__
            # Airflow marks a task failed whose event fires within a few seconds of its deferral.
            deferred_at = self.deferred_at if is_plain(self.deferred_at) else time.time()
            await asyncio.sleep(max(earliest_event(deferred_at) - time.time(), 0))
        event = make_batch_event(self.token, self._ended, problem, self.deadline)
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """Cancel the open generations if a user acted on the task, but not if a triggerer hands it over."""
        if self.cancel_on_kill and 0 < len(self.jobs) <= MOST_JOBS:
            await detached(self._cancel_unless_handed_over())

    async def _watched(self, client: AsyncClient) -> None:
        """Return when the task is to be woken."""
        watches = [asyncio.create_task(self._watch(client, name, since)) for name, since in self.jobs.items()]
        try:
            while (pause := self._wake_time() - time.time()) > 0:
                self._changed.clear()
                try:
                    async with asyncio.timeout(pause):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)

    def _wake_time(self) -> float:
        ends = list(self._ended.values())
        at = wake_at(ends, len(self.jobs), self.wanted, self.deadline, resume_at=self.resume_at)
        return max(at, earliest_event(self.deferred_at))

    async def _watch(self, client: AsyncClient, generation_id: str, since: float) -> None:
        """Watch one generation until it has ended, or its polls cannot succeed; the task polls it then."""
        try:
            await self._polled(client, generation_id, since)
        except Exception:  # the boundary: the task would not be woken for what is not watched
            self.log.exception("The watch of generation %s failed.", generation_id)
        self._ended[generation_id] = time.time()
        self._changed.set()

    async def _polled(self, client: AsyncClient, generation_id: str, since: float) -> None:
        queue = slot_queue(self.vidu_conn_id)

        def hurried(delay: float) -> float:
            return queue.hurried(generation_id, delay) if self.poll_interval is None else delay

        with queue.watching(generation_id, self.task_instance) as watching:
            policy = PollPolicy.for_trigger(self.poll_interval, self.max_failures)
            watch = Watch(policy, generation_id=generation_id, since=since, conn_id=self.vidu_conn_id, known=True)
            polls = client.shared_polls.polls(watch, self.endpoints.get(generation_id), hurried)
            result = await polls.after(self._first_delay(since))
            while isinstance(result, Wait):
                delay = hurried(result.delay)
                del result  # a thousand of these sleep here
                result = await polls.after(delay)
            watching.is_over = isinstance(result, Done) or isinstance(result.error, ViduGenerationFailedError)

    def _first_delay(self, since: float) -> float:
        """Return the seconds before the first poll: spread over the interval that the age calls for."""
        age = max(time.time() - since, 0.0)
        usual = self.poll_interval or adaptive_interval(BEGINNING.after(GenerationStatus.RUNNING, None, age))
        return usual * random.random()  # noqa: S311 - a jitter

    async def _cancel_unless_handed_over(self) -> None:
        try:
            if await is_handed_over(self.task_instance, self.token, key=TOKEN_KEY):
                self.log.info(STILL_WAITED_FOR, f"Batch {self.token}")
                return
            async with await shared_client(self.vidu_conn_id) as client:
                left = [name for name in self.jobs if name not in self._ended]
                done = await asyncio.gather(*(self._cancelled(client, name) for name in left))
            self.log.info("The task was killed: %d of %d open generations were cancelled.", sum(done), len(left))
        except ViduError as error:  # best effort: no task is left to raise it in
            self.log.warning("Batch %s was not cancelled: %s", self.token, error)

    async def _cancelled(self, client: AsyncClient, generation_id: str) -> bool:
        endpoint = self.endpoints.get(generation_id)
        try:
            return (await persistently(lambda: client.cancel_generation(generation_id, endpoint))).accepted
        except ViduError as error:
            self.log.warning("Generation %s was not cancelled: %s", generation_id, error)
            return False
