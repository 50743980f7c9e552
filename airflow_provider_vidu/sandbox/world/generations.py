"""A generation of the sandbox, and its state at a given time.

Nothing runs in the background: a generation is a script of (status word, offset in seconds), from which its state at
any time follows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from airflow_provider_vidu.sandbox.messages.answers import UNSET
from airflow_provider_vidu.sandbox.messages.calls import ENT, NATIVE, Dialect

#: ``video`` is the result itself, of any medium.
ARTIFACTS = ("video", "cover", "watermarked", "speech", "sound")

_SUCCESS = frozenset({"completed", "success", "succeeded"})
_FAILURE = frozenset(
    {
        *("failed", "failure", "error", "video_generation_failed", "video_upsampling_failed"),
        *("cancelled", "canceled", "expired"),
    }
)
_WAITING = frozenset({"pending", "queued", "not_start", "submitted", "created", "queueing"})

#: The status words of each dialect: accepted, waiting, running, succeeded, failed.
_WORDS: dict[Dialect, tuple[str, str, str, str, str]] = {
    NATIVE: ("pending", "queued", "processing", "completed", "failed"),
    ENT: ("created", "queueing", "processing", "success", "failed"),
}
#: An undocumented status word, for prompts with ``[unknown-state]``.
UNKNOWN_WORD = "marinating"
_DEFAULT_FAILURE = "InternalServiceFailure"
_TRIGGER = re.compile(r"\[(fail|refuse|slow|nourl|unknown-state)(?::([A-Za-z0-9_.-]+))?\]")


@dataclass(frozen=True)
class Stage:
    """One step of a script: the status word from ``offset`` sandbox seconds after the creation on."""

    word: str
    offset: float


@dataclass(frozen=True)
class State:
    """The state of a generation at one time; ``since`` and ``finished_at`` are sandbox epoch seconds."""

    word: str
    since: float
    progress: int
    finished_at: float | None

    @property
    def succeeded(self) -> bool:
        """Whether the word means success."""
        return self.word.lower() in _SUCCESS

    @property
    def failed(self) -> bool:
        """Whether the word means failure."""
        return self.word.lower() in _FAILURE

    @property
    def waiting(self) -> bool:
        """Whether the word means waiting."""
        return self.word.lower() in _WAITING


@dataclass
class Generation:
    """One generation with its script; times are sandbox epoch seconds, ``size`` is the video's size in bytes.

    ``answer``, unless :data:`UNSET`, replaces the whole body of a query's answer, ``video_url`` the signed URL;
    ``without_url`` makes it succeed without a URL. ``held`` are the seconds that it waits longer because others run.
    ``wall_created`` is the wall-clock time of the create (None: computed from the clock). ``medium`` is that of the
    result (None: no file), ``short_lived`` limits its URLs to an hour, ``parent`` is the id of the film that it is a
    part of, and ``listed`` whether it is a task that can be queried and listed.
    """

    id: str
    dialect: Dialect
    created_at: float
    stages: tuple[Stage, ...]
    request: dict[str, Any] = field(default_factory=dict)
    endpoint: str = ""
    credits: int = 0
    error_code: str = _DEFAULT_FAILURE
    error_message: str = "the sandbox was asked to let this generation fail"
    size: int | None = None
    creations: int = 1
    without_url: bool = False
    video_url: str | None = None
    answer: Any = UNSET
    cancelled_at: float | None = None
    held: float = 0.0
    wall_created: float | None = None
    medium: str | None = "video"
    short_lived: bool = False
    parent: str | None = None
    listed: bool = True

    @property
    def prompt(self) -> str:
        """The prompt, or an empty string."""
        return self._requested("prompt")

    @property
    def model(self) -> str:
        """The model, or an empty string."""
        return self._requested("model")

    def _requested(self, name: str) -> str:
        value = self.request.get(name)
        return value if isinstance(value, str) else ""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits that belong to this generation."""
        return hashlib.md5(f"{self.dialect} {self.id}".encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def ready_at(self) -> float:
        """When it would start if no other generation ran."""
        running = (stage.offset for stage in self.stages if stage.word.lower() not in _WAITING)
        return self.created_at + next(running, self.stages[-1].offset)

    @property
    def starts_at(self) -> float:
        """When it starts."""
        return self.ready_at + self.held

    @property
    def ends_at(self) -> float:
        """When its last stage begins."""
        return self.created_at + self.stages[-1].offset + self.held

    def failure_time(self) -> float | None:
        """Return when the script ends in failure, or None if it does not."""
        for stage in self.stages:
            if stage.word.lower() in _FAILURE:
                return self.created_at + self._offset(stage)
        return None

    def state_at(self, now: float) -> State | None:
        """Return the state at sandbox time ``now``, or None before the first stage."""
        if self.cancelled_at is not None and now >= self.cancelled_at:
            return State(_WORDS[self.dialect][4], self.cancelled_at, 0, self.cancelled_at)
        age = now - self.created_at
        current = None
        for stage in self.stages:
            if self._offset(stage) > age:
                break
            current = stage
        if current is None:
            return None
        since = self.created_at + self._offset(current)
        final = current.word.lower() in _SUCCESS | _FAILURE
        progress = 100 if current.word.lower() in _SUCCESS else self._progress(age - self.held)
        return State(current.word, since, progress, since if final else None)

    def _offset(self, stage: Stage) -> float:
        """Return when a stage begins, in seconds since the creation; ``held`` delays the start of running."""
        return stage.offset if stage.word.lower() in _WAITING else stage.offset + self.held

    def _progress(self, age: float) -> int:
        """Return 0..99: the elapsed share of the time between the first running stage and the last stage."""
        start = next((s.offset for s in self.stages if s.word.lower() not in _WAITING), None)
        if start is None or age <= start:
            return 0
        length = self.stages[-1].offset - start
        return min(99, int(100 * (age - start) / length)) if length > 0 else 0


def default_script(dialect: Dialect, prompt: str, *, queue: float, duration: float) -> tuple[Stage, ...]:
    """Return the default script: ``queue`` seconds of waiting, then ``duration`` seconds of running.

    ``[slow]``, ``[fail]`` and ``[unknown-state]`` in ``prompt`` change it, see :func:`triggers`.
    """
    present = triggers(prompt)
    accepted, waiting, running, succeeded, failed = _WORDS[dialect]
    if "slow" in present:
        queue, duration = 10 * queue, 10 * duration
    stages = [Stage(accepted, 0.0), Stage(waiting, queue / 4), Stage(running, queue)]
    if "unknown-state" in present:
        stages.append(Stage(UNKNOWN_WORD, queue + duration / 3))
        stages.append(Stage(running, queue + 2 * duration / 3))
    stages.append(Stage(failed if "fail" in present else succeeded, queue + duration))
    return tuple(stages)


def triggers(prompt: str) -> dict[str, str]:
    """Return the triggers in ``prompt``, each with the text after its colon or an empty string.

    They are ``[fail:Code]``, ``[refuse:name]``, ``[slow]``, ``[nourl]`` and ``[unknown-state]``.
    """
    return {match[1]: match[2] or "" for match in _TRIGGER.finditer(prompt)}


def script_from(states: Sequence[Any]) -> tuple[Stage, ...]:
    """Return the script for ``states``, pairs of (status word, offset in seconds); ValueError for anything else."""
    stages = []
    for entry in states:
        if not (isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) == 2):
            raise ValueError(f"a state is a pair [word, seconds], not {entry!r}")
        word, offset = entry
        if not isinstance(word, str) or isinstance(offset, bool) or not isinstance(offset, int | float):
            raise ValueError(f"a state is a pair [word, seconds], not {entry!r}")  # noqa: TRY004 - one error type for all
        stages.append(Stage(word, float(offset)))
    if not stages:
        raise ValueError("states must hold at least one pair [word, seconds]")
    if any(later.offset < earlier.offset for earlier, later in pairwise(stages)):
        raise ValueError("the seconds in states must not decrease")
    return tuple(stages)


