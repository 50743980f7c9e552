"""Refusals by name: of gateways, of the official API at its limits, and of the file store.

Sources: ``vidu_api_full.md`` section 3 and new-api's source (https://github.com/QuantumNous/new-api). Each is sent
before anything is forwarded or charged. A fault (``{"action": {"refusal": NAME}}`` or the name alone) or a prompt
(``[refuse:NAME]``) names one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from airflow_provider_vidu.sandbox.messages.answers import Answer, json_answer, text_answer

Json = dict[str, Any]


def _gateway(status: int, code: str, message: str) -> Callable[[str, str], Answer]:
    def answer(model: str, trace_id: str) -> Answer:
        text = f"{message.format(model=model)} (request id: {trace_id[:20]})"
        return json_answer({"error": {"message": text, "type": "new_api_error", "param": "", "code": code}}, status)

    return answer


def _task(status: int, code: str, message: str) -> Callable[[str, str], Answer]:
    def answer(model: str, trace_id: str) -> Answer:
        return json_answer({"code": code, "message": message.format(model=model), "data": None}, status)

    return answer


def official_error(status: int, reason: str, message: str, trace_id: str) -> Json:
    """Return an error body of the official API; the code string is in ``reason``."""
    return {"code": status, "reason": reason, "message": message, "metadata": {"trace_id": trace_id}}


def _official(status: int, reason: str, message: str) -> Callable[[str, str], Answer]:
    return lambda model, trace_id: json_answer(official_error(status, reason, message, trace_id), status)


def wrapped(status: int, reason: str, message: str, trace_id: str) -> Answer:
    """Return an official error as gateways forward it: as JSON inside their own message."""
    inner = json.dumps(official_error(status, reason, message, trace_id))
    return json_answer({"code": "fail_to_fetch_task", "message": inner, "data": None}, status)


REFUSALS: Final[dict[str, Callable[[str, str], Answer]]] = {
    "model_not_found": _gateway(
        503, "model_not_found", "No available channel for model {model} under group default (distributor)"
    ),
    "convert_request_failed": _gateway(500, "convert_request_failed", "the request cannot be converted"),
    "build_request_failed": _task(500, "build_request_failed", "the request cannot be built for model {model}"),
    "get_channel_failed": _task(500, "get_channel_failed", "no channel is available for model {model}"),
    "rate_limited": lambda model, trace_id: Answer(429),
    "token_concurrency_limit_reached": _gateway(
        429, "token_concurrency_limit_reached", "the token has reached its limit of concurrent requests"
    ),
    "video_queue_full": _task(429, "video_queue_full", "the queue of videos is full, try again later"),
    "video_queue_full_200": _task(200, "video_queue_full", "the queue of videos is full, try again later"),
    "insufficient_user_quota": _gateway(403, "insufficient_user_quota", "the balance is exhausted"),
    "insufficient_quota": _gateway(429, "insufficient_quota", "You exceeded your current quota"),
    "upstream_credit_insufficient": lambda model, trace_id: wrapped(
        400, "CreditInsufficient", "credits are insufficient", trace_id
    ),
    "upstream_rate_limited": lambda model, trace_id: wrapped(429, "TooManyRequests", "too many requests", trace_id),
    "quota_exceeded": _official(429, "QuotaExceeded", "concurrency limit exceeded"),
    "system_throttling": _official(429, "SystemThrottling", "the system is busy"),
    "credit_insufficient": _official(400, "CreditInsufficient", "credits are insufficient"),
}
"""For each name, the function that makes its answer from the model's name and a trace id."""


def refusal(name: str, model: str, trace_id: str) -> Answer:
    """Return the answer for ``name``; ValueError, listing all names, if it is unknown."""
    return REFUSALS[checked_name(name)](model, trace_id)


def checked_name(name: Any) -> str:
    """Return ``name`` if it names a refusal; ValueError, listing all names, otherwise."""
    if not isinstance(name, str) or name not in REFUSALS:
        raise ValueError(f"refusal must be one of {', '.join(REFUSALS)}, not {name!r}")
    return name


_STORE_REFUSALS: Final = {
    "AccessDenied": (403, "Request has expired"),
    "SignatureDoesNotMatch": (403, "The request signature we calculated does not match the signature you provided."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size."),
}


def store_refusal(code: str, trace_id: str, status: int | None = None) -> Answer:
    """Return the XML refusal of an S3-like store; ``status`` overrides the usual one of ``code``."""
    usual, message = _STORE_REFUSALS[code]
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        f"<Message>{message}</Message><RequestId>{trace_id}</RequestId></Error>"
    )
    return text_answer(body, status or usual, "application/xml")
