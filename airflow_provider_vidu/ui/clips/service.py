"""What the service last said of a generation, and what this server has seen of it over time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from airflow_provider_vidu.api.endpoints import ENDPOINTS
from airflow_provider_vidu.exceptions import ViduError, ViduNotFoundError
from airflow_provider_vidu.models import Generation, GenerationStatus

UNDER_WAY: Final = (GenerationStatus.WAITING, GenerationStatus.RUNNING)
NO_FILE: Final = "The service reports success, but it returned no file."
MAKES_NO_FILE: Final = "This product makes no file. Its result is in the task's XCom, under “raw”."
NO_QUERY: Final = (
    "The service answers a create of this product at once, with the result, and does not find it later: only what the "
    "task returned of it is known."
)


@dataclass(frozen=True, slots=True)
class Live:
    """The last answer or error of the service, and the moments between which a state has changed.

    ``asked_at`` is when the last poll ended, ``answered_at`` when the last one brought an answer. The service seldom
    says when a state began, so the answers bound it: ``waiting_until`` and ``busy_until`` are when the generation was
    last seen waiting, or not done; ``running_since`` and ``done_since`` when it was first seen running, or done.
    ``first_progress`` is the first progress of this run of the server, in percent, and when it was seen.
    """

    generation: Generation | None = None
    error: ViduError | None = None
    asked_at: datetime | None = None
    answered_at: datetime | None = None
    waiting_until: datetime | None = None
    running_since: datetime | None = None
    busy_until: datetime | None = None
    done_since: datetime | None = None
    first_progress: tuple[int, datetime] | None = None

    def answered(self, generation: Generation, now: datetime) -> Live:
        """Return this with one more answer.

        :param generation: what the service said.
        :param now: when it said so.
        """
        status, progress = generation.status, generation.progress
        first = self.first_progress
        if status is GenerationStatus.RUNNING and progress is not None and (first is None or progress < first[0]):
            first = (progress, now)
        return Live(
            generation=generation,
            asked_at=now,
            answered_at=now,
            waiting_until=now if status is GenerationStatus.WAITING else self.waiting_until,
            running_since=self.running_since or (now if status is GenerationStatus.RUNNING else None),
            busy_until=self.busy_until if generation.is_done else now,
            done_since=self.done_since or (now if generation.is_done else None),
            first_progress=first,
        )

    def failed(self, error: ViduError, now: datetime) -> Live:
        """Return this after a poll without an answer: the last known state stays."""
        return replace(self, error=error, asked_at=now)

    def seen(self) -> Live:
        """Return the moments alone, for a result whose state another process has reported."""
        return Live(waiting_until=self.waiting_until, running_since=self.running_since, busy_until=self.busy_until)


NOT_ASKED = Live()


def goes_on(generation: Generation | None, live: Live) -> bool:
    """Whether the service has answered that a generation goes on: then there is nothing to download yet."""
    return live.error is None and generation is not None and generation.status in UNDER_WAY


def is_empty(generation: Generation) -> bool:
    """Whether a generation succeeded, and the service returned no file."""
    return generation.succeeded and generation.url_of() is None


def why_empty(endpoint: str | None) -> str:
    """Say why a success has no file: some products make none."""
    product = ENDPOINTS.get(endpoint or "")
    return MAKES_NO_FILE if product is not None and product.result == "none" else NO_FILE


def advice_of(error: ViduError, endpoint: str | None) -> str:
    """Return the words of an error's class; of a product that is answered at once, there may be no query."""
    product = ENDPOINTS.get(endpoint or "")
    is_kept = product is None or not product.is_synchronous or not isinstance(error, ViduNotFoundError)
    return error.advice if is_kept else NO_QUERY
