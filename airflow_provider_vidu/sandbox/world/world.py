"""The state of one sandbox: generations, files, uploads, ledger and time. Answers are made elsewhere."""

from __future__ import annotations

import hashlib
import random
import secrets
import string
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_vidu.sandbox.messages.answers import Content
from airflow_provider_vidu.sandbox.messages.calls import ENT, NATIVE, Dialect
from airflow_provider_vidu.sandbox.settings import Settings
from airflow_provider_vidu.sandbox.world import files, signing
from airflow_provider_vidu.sandbox.world.callbacks import Callbacks
from airflow_provider_vidu.sandbox.world.clock import Clock
from airflow_provider_vidu.sandbox.world.generations import (
    Generation,
    Stage,
    State,
    default_script,
    set_error,
    triggers,
)
from airflow_provider_vidu.sandbox.world.ledger import CreateRecord, Ledger
from airflow_provider_vidu.sandbox.world.slots import Slots
from airflow_provider_vidu.sandbox.world.uploads import Upload

Json = dict[str, Any]
#: The service's ids exceed 2 ** 53, so a client that reads them as floats corrupts them.
_FIRST_ENT_ID = 911_000_000_000_000_000
#: Issued signatures that are kept for tests.
KEPT_URLS = 200_000
#: Sandbox seconds that an upload URL is valid.
_UPLOAD_LIFETIME = 3600


@dataclass(frozen=True)
class Moments:
    """A generation's times in wall-clock epoch seconds: in order, never in the future."""

    created: float
    since: float
    finished: float | None


