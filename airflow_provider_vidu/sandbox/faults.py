"""Faults on demand: which request is hit, and what happens to its answer.

A rule is JSON: ``{"match": {...}, "times": N or null, "skip": N, "action": {...}}``. The rules are tried in
the order in which they were added, and the first that matches, has let enough requests through and is not
used up, applies. A rule that is only a name, such as ``"model_not_found"``, refuses the next create so.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_vidu.sandbox.gateways import refusals
from airflow_provider_vidu.sandbox.routing import KINDS, Route
from airflow_provider_vidu.sandbox.server import answers
from airflow_provider_vidu.sandbox.server.answers import Answer
from airflow_provider_vidu.sandbox.world import signing
from airflow_provider_vidu.sandbox.world.generations import UNSET

_HTML = (
    "<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>"
    "<body><center><h1>502 Bad Gateway</h1></center><hr><center>nginx</center></body></html>\n"
)
_GARBAGE = ("html", "truncated-json", "list", "empty", "huge")
_RESETS = ("before", "headers", "body")
_RANGES = ("ignore", "wrong", "416")
_ETAGS = ("none", "weak", "change")


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")


@dataclass(frozen=True)
class Action:
    """What a fault does. Seconds are real seconds, and ``after`` is a fraction (below 1, or 1.0) or a count of bytes.

    ``status``, ``body`` and ``headers`` answer instead of the sandbox, which then does not perform the
    request unless ``perform`` is set. All other actions are done to the real answer: ``delay`` before the
    headers, ``stall`` in the body at ``after``, ``reset`` (``before`` the answer, after the ``headers``, or
    in the ``body`` at ``after``; a RST, or an orderly close with ``fin``), ``garbage``, ``lose_answer``
    (performed, then reset), ``expire`` (a file's 403), ``redirect``, ``content_type``, ``content_length``
    (added to the true one), ``chunked``, ``gzip``, ``trickle`` (bytes per second), ``range`` and ``etag``
    (for files); ``huge_bytes`` is the size of the garbage ``huge``. ``refusal`` answers instead of the sandbox,
    too, with a refusal by name (:data:`refusals.REFUSALS`); ``status`` and ``headers`` then change that answer.
    """

    status: int | None = None
    body: Any = UNSET
    headers: dict[str, str] = field(default_factory=dict)
    perform: bool = False
    delay: float = 0.0
    stall: float = 0.0
    reset: str | None = None
    after: float = 0.5
    fin: bool = False
    garbage: str | None = None
    huge_bytes: int = 64 * 1024 * 1024
    lose_answer: bool = False
    expire: bool = False
    redirect: str | None = None
    content_type: str | None = None
    content_length: int = 0
    chunked: bool = False
    gzip: bool = False
    trickle: float = 0.0
    range: str | None = None
    etag: str | None = None
    refusal: str | None = None

    def __post_init__(self) -> None:
        _one_of("reset", self.reset, _RESETS)
        _one_of("garbage", self.garbage, _GARBAGE)
        _one_of("range", self.range, _RANGES)
        _one_of("etag", self.etag, _ETAGS)
        if self.refusal is not None:
            refusals.checked_name(self.refusal)
        for name in ("delay", "stall", "after", "trickle", "huge_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ValueError(f"{name} must be a number of 0 or more, not {value!r}")
        if self.status is not None and not (isinstance(self.status, int) and 100 <= self.status <= 999):
            raise ValueError(f"status must be an HTTP status, not {self.status!r}")
        if not isinstance(self.headers, dict):
            raise ValueError(f"headers must be an object, not {self.headers!r}")  # noqa: TRY004 - one error type for whoever sends a rule

    @property
    def replaces(self) -> bool:
        """Whether the request is answered without being performed."""
        performs = self.perform or self.lose_answer
        instead = self.status is not None or self.redirect is not None or self.expire or self.reset == "before"
        return instead and not performs

    @property
    def cuts_before(self) -> bool:
        """Whether the connection ends without a single byte of an answer."""
        return self.lose_answer or self.reset == "before"

    def offset(self, length: int) -> int:
        """Return the byte of a body of ``length`` bytes at which ``reset`` or ``stall`` strikes."""
        is_fraction = isinstance(self.after, float) and self.after <= 1
        return min(length, int(length * self.after) if is_fraction else int(self.after))


NO_ACTION = Action()


@dataclass
class Rule:
    """One rule with what is left of it: ``skip`` requests to let through, ``times`` uses (None: no limit)."""

    match: dict[str, str]
    action: Action
    times: int | None = 1
    skip: int = 0
    used: int = 0

    @classmethod
    def from_json(cls, data: Any) -> Rule:
        """Return the rule that ``data`` describes; ValueError, naming the field, for anything unknown.

        A text is the name of a refusal, which the next create gets; ``{"refusal": NAME}`` with ``match``,
        ``times`` and ``skip`` says the same of others.
        """
        if isinstance(data, str):
            data = {"refusal": data}
        if isinstance(data, dict) and "refusal" in data:
            data = {"match": {"kind": "create"}, "action": {"refusal": data["refusal"]}} | {
                name: value for name, value in data.items() if name != "refusal"
            }
        if not isinstance(data, dict):
            raise ValueError("a rule is a JSON object with match, times, skip and action")  # noqa: TRY004 - one error type for whoever sends a rule
        _known("rule", data, ("match", "times", "skip", "action"))
        match, action = data.get("match", {}), data.get("action")
        if not isinstance(match, dict) or not isinstance(action, dict):
            raise ValueError("match and action must be JSON objects")  # noqa: TRY004 - one error type for whoever sends a rule
        _known("match", match, ("kind", "id", "dialect", "artifact", "method"))
        _one_of("match.kind", match.get("kind"), KINDS)
        _known("action", action, tuple(item.name for item in dataclasses.fields(Action)))
        return cls(
            match,
            Action(**action),
            _count(data.get("times", 1), "times"),
            _count(data.get("skip"), "skip") or 0,
        )

    def matches(self, route: Route, method: str) -> bool:
        """Return whether the rule means this request."""
        seen = {
            "kind": route.kind,
            "id": route.id,
            "dialect": route.dialect,
            "artifact": route.artifact,
            "method": method,
        }
        return all(seen[name] == wanted for name, wanted in self.match.items() if wanted is not None)

    def take(self) -> bool:
        """Count one matching request and return whether the rule applies to it."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.used >= self.times:
            return False
        self.used += 1
        return True


def pick(rules: list[Rule], route: Route, method: str) -> Action | None:
    """Return the action of the first rule that applies to this request, or None; counts the rule as used."""
    for rule in rules:
        if rule.matches(route, method) and rule.take():
            return rule.action
    return None


def refused(action: Action, request: Any, trace_id: str) -> Answer:
    """Return the refusal that ``action`` names, made out to the model of ``request``."""
    model = request.get("model") if isinstance(request, dict) else None
    answer = refusals.refusal(action.refusal or "", model if isinstance(model, str) else "", trace_id)
    return answer if action.status is None else dataclasses.replace(answer, status=action.status)


def instead(action: Action, trace_id: str) -> Answer:
    """Return the answer that ``action`` gives in place of the sandbox's own one."""
    if action.expire:
        return answers.text_answer(signing.refusal("AccessDenied", trace_id), 403, "application/xml")
    if action.redirect is not None:
        answer = answers.text_answer("", action.status or 302)
        answer.headers["Location"] = action.redirect
    elif action.body is UNSET:
        answer = Answer(action.status or 200)
    elif isinstance(action.body, str):
        answer = answers.text_answer(action.body, action.status or 200)
    else:
        answer = answers.json_answer(action.body, action.status or 200)
    return answer


def shape(action: Action, answer: Answer, trace_id: str) -> Answer:
    """Return ``answer`` after everything that ``action`` does to its status, headers and content."""
    by_status = action.status is not None and action.refusal is None
    takes_place = by_status or action.redirect is not None or action.expire
    if takes_place:
        answer = instead(action, trace_id)
    elif action.body is not UNSET:
        answer = dataclasses.replace(instead(action, trace_id), status=answer.status)
    if action.garbage is not None:
        answer = _garbage(action, answer)
    if action.content_type is not None:
        answer.headers["Content-Type"] = action.content_type
    answer.headers.update({name: str(value) for name, value in action.headers.items()})
    return answer


def _garbage(action: Action, answer: Answer) -> Answer:
    if action.garbage == "html":
        return answers.text_answer(_HTML, answer.status, "text/html")
    if action.garbage == "list":
        return answers.json_answer([1, "two", None], answer.status)
    if action.garbage == "empty":
        return answers.text_answer("", answer.status, answers.JSON_TYPE)
    if action.garbage == "huge":
        content = answers.Repeated(b'{"padding":"', action.huge_bytes, b'"}')
        return Answer(answer.status, {"Content-Type": answers.JSON_TYPE}, content)
    return dataclasses.replace(answer, stop=answer.start + answer.length // 2)


def _known(what: str, data: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in data:
        if name not in known:
            raise ValueError(f"unknown field {name!r} in {what}; known are {', '.join(known)}")


def _count(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be a whole number of 0 or more, or null, not {value!r}")
    return value
