"""Generations, their files, credits and cancellations: the same models for every dialect."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from airflow_provider_vidu.common.text import sanitized, without_signatures


class GenerationStatus(enum.StrEnum):
    """The states to which all dialects are reduced."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """A state that this version does not recognize: treated as still running."""

    @property
    def is_terminal(self) -> bool:
        """Whether the state is final."""
        return self in (GenerationStatus.SUCCEEDED, GenerationStatus.FAILED)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state in an answer, without the answer: kept by thousands of waits at once."""

    status: GenerationStatus
    provider_status: str = ""
    progress: int | None = None

    @property
    def word(self) -> str:
        """The service's own word for the state, or ours if it has none."""
        return self.provider_status or self.status.value

    def describe(self) -> str:
        """Return the state in a few words for a log line, such as ``running (processing), 40 %``."""
        state: str = self.status.value
        if self.provider_status and self.provider_status.lower() != state:
            state += f" ({sanitized(self.provider_status, 60)})"
        return state if self.progress is None else f"{state}, {self.progress} %"


class Artifact(BaseModel):
    """One creation of a generation; a generation may have several.

    ``url`` is the result's, whatever its medium; ``speech_url`` and ``sound_url`` are tracks that some products return
    with it. All URLs are pre-signed and expire: covers within an hour, the rest within 24 hours. ``duration`` is in
    seconds, ``width`` and ``height`` in pixels.
    """

    model_config = ConfigDict(frozen=True)

    id: str | None = None
    url: str | None = Field(default=None, repr=False)
    cover_url: str | None = Field(default=None, repr=False)
    watermarked_url: str | None = Field(default=None, repr=False)
    speech_url: str | None = Field(default=None, repr=False)
    sound_url: str | None = Field(default=None, repr=False)
    duration: float | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None


class Generation(BaseModel):
    """A job at Vidu, in the state that the service last reported.

    ``id`` is the queried id (gateways may spell it differently), ``provider_status`` the service's own word for the
    state, ``raw`` the whole answer. ``video_url`` is the result's URL, whatever its medium; it and ``cover_url`` belong
    to the first artifact that has one, and expire within a day. ``progress`` is 0–100, ``credits`` the cost.
    ``is_transient`` is true for a failure that a new submit may not repeat. Times are aware UTC datetimes. URLs and
    ``raw`` are not in ``repr``.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    status: GenerationStatus
    provider_status: str = ""
    video_url: str | None = Field(default=None, repr=False)
    cover_url: str | None = Field(default=None, repr=False)
    prompt: str | None = Field(default=None, repr=False)
    enhanced_prompt: str | None = Field(default=None, repr=False)
    progress: int | None = None
    model: str | None = None
    credits: int | float | None = None
    error_code: str | None = None
    error_message: str | None = None
    is_transient: bool = False
    created_at: datetime | None = None
    updated_at: datetime | None = None
    completed_at: datetime | None = None
    artifacts: tuple[Artifact, ...] = Field(default=(), repr=False)
    raw: dict[str, Any] = Field(default_factory=dict, repr=False)
    _is_damaged: bool = PrivateAttr(default=False)
    """Whether the answer to the create was cut off, or not JSON, so that it may have held more than what was read."""

    @property
    def is_done(self) -> bool:
        """Whether the generation has succeeded or failed."""
        return self.status.is_terminal

    @property
    def succeeded(self) -> bool:
        """Whether the generation has succeeded (with or without a usable URL)."""
        return self.status is GenerationStatus.SUCCEEDED

    @property
    def failed(self) -> bool:
        """Whether the generation has failed, was cancelled or has expired."""
        return self.status is GenerationStatus.FAILED

    @property
    def was_cancelled(self) -> bool:
        """Whether the generation was cancelled, by this provider or at the service."""
        return self.failed and "cancel" in f"{self.provider_status} {self.error_code}".lower()

    @property
    def creations(self) -> tuple[Artifact, ...]:
        """The artifacts in the order in which ``creation`` numbers them: those with a result, else all."""
        results = tuple(artifact for artifact in self.artifacts if artifact.url)
        return results or self.artifacts or (Artifact(url=self.video_url, cover_url=self.cover_url),)

    def url_of(self, artifact: str | None = None, creation: int = 0) -> str | None:
        """Return the URL of an artifact, or None if the generation has none.

        :param artifact: ``cover``, ``watermarked``, ``speech`` or ``sound``; anything else, and None, is the result
            itself, whatever its medium.
        :param creation: which of the :attr:`creations`, counted from 0.
        """
        if not 0 <= creation < len(self.creations):
            return None
        chosen = self.creations[creation]
        return {
            "cover": chosen.cover_url,
            "watermarked": chosen.watermarked_url,
            "speech": chosen.speech_url,
            "sound": chosen.sound_url,
        }.get(artifact or "", chosen.url)

    def as_xcom(self, *, signed_urls: bool = True) -> dict[str, Any]:
        """Return the generation as plain JSON: what operators and sensors push as their return value.

        :param signed_urls: False removes the query of every URL, also in ``raw`` and inside texts. Such a URL opens no
            file, but the id always leads to a new one.
        """
        dumped = self.model_dump(mode="json")
        return dumped if signed_urls else {**without_signatures(dumped), "id": self.id}

    def sighting(self) -> Snapshot:
        """Return the state alone, for a wait to remember."""
        return Snapshot(self.status, self.provider_status, self.progress)

    def describe(self) -> str:
        """Return the state in a few words for a log line, such as ``running (processing), 40 %``."""
        return self.sighting().describe()


class Credits(BaseModel):
    """The balance of an account, as far as the service reports it.

    ``remaining`` is the sum over all kinds of credits, ``concurrency_limit`` the generations that may run at a time,
    ``current_concurrency`` those that do, ``queue_count`` those that wait, and ``raw`` the whole answer.
    """

    model_config = ConfigDict(frozen=True)

    remaining: int | float | None = None
    concurrency_limit: int | None = None
    current_concurrency: int | None = None
    queue_count: int | None = None
    raw: dict[str, Any] = Field(default_factory=dict, repr=False)

    @property
    def in_use(self) -> int | None:
        """How many generations run or wait at the service."""
        return None if self.current_concurrency is None else self.current_concurrency + (self.queue_count or 0)


class Cancellation(BaseModel):
    """The outcome of a cancel request; true if the service accepted it.

    ``reason`` is one clause: why it was refused, or that the dialect has no cancel.
    """

    model_config = ConfigDict(frozen=True)

    accepted: bool
    reason: str

    def __bool__(self) -> bool:
        return self.accepted


NO_CANCEL = Cancellation(accepted=False, reason="it cannot be cancelled and runs to its end")


class SearchResult(BaseModel):
    """The outcome of a search for the generation of a lost create.

    ``generation_id`` is None if none was found; only a ``complete`` search proves that there is none. ``candidates``
    are the generations that match if the list does not decide between them.
    """

    model_config = ConfigDict(frozen=True)

    generation_id: str | None = None
    complete: bool = False
    candidates: tuple[str, ...] = ()