def preset(spec: dict[str, Any], *, now: float, queue: float, duration: float) -> Generation:
    """Return the generation that ``spec`` (the body of ``POST /_sandbox/generations``) describes.

    ``now`` is the sandbox time, ``queue`` and ``duration`` the seconds of the default script. ValueError, naming the
    field, if it is invalid.
    """
    unknown = set(spec) - _PRESET_FIELDS
    if unknown:
        raise ValueError(f"unknown field {min(unknown)!r}; known fields: {', '.join(sorted(_PRESET_FIELDS))}")
    own_id = spec.get("id")
    if not isinstance(own_id, str) or not own_id:
        raise ValueError(f"id must be a non-empty string, not {own_id!r}")
    dialect: Dialect = spec.get("dialect", NATIVE)
    if dialect not in tuple(_WORDS):  # it may be any JSON
        raise ValueError(f"dialect must be one of {', '.join(_WORDS)}, not {dialect!r}")
    request = {name: spec[name] for name in _REQUEST_FIELDS if name in spec}
    prompt = request.get("prompt") or ""
    states = spec.get("states")
    stages = script_from(states) if states else default_script(dialect, prompt, queue=queue, duration=duration)
    generation = Generation(
        id=own_id,
        dialect=dialect,
        created_at=now - float(spec.get("age", 0)),
        stages=stages,
        request=request,
        endpoint=spec.get("endpoint", "text2video" if dialect == ENT else ""),
        credits=int(spec.get("credits", 80)),
        size=spec.get("size"),
        creations=int(spec.get("creations", 1)),
        without_url=bool(spec.get("without_url", "nourl" in triggers(prompt))),
        video_url=spec.get("video_url"),
        answer=spec.get("answer", UNSET),
    )
    set_error(generation, spec.get("error") or triggers(prompt).get("fail"))
    if spec.get("error") and not states:
        generation.stages = (*stages[:-1], Stage(_WORDS[dialect][4], stages[-1].offset))
    return generation


_REQUEST_FIELDS = (
    *("prompt", "model", "payload", "watermark", "bgm", "off_peak", "audio", "audio_type"),
    *("images", "duration", "resolution", "aspect_ratio", "seed"),
)
_PRESET_FIELDS = frozenset(
    {
        *("id", "dialect", "states", "error", "size", "answer", "age", "credits", "creations", "endpoint"),
        *("without_url", "video_url"),
        *_REQUEST_FIELDS,
    }
)


def set_error(generation: Generation, error: Any) -> None:
    """Set the reason of a failure: a code, or an object with ``code`` and ``message``; None changes nothing."""
    if isinstance(error, dict):
        generation.error_code = str(error.get("code", generation.error_code))
        generation.error_message = str(error.get("message", generation.error_message))
    elif error:
        generation.error_code = str(error)
