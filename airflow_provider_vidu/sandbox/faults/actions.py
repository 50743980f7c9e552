"""The actions that a fault rule may name, and their effects on an answer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_vidu.sandbox.faults import refusals
from airflow_provider_vidu.sandbox.messages import answers
from airflow_provider_vidu.sandbox.messages.answers import UNSET, Answer

_HTML = (
    "<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>"
    "<body><center><h1>502 Bad Gateway</h1></center><hr><center>nginx</center></body></html>\n"
)
_GARBAGE = ("html", "truncated-json", "list", "empty", "huge")
_RESETS = ("before", "headers", "body")
_RANGES = ("ignore", "wrong", "416")
_ETAGS = ("none", "weak", "change")


def one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Raise ValueError, listing the names, unless ``value`` is None or one of ``known``."""
    if value is not None and value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")


@dataclass(frozen=True)
class Action:
    """The effects of a fault. Times are real seconds; ``after`` is a fraction (below 1, or 1.0) or a number of bytes.

    ``status``, ``body`` and ``headers`` replace the sandbox's answer, and the request is not performed unless
    ``perform`` is set. All other actions change the real answer: ``delay`` before the headers, ``stall`` in the body at
    ``after``, ``reset`` (``before`` the answer, after the ``headers``, or in the ``body`` at ``after``; a RST, or an
    orderly close with ``fin``), ``garbage``, ``lose_answer`` (performed, then reset), ``expire`` (a file's 403),
    ``redirect``, ``content_type``, ``content_length`` (added to the true one), ``chunked``, ``gzip``, ``trickle``
    (bytes per second), ``range`` and ``etag`` (for files); ``huge_bytes`` is the size of the garbage ``huge``.
    ``refusal`` also replaces the answer, by a refusal's name (:data:`~.refusals.REFUSALS`); ``status`` and ``headers``
    then change that answer.
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
        one_of("reset", self.reset, _RESETS)
        one_of("garbage", self.garbage, _GARBAGE)
        one_of("range", self.range, _RANGES)
        one_of("etag", self.etag, _ETAGS)
        if self.refusal is not None:
            refusals.checked_name(self.refusal)
        for name in ("delay", "stall", "after", "trickle", "huge_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ValueError(f"{name} must be a number of 0 or more, not {value!r}")
        if self.status is not None and not (isinstance(self.status, int) and 100 <= self.status <= 999):
            raise ValueError(f"status must be an HTTP status, not {self.status!r}")
        if not isinstance(self.headers, dict):
            raise ValueError(f"headers must be an object, not {self.headers!r}")  # noqa: TRY004 - one error type for all

    @property
    def replaces(self) -> bool:
        """Whether the request is answered without being performed."""
        performs = self.perform or self.lose_answer
        instead = self.status is not None or self.redirect is not None or self.expire or self.reset == "before"
        return instead and not performs

    @property
    def cuts_before(self) -> bool:
        """Whether the connection ends before any byte of an answer."""
        return self.lose_answer or self.reset == "before"

    def offset(self, length: int) -> int:
        """Return the byte of a body of ``length`` bytes at which ``reset`` or ``stall`` applies."""
        is_fraction = isinstance(self.after, float) and self.after <= 1
        return min(length, int(length * self.after) if is_fraction else int(self.after))


NO_ACTION = Action()


def refused(action: Action, request: Any, trace_id: str) -> Answer:
    """Return the refusal that ``action`` names, for the model of ``request``."""
    model = request.get("model") if isinstance(request, dict) else None
    answer = refusals.refusal(action.refusal or "", model if isinstance(model, str) else "", trace_id)
    return answer if action.status is None else dataclasses.replace(answer, status=action.status)


def instead(action: Action, trace_id: str) -> Answer:
    """Return the answer by which ``action`` replaces the sandbox's."""
    if action.expire:
        return refusals.store_refusal("AccessDenied", trace_id)
    if action.redirect is not None:
        answer = answers.text_answer("", action.status or 302)
        answer.headers["Location"] = action.redirect
        return answer
    status = action.status or 200
    if action.body is UNSET:
        return Answer(status)
    as_answer = answers.text_answer if isinstance(action.body, str) else answers.json_answer
    return as_answer(action.body, status)


def shape(action: Action, answer: Answer, trace_id: str) -> Answer:
    """Return ``answer`` with the effects of ``action`` on status, headers and content."""
    has_status = action.status is not None and action.refusal is None
    if has_status or action.redirect is not None or action.expire:
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
    return dataclasses.replace(answer, stop=answer.start + answer.length // 2, listed=())
