"""The sandbox's mind: takes a request as data, returns the answer as data. No sockets, no threads of its own.

:class:`Core` may be used from several threads; one lock guards all of it.
"""

from __future__ import annotations

import json
import random
import secrets
import string
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from airflow_provider_vidu.sandbox import answers, ent, faults, files, native, signing
from airflow_provider_vidu.sandbox.answers import Answer, Content
from airflow_provider_vidu.sandbox.clock import Clock
from airflow_provider_vidu.sandbox.faults import NO_ACTION, Action, Rule
from airflow_provider_vidu.sandbox.generations import (
    ARTIFACTS,
    ENT,
    NATIVE,
    UNSET,
    Dialect,
    Generation,
    State,
    default_script,
    preset,
    set_error,
    triggers,
)
from airflow_provider_vidu.sandbox.ledger import Ledger, RecordedRequest
from airflow_provider_vidu.sandbox.routing import Route, route, split_target

_SCHEMES: dict[Dialect, tuple[str, ...]] = {NATIVE: ("bearer",), ENT: ("token", "bearer")}
#: The service's ids lie beyond 2 ** 53, where a client that reads them as floating point numbers goes wrong.
_FIRST_ENT_ID = 911_000_000_000_000_000


#: Signatures that are remembered, for tests that look where they stand.
KEPT_URLS = 200_000


@dataclass(frozen=True)
class Settings:
    """How a sandbox behaves.

    ``keys``: accepted API keys. ``speed``: sandbox seconds per real second. ``queue`` and ``duration``:
    sandbox seconds that a generation waits and then runs. ``clip_seconds``: playing time of the videos.
    ``url_lifetime``: sandbox seconds that a result URL is good for. ``balance``: credits at the start, of
    which a create takes ``price``. ``seed``: makes ids and secrets the same at every start (None: they
    differ).
    """

    keys: tuple[str, ...] = ("sandbox-key",)
    speed: float = 1.0
    queue: float = 4.0
    duration: float = 20.0
    clip_seconds: float = 2.0
    url_lifetime: float = 86_400.0
    balance: int = 100_000
    price: int = 80
    seed: int | None = None