class World:
    """The state of one sandbox; not thread-safe by itself.

    ``wall`` is real time in epoch seconds, ``sink`` receives the ledger's entries as JSON objects.
    """

    def __init__(
        self, settings: Settings, clock: Clock, wall: Callable[[], float], sink: Callable[[Json], None]
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.wall = wall
        self.random: random.Random = random.SystemRandom() if settings.seed is None else random.Random(settings.seed)
        self.signer = signing.Signer(secrets.token_bytes(32))
        self.generations: dict[tuple[Dialect, str], Generation] = {}
        self.subjects: dict[str, Json] = {}
        self.uploads: dict[str, Upload] = {}
        self.files: dict[str, tuple[Generation, int]] = {}
        self.issued: deque[tuple[str, str]] = deque(maxlen=KEPT_URLS)
        self.ledger = Ledger(settings.balance, sink)
        self.slots = Slots(settings.concurrency)
        self.callbacks = Callbacks()

    # -- generations -----------------------------------------------------------------------------------------------

    def create(
        self,
        dialect: Dialect,
        request: Json,
        now: float,
        *,
        generation_id: str,
        endpoint: str = "",
        stages: tuple[Stage, ...] = (),
        triggers_in: str | None = None,
        **fields: Any,
    ) -> tuple[Generation, CreateRecord]:
        """Add and charge a generation.

        ``stages`` is its script (empty: the default one), ``triggers_in`` the text with triggers (None: the prompt),
        ``fields`` are further fields of :class:`Generation`.
        """
        settings = self.settings
        generation = Generation(generation_id, dialect, now, stages, request, endpoint, **fields)
        prompt = generation.prompt if triggers_in is None else triggers_in
        if not stages:
            generation.stages = default_script(dialect, prompt, queue=settings.queue, duration=settings.duration)
        generation.credits = self.price_of(request)
        generation.without_url = "nourl" in triggers(prompt)
        generation.wall_created = self.clock.wall_now()
        set_error(generation, triggers(prompt).get("fail"))
        self.keep(generation)
        return generation, self.ledger.enter_create(generation, request, wall_time=self.wall())

    def price_of(self, request: Json) -> int:
        """Return the price of a create in credits; half, rounded up, for off-peak."""
        return -(-self.settings.price // 2) if request.get("off_peak") is True else self.settings.price

    def keep(self, generation: Generation) -> None:
        """Add a generation, or replace the one with its id."""
        self.generations[(generation.dialect, generation.id)] = generation
        if generation.medium is not None:
            for creation in range(1, generation.creations + 1):
                self.files[files.token(generation, creation)] = (generation, creation)

    def find(self, dialect: Dialect | None, generation_id: str | None, now: float) -> tuple[Generation, State] | None:
        """Return a generation with its state, or None if it does not exist (yet)."""
        generation = self.generations.get((dialect or NATIVE, generation_id or ""))
        state = generation.state_at(now) if generation is not None else None
        return None if generation is None or state is None else (generation, state)

    def tasks(self, now: float, ids: Collection[str] | None = None) -> list[tuple[Generation, State]]:
        """Return the official API's tasks with their states: those with ``ids``, or all in order of creation."""
        if ids is None:
            several = [one for (dialect, _), one in self.generations.items() if dialect == ENT]
        else:
            several = [one for name in ids if (one := self.generations.get((ENT, name))) is not None]
        return [(one, state) for one in several if one.listed and (state := one.state_at(now)) is not None]

    def unfinished(self, dialect: Dialect, now: float) -> int:
        """Return how many generations of a dialect wait or run, without presets."""
        created = (one for (name, _), one in self.generations.items() if name == dialect and one.wall_created)
        states = (one.state_at(now) for one in created)
        return sum(state is not None and state.finished_at is None for state in states)

    def cancel(self, generation: Generation, now: float) -> None:
        """Cancel and refund a generation, and let others move up."""
        generation.cancelled_at = now
        self.ledger.cancel(generation, now)
        for moved in self.slots.cancelled(now):
            self.ledger.expect_end(moved)

    def take_slot(self, generation: Generation, now: float) -> None:
        """Make a generation wait until one of the account's slots is free."""
        for moved in self.slots.admit(generation, now):
            self.ledger.expect_end(moved)

    # -- names and times -------------------------------------------------------------------------------------------

    def decimal_id(self) -> str:
        """Return a new id of the official API; steps of 1,000 leave room for the ids of its creations."""
        return str(_FIRST_ENT_ID + 1000 * self.random.randrange(10**14))

    def gateway_id(self, model: Any) -> str:
        """Return a new id in the gateways' format."""
        allowed = string.ascii_letters + string.digits
        name = "".join(c for c in model if c in allowed + ".-_") if isinstance(model, str) else ""
        tail = "".join(self.random.choices(allowed, k=10))
        return f"{name or 'vidu2.0'}:{int(self.clock.wall_now())}-{tail}"

    def trace_id(self) -> str:
        """Return 32 hexadecimal digits."""
        return f"{self.random.getrandbits(128):032x}"

    def moments(self, generation: Generation, state: State) -> Moments:
        """Return a generation's wall-clock times."""
        created = self.created_at(generation)
        since = max(created, self.clock.wall_of(state.since))
        finished = None if state.finished_at is None else max(created, self.clock.wall_of(state.finished_at))
        return Moments(created, since, finished)

    def created_at(self, generation: Generation) -> float:
        """Return the wall-clock time of a generation's creation, in epoch seconds."""
        known = generation.wall_created
        return self.clock.wall_of(generation.created_at) if known is None else known

    # -- files -----------------------------------------------------------------------------------------------------

    def content_of(self, generation_id: str, artifact: str, creation: int) -> Content:
        """Return the content of a file; KeyError for an unknown generation, ValueError for an unknown artifact."""
        generation = next((one for (_, key), one in self.generations.items() if key == generation_id), None)
        if generation is None:
            raise KeyError(generation_id)
        if generation.medium is None:
            raise ValueError(f"{generation_id} has no file")
        return files.content(generation, creation, artifact, self.settings.clip_seconds)

    def urls(self, generation: Generation, origin: str, now: float) -> list[dict[str, str]]:
        """Return new URLs: a mapping of artifact to URL for each creation."""
        if generation.without_url:
            return [{} for _ in range(generation.creations)]
        urls = []
        for creation in range(1, generation.creations + 1):
            links = {
                artifact: origin + self._sign(generation, creation, artifact, now)
                for artifact in files.artifacts_of(generation)
            }
            if generation.video_url is not None:
                links["video"] = generation.video_url
            urls.append({**links, "seconds": str(self.settings.clip_seconds)})
        return urls

    def _sign(self, generation: Generation, creation: int, artifact: str, now: float) -> str:
        settings = self.settings
        short = artifact == "cover" or generation.short_lived
        lifetime = settings.cover_lifetime if short else settings.url_lifetime
        target = self.signer.sign(files.path(generation, creation, artifact), int(now + lifetime))
        self.issued.append((generation.id, signing.signature_of(target)))
        return target

    # -- uploads ---------------------------------------------------------------------------------------------------

    def announce_upload(self, origin: str, now: float) -> tuple[Upload, str]:
        """Return a new upload and the URL for its bytes."""
        upload = Upload(self.decimal_id())
        self.uploads[upload.id] = upload
        return upload, origin + self.signer.sign(f"/uploads/{upload.id}", int(now + _UPLOAD_LIFETIME))


def stored_image(address: Any) -> Any:
    """Return an image as the list shows it: an inline image as the URL of the service's copy [guess]."""
    if not isinstance(address, str) or address[:5].lower() != "data:":
        return address
    return f"https://images.sandbox.invalid/{hashlib.sha256(address.encode()).hexdigest()[:32]}.png"


def without_null(body: Mapping[str, Any]) -> Json:
    """Return ``body`` without null fields, which count as absent."""
    return {name: value for name, value in body.items() if value is not None}
