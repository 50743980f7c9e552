"""The control API under ``/_sandbox/``: presets, faults, clock, keys and ledger, as JSON. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs

from airflow_provider_vidu.sandbox.core import Call, Core
from airflow_provider_vidu.sandbox.messages.answers import Answer, json_answer
from airflow_provider_vidu.sandbox.messages.calls import split_target

Json = dict[str, Any]


def snapshot(core: Core) -> Json:
    """Return the ledger as JSON: ``balance``, ``creates``, ``requests`` (counts), ``requests_by_id``, ``files``.

    Each create holds id, dialect, endpoint, body, time, wall_time, credits, charge (``charged``, ``refunded`` or
    ``cancelled``), answered, and the current state. Each file request holds id, artifact, method, status, range,
    authorization (whether the header was present), key_sent (whether a header or the URL held a key), time, wall_time.
    """
    with core.lock:
        core.settle()
        now, ledger = core.clock.now(), core.ledger
        creates = []
        for key, record in ledger.creates.items():
            generation = core.generations.get(key)
            state = generation.state_at(now) if generation is not None else None
            creates.append({**asdict(record), "state": state.word if state else None})
        return {
            "balance": ledger.balance,
            "creates": creates,
            "requests": dict(ledger.counts),
            "requests_by_id": {key: dict(counts) for key, counts in ledger.counts_by_id.items()},
            "files": [record.of_file() for record in ledger.requests if record.kind == "file"],
        }


def handle(core: Core, call: Call) -> Answer:
    """Return the answer to a call of the control API; 400, 404 and 405 explain what is wrong."""
    path, query = split_target(call.target)
    methods = _ROUTES.get(path[len("/_sandbox/") :].rstrip("/"))
    if methods is None:
        return json_answer({"message": f"unknown path; known paths: {', '.join(sorted(_ROUTES))}"}, 404)
    action = methods.get(call.method)
    if action is None:
        return json_answer({"message": f"use {' or '.join(methods)} here"}, 405)
    try:
        body = json.loads(call.body) if call.body else {}
        if not isinstance(body, dict):
            raise ValueError("the body must be a JSON object")  # noqa: TRY004 - one error type for all
        return json_answer(action(core, body, parse_qs(query)))
    except (ValueError, TypeError, RecursionError) as error:
        return json_answer({"message": str(error)}, 400)


def _requests(core: Core, body: Json, query: dict[str, list[str]]) -> Json:
    kind, wanted = query.get("kind", [None])[0], query.get("id", [None])[0]
    with core.lock:
        matching = [r for r in core.ledger.requests if kind in (None, r.kind) and wanted in (None, r.id)]
        return {"requests": [record.to_json() for record in matching]}


def _add_fault(core: Core, body: Json, query: dict[str, list[str]]) -> Json:
    core.add_rule(body)
    return {"rules": len(core.rules)}


def _callbacks(core: Core, body: Json, query: dict[str, list[str]]) -> Json:
    with core.lock:
        return {"callbacks": [record.to_json() for record in core.callbacks.records]}


def _add_callback_fault(core: Core, body: Json, query: dict[str, list[str]]) -> Json:
    core.add_callback_fault(**body)
    return {"faults": len(core.callbacks.faults)}


def _clear_faults(core: Core, body: Json, query: dict[str, list[str]]) -> Json:
    core.clear_rules()
    return {"rules": 0}


def _add_generation(core: Core, body: Json, query: dict[str, list[str]]) -> Json:
    generation = core.add_generation(body)
    return {"id": generation.id, "dialect": generation.dialect}


def _clock(core: Core, body: Json, query: dict[str, list[str]]) -> Json:
    if not body.keys() <= {"speed", "advance"}:
        raise ValueError("the clock accepts only speed and advance")
    if "speed" in body:
        core.clock.set_speed(body["speed"])
    if "advance" in body:
        core.clock.advance(body["advance"])
    return {"now": core.clock.now(), "speed": core.clock.speed}


def _keys(core: Core, body: Json, query: dict[str, list[str]]) -> Json:
    keys = body.get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, str) and key for key in keys):
        raise ValueError("keys must be a list of non-empty strings")
    core.rotate_keys(keys)
    return {"keys": len(keys)}


def _reset(core: Core, body: Json, query: dict[str, list[str]]) -> Json:
    core.reset()
    return {}


_ROUTES: dict[str, dict[str, Callable[[Core, Json, dict[str, list[str]]], Json]]] = {
    "ledger": {"GET": lambda core, body, query: snapshot(core)},
    "requests": {"GET": _requests},
    "callbacks": {"GET": _callbacks},
    "callback-faults": {"POST": _add_callback_fault},
    "faults": {"POST": _add_fault, "DELETE": _clear_faults},
    "generations": {"POST": _add_generation},
    "clock": {"GET": _clock, "POST": _clock},
    "keys": {"POST": _keys},
    "reset": {"POST": _reset},
}
