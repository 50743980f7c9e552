"""Takes a request as data and returns the answer as data: no sockets, no threads.

:class:`Core` dispatches requests to the official API or the gateways, which share the state in ``world``. It is
thread-safe: one lock guards everything.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from airflow_provider_vidu.sandbox.bodies import ent, native
from airflow_provider_vidu.sandbox.faults import actions, refusals, rules
from airflow_provider_vidu.sandbox.faults.actions import NO_ACTION, Action
from airflow_provider_vidu.sandbox.faults.rules import Rule
from airflow_provider_vidu.sandbox.gateway import GatewayApi
from airflow_provider_vidu.sandbox.messages import answers
from airflow_provider_vidu.sandbox.messages.answers import Answer, Content
from airflow_provider_vidu.sandbox.messages.calls import ENT, NATIVE, Call, Dialect, Route, split_target
from airflow_provider_vidu.sandbox.official.api import OfficialApi
from airflow_provider_vidu.sandbox.official.endpoints import CREATES
from airflow_provider_vidu.sandbox.routing import route
from airflow_provider_vidu.sandbox.settings import Settings
from airflow_provider_vidu.sandbox.world import files
from airflow_provider_vidu.sandbox.world.callbacks import CallbackFault, Callbacks, Due, body_of
from airflow_provider_vidu.sandbox.world.clock import Clock
from airflow_provider_vidu.sandbox.world.generations import Generation, preset
from airflow_provider_vidu.sandbox.world.ledger import Ledger, RecordedRequest
from airflow_provider_vidu.sandbox.world.world import World

__all__ = ["Call", "Core", "Settings"]

_SCHEMES: dict[Dialect, tuple[str, ...]] = {NATIVE: ("bearer",), ENT: ("token", "bearer")}

_DOCUMENTED = frozenset(model for endpoint in CREATES.values() for model in endpoint.models)


class Core:
    """State and decisions of one sandbox.

    ``clock`` gives sandbox time (None: made from the settings), ``wall`` real time in epoch seconds; ``sink`` receives
    creates, refunds and file requests as JSON objects.
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
        refusals.checked_name(self.settings.gateway_refusal)
        self.clock = clock or Clock(self.settings.speed)
        self.lock = threading.RLock()
        self._wall = wall
        self._sink = sink or (lambda entry: None)
        self.reset()

    def reset(self) -> None:
        """Discard generations, ledger, faults, and changes of keys and speed; issued URLs become invalid."""
        with self.lock:
            self.keys: tuple[str, ...] = self.settings.keys
            self._all_keys = set(self.keys)
            self.clock.set_speed(self.settings.speed)
            self.rules: list[Rule] = []
            self._serial = 0
            self.world = World(self.settings, self.clock, self._wall, self._sink)
            self._official = OfficialApi(self.world)
            self._gateway = GatewayApi(self.world, _DOCUMENTED)

    # -- for tests and the control API -------------------------------------------------------------------------------

    @property
    def generations(self) -> dict[tuple[Dialect, str], Generation]:
        """All generations by dialect and id."""
        return self.world.generations

    @property
    def ledger(self) -> Ledger:
        """The account's balance, its creates, and all requests."""
        return self.world.ledger

    @property
    def issued(self) -> deque[tuple[str, str]]:
        """(generation id, signature) of each issued URL."""
        return self.world.issued

    @property
    def callbacks(self) -> Callbacks:
        """The callbacks that were sent, and their faults."""
        return self.world.callbacks

    def add_callback_fault(self, **fault: Any) -> None:
        """Add a fault of callbacks; ValueError or TypeError if it is invalid."""
        with self.lock:
            self.callbacks.faults.append(CallbackFault(**fault))

    def callbacks_due(self, origin: str) -> list[tuple[Due, Any]]:
        """Return the callbacks that are to be sent now, with their bodies; ``origin`` is the sandbox's address."""
        with self.lock:
            now, found = self.clock.now(), []
            for due in self.callbacks.due(now):
                urls = self.world.urls(due.generation, origin, now) if due.state.succeeded else []
                queried = ent.query_body(due.generation, due.state, urls)
                found.append((due, body_of(due, queried, self.settings.state_field)))
            return found

    def add_rule(self, data: Any) -> Rule:
        """Add a fault rule given as JSON; ValueError if it is invalid."""
        rule = Rule.from_json(data)
        with self.lock:
            self.rules.append(rule)
        return rule

    def clear_rules(self) -> None:
        """Remove all fault rules."""
        with self.lock:
            self.rules.clear()
            self.callbacks.faults.clear()

    def add_generation(self, spec: dict[str, Any]) -> Generation:
        """Add a generation with its own script, uncharged; ValueError if ``spec`` is invalid."""
        now, settings = self.clock.now(), self.settings
        generation = preset(spec, now=now, queue=settings.queue, duration=settings.duration)
        known = CREATES.get(generation.endpoint)
        if known is not None:
            generation.medium, generation.short_lived = known.medium, known.short_lived
            generation.listed = known.answer != "film"
        if generation.size is not None:
            files.content(generation, 1, "video", settings.clip_seconds)
        with self.lock:
            self.world.keep(generation)
        return generation

    def rotate_keys(self, keys: Iterable[str]) -> None:
        """Accept only ``keys`` from now on."""
        with self.lock:
            self.keys = tuple(keys)
            self._all_keys.update(self.keys)

    def content_of(self, generation_id: str, artifact: str = "video", creation: int = 1) -> Content:
        """Return the content of a file; KeyError for an unknown generation, ValueError for an unknown artifact."""
        with self.lock:
            return self.world.content_of(generation_id, artifact, creation)

    def settle(self) -> None:
        """Bring the ledger up to the current sandbox time."""
        with self.lock:
            self.ledger.settle(self.clock.now())

    # -- for clients -------------------------------------------------------------------------------------------------

    def handle(self, call: Call) -> tuple[Answer, Action]:
        """Return the answer to ``call``, and the fault to apply when sending it."""
        path, query = split_target(call.target)
        where = route(call.method, path, query)
        with self.lock:
            now = self.clock.now()
            self.ledger.settle(now)
            where = self._with_file_id(where)
            record = self._record(call, where, path, query, now)
            action = rules.pick(self.rules, where, call.method)
            answer = self._answer(call, where, path, query, now, action)
            record.fault = action is not None
            action = action or NO_ACTION
            if not action.cuts_before:
                record.status, record.listed = answer.status, answer.listed
            if where.kind == "file":
                self.ledger.enter_file(record)
        return answer, action

    def _answer(self, call: Call, where: Route, path: str, query: str, now: float, action: Action | None) -> Answer:
        trace_id = self.world.trace_id()
        if action is None:
            return self._dispatch(call, where, path, query, now, NO_ACTION, trace_id)
        if action.refusal is not None:
            return actions.shape(action, actions.refused(action, call.parsed(), trace_id), trace_id)
        if action.replaces:
            return actions.shape(action, Answer(), trace_id)
        return actions.shape(action, self._dispatch(call, where, path, query, now, action, trace_id), trace_id)

    def _with_file_id(self, where: Route) -> Route:
        file = self.world.files.get(where.token) if where.kind == "file" else None
        if file is None:
            return where
        return Route("file", file[0].dialect, file[0].id, "", where.artifact, where.token)

    def _record(self, call: Call, where: Route, path: str, query: str, now: float) -> RecordedRequest:
        sent = "\n".join((call.target, *call.headers.values()))
        record = RecordedRequest(
            kind=where.kind,
            dialect=where.dialect,
            id=where.id,
            method=call.method,
            path=path,
            query=query,
            headers=call.headers,
            body=None if where.shape == "put" else call.parsed(),
            time=now,
            wall_time=self._wall(),
            key_sent=any(key in sent for key in self._all_keys),
            artifact=where.artifact,
        )
        self.ledger.enter_request(record)
        return record

    def _dispatch(
        self, call: Call, where: Route, path: str, query: str, now: float, action: Action, trace_id: str
    ) -> Answer:
        if where.kind == "file":
            return self._file(call, where, path, query, now, action, trace_id)
        if where.kind == "other" or (where.kind == "upload" and self.settings.uploads == "off"):
            return answers.json_answer(_index(path), 200 if path == "/" else 404)
        if where.shape == "put" and call.method in where.allowed:
            return self._official.receive(call, where, path, query, now, trace_id)
        refused = self._refuse(call, where, trace_id)
        if refused is not None:
            return refused
        if where.dialect == NATIVE:
            return self._gateway.answer(call, where, now, action, trace_id)
        return self._official.answer(call, where, query, now, action, trace_id)

    def _refuse(self, call: Call, where: Route, trace_id: str) -> Answer | None:
        """Return the refusal of a malformed request or an invalid key, else None."""
        if where.dialect == ENT and where.id is not None and not (where.id.isascii() and where.id.isdecimal()):
            # The service decodes the path before it checks the key.
            message = f'CODEC: parse field id: strconv.ParseUint: parsing "{where.id}": invalid syntax'
            return ent.error(400, "CODEC", message, trace_id)
        if not self._has_key(call, where):
            if where.dialect == NATIVE:
                return native.gateway_error(401, "invalid_api_key", "Invalid token")
            return ent.error(401, "Unauthorized", "invalid API key", trace_id)
        if call.method not in where.allowed:
            body = {"message": f"{call.method} is not allowed here; use {' or '.join(where.allowed)}"}
            return answers.json_answer(body, 405)
        return None

    def _has_key(self, call: Call, where: Route) -> bool:
        header = (call.header("authorization") or "").strip()
        scheme, _, key = header.partition(" ")
        if where.dialect is not None and scheme.lower() in _SCHEMES[where.dialect] and key.strip() in self.keys:
            return True
        # new-api strips an optional "Bearer ", so its own routes accept a bare key.
        return header in self.keys and (self.settings.bare_keys or where.shape in ("unified", "openai", "new-api"))

    def _file(
        self, call: Call, where: Route, path: str, query: str, now: float, action: Action, trace_id: str
    ) -> Answer:
        world = self.world
        file = world.files.get(where.token)
        problem = "NoSuchKey" if file is None else world.signer.problem(path, query, now)
        if file is None or problem is not None:
            return refusals.store_refusal(problem or "NoSuchKey", trace_id)
        if call.method not in ("GET", "HEAD"):
            return refusals.store_refusal("AccessDenied", trace_id, 405)
        generation, creation = file
        state = generation.state_at(now)
        self._serial += 1
        content = files.content(generation, creation, where.artifact, self.settings.clip_seconds)
        modified_at = world.moments(generation, state).since if state else world.created_at(generation)
        return files.serve(
            call, path, where.artifact, content, modified_at=modified_at, action=action, serial=self._serial
        )


def _index(path: str) -> dict[str, Any]:
    if path != "/":
        return {"message": f"the Vidu sandbox has no path {path}"}
    return {
        "sandbox": "vidu",
        "dialects": {NATIVE: "/vidu-native/video/generations", ENT: "/ent/v2"},
        "control": "/_sandbox/ledger",
    }