@dataclass(frozen=True)
class Call:
    """One HTTP request as data: ``target`` is the raw request target, ``origin`` the scheme and host it came to."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    origin: str = "http://127.0.0.1"

    def header(self, name: str) -> str | None:
        """Return the value of the header ``name``, written in any case, or None."""
        return next((value for key, value in self.headers.items() if key.lower() == name), None)


class Core:
    """State and decisions of one sandbox.

    ``clock`` gives sandbox time (made from the settings when None), ``wall`` real time in epoch seconds, and
    ``sink`` gets one JSON object per entry of the ledger that is worth a line in a file.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        clock: Clock | None = None,
        wall: Callable[[], float] = time.time,
        sink: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.clock = clock or Clock(self.settings.speed)
        self.lock = threading.RLock()
        self._wall = wall
        self._sink = sink or (lambda entry: None)
        self._random: random.Random = (
            random.SystemRandom() if self.settings.seed is None else random.Random(self.settings.seed)
        )
        self._signer = signing.Signer(secrets.token_bytes(32))
        self.reset()

    def reset(self) -> None:
        """Forget everything: generations, books, faults, changed keys and speed. URLs handed out go stale."""
        with self.lock:
            self.keys: tuple[str, ...] = self.settings.keys
            self._all_keys = set(self.keys)
            self.clock.set_speed(self.settings.speed)
            self.generations: dict[tuple[Dialect, str], Generation] = {}
            self._files: dict[str, tuple[Generation, int]] = {}
            self._serial = 0
            self.rules: list[Rule] = []
            self.issued: deque[tuple[str, str]] = deque(maxlen=KEPT_URLS)
            self.ledger = Ledger(self.settings.balance, self._sink)

    # -- what tests and the control API do ---------------------------------------------------------------------------

    def add_rule(self, data: Any) -> Rule:
        """Add a fault rule given as JSON; ValueError when it is not understood."""
        rule = Rule.from_json(data)
        with self.lock:
            self.rules.append(rule)
        return rule

    def clear_rules(self) -> None:
        """Remove all fault rules."""
        with self.lock:
            self.rules.clear()

    def add_generation(self, spec: dict[str, Any]) -> Generation:
        """Add a generation with a script of its own, uncharged; ValueError when ``spec`` is not understood."""
        now, settings = self.clock.now(), self.settings
        generation = preset(spec, now=now, queue=settings.queue, duration=settings.duration)
        if generation.size is not None:
            files.content(generation, 1, "video", settings.clip_seconds)
        with self.lock:
            self._keep(generation)
        return generation

    def rotate_keys(self, keys: Iterable[str]) -> None:
        """Accept ``keys`` and no others from now on."""
        with self.lock:
            self.keys = tuple(keys)
            self._all_keys.update(self.keys)

    def content_of(self, generation_id: str, artifact: str = "video", creation: int = 1) -> Content:
        """Return the content of a file; KeyError for an unknown generation, ValueError for an unknown artifact."""
        if artifact not in ARTIFACTS:
            raise ValueError(f"artifact must be one of {', '.join(ARTIFACTS)}, not {artifact!r}")
        with self.lock:
            found = [g for (_, key), g in self.generations.items() if key == generation_id]
        if not found:
            raise KeyError(generation_id)
        return files.content(found[0], creation, artifact, self.settings.clip_seconds)

    def settle(self) -> None:
        """Bring the books up to the present sandbox time."""
        with self.lock:
            self.ledger.settle(self.clock.now())

    # -- what clients do ---------------------------------------------------------------------------

    def handle(self, call: Call) -> tuple[Answer, Action]:
        """Return the answer to ``call``, and the fault according to which it is to be sent."""
        path, query = split_target(call.target)
        where = route(call.method, path)
        with self.lock:
            now = self.clock.now()
            self.ledger.settle(now)
            where = self._with_file_id(where)
            record = self._record(call, where, path, query, now)
            action = faults.pick(self.rules, where, call.method)
            answer = self._answer(call, where, path, query, now, action)
            record.fault = action is not None
            action = action or NO_ACTION
            record.status = 0 if action.cuts_before else answer.status
            if where.kind == "file":
                self.ledger.enter_file(record)
        return answer, action

    def _answer(self, call: Call, where: Route, path: str, query: str, now: float, action: Action | None) -> Answer:
        trace_id = f"{self._random.getrandbits(128):032x}"
        if action is None:
            return self._dispatch(call, where, path, query, now, NO_ACTION, trace_id)
        if action.replaces:
            return faults.shape(action, Answer(), trace_id)
        return faults.shape(action, self._dispatch(call, where, path, query, now, action, trace_id), trace_id)

    def _with_file_id(self, where: Route) -> Route:
        found = self._files.get(where.token)
        if found is None:
            return where
        return Route("file", found[0].dialect, found[0].id, "", where.artifact, where.token)

    def _record(self, call: Call, where: Route, path: str, query: str, now: float) -> RecordedRequest:
        secrets_seen = "\n".join((call.target, *call.headers.values()))
        record = RecordedRequest(
            kind=where.kind,
            dialect=where.dialect,
            id=where.id,
            method=call.method,
            path=path,
            query=query,
            headers=call.headers,
            body=_parsed(call.body),
            time=now,
            wall_time=self._wall(),
            key_sent=any(key in secrets_seen for key in self._all_keys),
            artifact=where.artifact,
        )
        self.ledger.enter_request(record)
        return record

    def _dispatch(
        self, call: Call, where: Route, path: str, query: str, now: float, action: Action, trace_id: str
    ) -> Answer:
        if where.kind == "file":
            return self._file(call, where, path, query, now, action, trace_id)
        if where.kind == "other":
            return answers.json_answer(_index(path), 200 if path == "/" else 404)
        refused = self._refuse(call, where, trace_id)
        if refused is not None:
            return refused
        if where.kind == "create":
            return self._create(call, where, now, action, trace_id)
        if where.kind == "cancel":
            return self._cancel(where, now, trace_id)
        if where.kind == "query":
            return self._query(call, where, now, trace_id)
        return self._list(query, now) if where.kind == "list" else self._credits(now)

    def _refuse(self, call: Call, where: Route, trace_id: str) -> Answer | None:
        """Return the refusal of a request that is wrong in itself or has no valid key, else None."""
        if where.dialect == ENT and where.id is not None and not (where.id.isascii() and where.id.isdecimal()):
            # The service decodes the path before it looks at the key.
            message = f'CODEC: parse field id: strconv.ParseUint: parsing "{where.id}": invalid syntax'
            return ent.error(400, "CODEC", message, trace_id)
        scheme, _, key = (call.header("authorization") or "").partition(" ")
        valid = where.dialect is not None and scheme.lower() in _SCHEMES[where.dialect] and key.strip() in self.keys
        if not valid:
            if where.dialect == NATIVE:
                return native.gateway_error(401, "invalid_api_key", "Invalid token")
            return ent.error(401, "Unauthorized", "invalid API key", trace_id)
        if call.method != where.allowed:
            body = {"message": f"{call.method} is not allowed here, {where.allowed} is"}
            return answers.json_answer(body, 405)
        return None

    # -- creates -----------------------------------------------------------------------------------

    def _create(self, call: Call, where: Route, now: float, action: Action, trace_id: str) -> Answer:
        request = _parsed(call.body)
        is_native = where.dialect == NATIVE
        if not isinstance(request, dict):
            message = "the request body is not a JSON object"
            if is_native:
                return native.gateway_error(400, "invalid_request", message, "invalid_request_error")
            return ent.error(400, "BadRequest", message, trace_id)
        problem = None if is_native else ent.problem(where.endpoint, request)
        if problem is not None:
            return ent.error(400, *problem, trace_id)
        if self.ledger.balance < self.settings.price:
            if is_native:
                return native.gateway_error(403, "insufficient_user_quota", "the balance is used up")
            return ent.error(400, "CreditInsufficient", "credits are insufficient", trace_id)
        generation = self._new_generation(where, request, now)
        entry = self.ledger.enter_create(generation, request, wall_time=self._wall())
        entry.answered = not action.cuts_before
        return native.created(generation) if is_native else ent.created(generation)

    def _new_generation(self, where: Route, request: dict[str, Any], now: float) -> Generation:
        dialect = where.dialect or NATIVE
        settings = self.settings
        generation = Generation(self._new_id(dialect, request, now), dialect, now, (), request, where.endpoint)
        prompt = generation.prompt
        generation.stages = default_script(dialect, prompt, queue=settings.queue, duration=settings.duration)
        generation.credits = settings.price
        generation.without_url = "nourl" in triggers(prompt)
        set_error(generation, triggers(prompt).get("fail"))
        self._keep(generation)
        return generation

    def _new_id(self, dialect: Dialect, request: dict[str, Any], now: float) -> str:
        if dialect == ENT:
            # Steps of 1,000 leave room for the ids of the creations.
            return str(_FIRST_ENT_ID + 1000 * self._random.randrange(10**14))
        model = request.get("model")
        allowed = string.ascii_letters + string.digits
        name = "".join(c for c in model if c in allowed + ".-_") if isinstance(model, str) else ""
        return f"{name or 'vidu2.0'}:{int(now)}-{''.join(self._random.choices(allowed, k=10))}"

    def _keep(self, generation: Generation) -> None:
        self.generations[(generation.dialect, generation.id)] = generation
        for creation in range(1, generation.creations + 1):
            self._files[files.token(generation, creation)] = (generation, creation)

    # -- everything else ---------------------------------------------------------------------------

    def _state(self, where: Route, now: float) -> tuple[Generation, State] | None:
        generation = self.generations.get((where.dialect or NATIVE, where.id or ""))
        state = generation.state_at(now) if generation is not None else None
        return None if generation is None or state is None else (generation, state)

    def _unknown(self, where: Route, trace_id: str) -> Answer:
        if where.dialect == NATIVE:
            return native.task_error(400, "task_not_exist", "task_not_exist")
        return ent.error(404, "TaskNotFound", f"task {where.id} not found", trace_id)

    def _query(self, call: Call, where: Route, now: float, trace_id: str) -> Answer:
        found = self._state(where, now)
        if found is None:
            return self._unknown(where, trace_id)
        generation, state = found
        if generation.answer is not UNSET:
            return answers.json_answer(generation.answer)
        urls = self._urls(generation, call.origin, now) if state.succeeded else []
        say = native.queried if where.dialect == NATIVE else ent.queried
        return say(generation, state, urls)

    def _urls(self, generation: Generation, origin: str, now: float) -> list[dict[str, str]]:
        """Return fresh URLs: one mapping of artifact to URL per creation."""
        if generation.without_url:
            return [{} for _ in range(generation.creations)]
        artifacts = ["video", "cover"]
        if generation.dialect == ENT and generation.request.get("watermark"):
            artifacts.append("watermarked")
        expires = int(now + self.settings.url_lifetime)
        urls = []
        for creation in range(1, generation.creations + 1):
            signed = {a: self._signer.sign(files.path(generation, creation, a), expires) for a in artifacts}
            self.issued.extend((generation.id, signing.signature_of(target)) for target in signed.values())
            found = {artifact: origin + target for artifact, target in signed.items()}
            if generation.video_url is not None:
                found["video"] = generation.video_url
            urls.append({**found, "seconds": str(self.settings.clip_seconds)})
        return urls

    def _cancel(self, where: Route, now: float, trace_id: str) -> Answer:
        found = self._state(where, now)
        if found is None:
            return self._unknown(where, trace_id)
        generation, state = found
        if not state.waiting:
            word = "scheduled" if state.finished_at is None else state.word
            return ent.error(400, "BadRequest", f"task state is {word}, can not cancel", trace_id)
        generation.cancelled_at = now
        self.ledger.cancel(generation, now)
        return answers.json_answer({})

    def _list(self, query: str, now: float) -> Answer:
        wanted = parse_qs(query)
        size = _number(wanted, ("pagesize", "page_size", "pager.pagesz"), 20)
        page = _number(wanted, ("page_token", "page", "pager.page"), 0)
        found = [(g, s) for g in self._of_ent() if (s := g.state_at(now)) is not None]
        found.sort(key=lambda pair: pair[0].created_at, reverse=True)
        rest = found[page * size :]
        return ent.listed(rest[:size], str(page + 1) if len(rest) > size else "")

    def _credits(self, now: float) -> Answer:
        states = [s for g in self._of_ent() if (s := g.state_at(now)) is not None and s.finished_at is None]
        waiting = sum(state.waiting for state in states)
        return ent.credits_left(self.ledger.balance, len(states) - waiting, waiting)

    def _of_ent(self) -> list[Generation]:
        return [g for g in self.generations.values() if g.dialect == ENT]

    def _file(
        self, call: Call, where: Route, path: str, query: str, now: float, action: Action, trace_id: str
    ) -> Answer:
        found = self._files.get(where.token)
        problem = "NoSuchKey" if found is None else self._signer.problem(path, query, now)
        if found is None or problem is not None:
            status = 404 if found is None else 403
            return answers.text_answer(signing.refusal(problem or "", trace_id), status, "application/xml")
        if call.method not in ("GET", "HEAD"):
            return answers.text_answer(signing.refusal("AccessDenied", trace_id), 405, "application/xml")
        generation, creation = found
        state = generation.state_at(now)
        self._serial += 1
        return files.serve(
            where.token,
            where.artifact,
            files.content(generation, creation, where.artifact, self.settings.clip_seconds),
            method=call.method,
            range_header=call.header("range"),
            if_range=call.header("if-range"),
            modified_at=(state.finished_at if state else None) or generation.created_at,
            action=action,
            serial=self._serial,
        )


def _parsed(body: bytes) -> Any:
    """Return ``body`` as JSON, as text when it is none, or None when it is empty."""
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


def _number(query: dict[str, list[str]], names: tuple[str, ...], default: int) -> int:
    """Return the first of ``names`` that ``query`` holds as a whole number, else ``default``."""
    for name in names:
        value = query.get(name, [""])[0]
        if value.isascii() and value.isdecimal():
            return int(value)
    return default


def _index(path: str) -> dict[str, Any]:
    if path != "/":
        return {"message": f"the Vidu sandbox knows no path {path}"}
    return {
        "sandbox": "vidu",
        "dialects": {NATIVE: "/vidu-native/video/generations", ENT: "/ent/v2"},
        "control": "/_sandbox/ledger",
    }
