"""Error codes of the service and its gateways, their exception classes, and where answers hold them. No I/O.

Gateways of either dialect pass official errors on, in their own shape, inside their own message or unchanged, so codes
are read from ``reason``, ``code``, ``err_code``, ``error.code``, ``error.type``, and the same fields of JSON inside a
message. One table serves both dialects.

Sources: the table of error codes on platform.vidu.com; ``types/error.go``, ``relay/relay_task.go`` and
``middleware/distributor.go`` of new-api (https://github.com/QuantumNous/new-api).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.messages import IF_IT_LASTS, ApiAnswer
from airflow_provider_vidu.common.text import redacted, sentence
from airflow_provider_vidu.common.values import embedded, objects, reason, text, trace_id
from airflow_provider_vidu.exceptions import ViduAPIError, ViduResponseError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.polling.retries import retry_after

ErrorClass = type[ViduAPIError]

BY_STATUS: Final[Mapping[int, ErrorClass]] = {
    401: exceptions.ViduAuthError,
    402: exceptions.ViduCreditError,
    403: exceptions.ViduAuthError,
    404: exceptions.ViduNotFoundError,
    408: exceptions.ViduServerError,
    409: exceptions.ViduConflictError,
    425: exceptions.ViduBusyError,
    429: exceptions.ViduRateLimitError,
    # "request canceled by client": a proxy or gateway hung up; the create may have been carried out.
    499: exceptions.ViduServerError,
    # Cloudflare could not connect to the server, or trust it: the request has not left Cloudflare. 520, 522 and 524
    # may come later (https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/).
    521: exceptions.ViduUnavailableError,
    523: exceptions.ViduUnavailableError,
    525: exceptions.ViduUnavailableError,
    526: exceptions.ViduUnavailableError,
}
"""The class of a status without a known code; other 4xx are request errors, 5xx server errors."""


def _table(rows: Mapping[ErrorClass, str]) -> dict[str, ErrorClass]:
    return {word: kind for kind, words in rows.items() for word in words.split()}


OFFICIAL: Final[Mapping[str, ErrorClass]] = _table(
    {
        exceptions.ViduRequestError: """
            badrequest fieldlacking fieldunwanted fielditemcountoutofrange fieldinvalid pagesizeoutofrange
            modelunavailable usercancelled""",
        exceptions.ViduImageError: """
            imageformatinvalid imagesizeinvalid imagecheckbodyjointsfailed imagecheckfacefailed imageobjectsundetected
            facedetectfailure facedetectnotpass nofacedetected multifacedetected videoformatinvalid""",
        exceptions.ViduImageDownloadError: "imagedownloadfailure videodownloadfailure",
        exceptions.ViduPolicyError: """
            taskpromptpolicyviolation auditsubmitillegal creationpolicyviolation auditfailed photoauditnotpass""",
        exceptions.ViduBusyError: "operationinprocess",
        exceptions.ViduCreditError: "creditinsufficient",
        exceptions.ViduAuthError: "unauthorized forbidden",
        exceptions.ViduNotFoundError: "tasknotfound creationnotfound notfound",
        exceptions.ViduConflictError: "conflict",
        exceptions.ViduRateLimitError: "quotaexceeded toomanyrequests systemthrottling",
        # The vendor does not explain Unknown, so a create may have been carried out. Canceled comes with 499.
        exceptions.ViduServerError: "internalservicefailure unknown canceled",
    }
)
"""The official reasons, lower-case; a failed generation has the same codes in ``err_code``."""

MODEL_NOT_FOUND: Final = "model_not_found"

BEFORE_SENDING: Final[Mapping[str, ErrorClass]] = _table(
    {
        # model_not_found: a typo in the model's name, or its channel is disabled; the gateway does not say which
        # (middleware/distributor.go). The others: controller/relay.go and relay/relay_task.go, before DoRequest.
        exceptions.ViduRequestError: """
            model_not_found build_request_failed convert_request_failed count_token_failed
            gen_relay_info_failed read_request_body_failed get_task_request_failed invalid_api_platform
            invalid_api_type model_mapping_failed model_price_error not_implemented channel_not_found
            task_channel_disable channel:param_override_invalid channel:header_override_invalid
            channel:model_mapped_error""",
        # get_channel_failed may follow another channel's failure, which is refunded (controller/relay.go).
        # system_…: middleware/performance.go; token_…: the middleware of new-api's relatives, before they relay.
        exceptions.ViduUnavailableError: """
            get_channel_failed channel:no_available_key channel:invalid_key channel_no_available_key
            token_concurrency_unavailable system_cpu_overloaded system_memory_overloaded system_disk_overloaded""",
        exceptions.ViduRateLimitError: "video_queue_full token_concurrency_limit_reached",
        exceptions.ViduCreditError: """
            insufficient_user_quota insufficient_quota pre_consume_token_quota_failed entitlement_required
            entitlement_inactive entitlement_daily_limit_exceeded entitlement_total_limit_exceeded""",
        exceptions.ViduPolicyError: "sensitive_words_detected",
        # Nothing is done with a refused key, by the gateway or the service behind it.
        exceptions.ViduAuthError: "invalid_api_key access_denied",
    }
)
"""Codes of a gateway that has sent and charged nothing yet (C for new-api; its relatives use the same)."""

WITH_REFUSAL: Final[Mapping[str, ErrorClass]] = _table(
    {
        # new-api: after the service behind it has answered (relay/channel/gemini); its relatives: before.
        exceptions.ViduPolicyError: "prompt_blocked",
        # No source says whose limit it is, and when it applies.
        exceptions.ViduRateLimitError: """
            queue_full concurrency_limit_reached rate_limit_exceeded rate_limit too_many_requests""",
    }
)
"""Codes that do not prove that nothing was sent: for a create they count only with a 4xx status."""

GATEWAY: Final[Mapping[str, ErrorClass]] = {
    **BEFORE_SENDING,
    **_table({exceptions.ViduNotFoundError: "task_not_exist task_not_found task_origin_not_exist"}),
}

ERRORS: Final[Mapping[str, ErrorClass]] = {**GATEWAY, **OFFICIAL}
"""Every code that counts with any HTTP status, lower-case."""

_WORDS: Final[Mapping[str, ErrorClass]] = {**WITH_REFUSAL, **ERRORS}

_INTERNAL: Final = frozenset(
    # [I] Failures of gateways, or of the service behind them.
    {
        "internal_error", "internal_server_error", "server_error", "service_unavailable", "upstream_error", "timeout",
        "do_request_failed", "get_channel_failed", "bad_response", "bad_response_body", "empty_response",
    }
)  # fmt: skip

_TRANSIENT: Final = _INTERNAL | {
    word for word, kind in _WORDS.items() if kind.retryable and word not in ("unknown", "canceled")
}

ADVICE: Final[Mapping[str, str]] = {
    MODEL_NOT_FOUND: (
        "The gateway has no channel for this model: the model's name is wrong, or its channel is switched off. "
        "Nothing was created or charged. Check the name against the gateway's list of models."
    ),
    "get_channel_failed": (
        "The gateway could not select a channel for this model. Nothing was created or charged; a later attempt may "
        "succeed."
    ),
    **dict.fromkeys(
        ("build_request_failed", "convert_request_failed"),
        "The gateway could not translate the request for the service behind it. Nothing was created or charged. Check "
        "the fields and their types.",
    ),
}
"""Advice by code that is more precise than that of the class."""

# Older new-api and one-api send no code for this, only a message.
_NO_CHANNEL: Final = re.compile(r"no available channel|无可用渠道|无可用通道", re.IGNORECASE)
_WORD: Final = re.compile(r"[\w.:-]{1,100}")
_SUCCESS_CODES: Final = frozenset({"success", "ok", "succeed", "succeeded"})
_LAYERS: Final = 4
_PROXY_WANTS_PASSWORD: Final = 407
_MAX_REASON_CHARS: Final = 500
# new-api sends its request id in a header, too.
_TRACE_HEADERS: Final = ("x-oneapi-request-id", "x-trace-id", "x-request-id")
_WORD_FIELDS: Final = ("reason", "err_code", "error_code", "code", "type")


@dataclass(frozen=True, slots=True)
class ErrorText:
    """The contents of an error body, as far as present.

    :param code: the service's code; of several, the one that decides the class.
    :param words: every code, the innermost (of the service behind a gateway) first.
    :param message: the text that explains it.
    :param status: an HTTP status inside the body, used if the real one is a success.
    """

    code: str | None = None
    words: tuple[str, ...] = ()
    message: str | None = None
    trace_id: str | None = None
    status: int | None = None


def error_text(payload: Mapping[str, Any], redact: Callable[[str], str] = str) -> ErrorText:
    """Return the contents of an error body in any of the known shapes.

    :param redact: removes secrets from text that is decoded from JSON inside a string.
    """
    layers = list(_layers(payload, redact))[::-1]
    message = reason(payload, redact)
    words = tuple(word for layer in layers for word in _words(layer))
    numbers = [code for layer in layers if (code := _number(layer)) is not None]
    if message and _NO_CHANNEL.search(message) and not any(word.lower() in _WORDS for word in words):
        words = (*words, MODEL_NOT_FOUND)
    known = next((word for word in words if word.lower() in _WORDS), None)
    other = next((str(code) for code in numbers if not 100 <= code < 600), None)
    return ErrorText(
        code=known or next(iter(words), None) or other,
        words=words,
        message=message,
        trace_id=next(filter(None, map(trace_id, layers)), None),
        status=next((code for code in numbers if 400 <= code < 600), None),
    )


def _layers(payload: Mapping[str, Any], redact: Callable[[str], str], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of an error body, outermost first."""
    yield payload
    if depth >= _LAYERS:
        return
    for name in ("message", "error", "detail", "fail_reason", "data"):
        value = payload.get(name)
        inner = value if isinstance(value, Mapping) else embedded(value, redact)
        if isinstance(value, list):
            inner = next(objects(value), None)
        if isinstance(inner, Mapping):
            yield from _layers(inner, redact, depth + 1)


def _words(layer: Mapping[str, Any]) -> Iterator[str]:
    for name in _WORD_FIELDS:
        value = layer.get(name)
        if isinstance(value, str) and _WORD.fullmatch(value) and not value.isdigit():
            yield value


def _number(layer: Mapping[str, Any]) -> int | None:
    code = text(layer.get("code")) or ""
    return int(code) if code.isascii() and code.isdigit() and len(code) < 10 else None


def error_class(status: int, reported: ErrorText, *, of_create: bool = True) -> ErrorClass:
    """Return the class of an error answer.

    :param of_create: false for an answer to a query: a gateway without a channel is then a failure of the gateway.
    """
    is_success = 200 <= status < 300
    actual = (reported.status or status) if is_success else status
    for word in map(str.lower, reported.words):
        if word in WITH_REFUSAL and (not of_create or 400 <= actual < 500):
            return WITH_REFUSAL[word]
        if not of_create and status >= 500 and BEFORE_SENDING.get(word) in _ONLY_OF_CREATES:
            continue
        if word in ERRORS:
            return ERRORS[word]
    if is_success:
        # Only the body reports the error, without a known code: the outcome of a create is unknown.
        status = reported.status or 500
    return BY_STATUS.get(status, exceptions.ViduServerError if status >= 500 else exceptions.ViduRequestError)


_ONLY_OF_CREATES: Final = frozenset({exceptions.ViduRequestError, exceptions.ViduUnavailableError})


def error_of(answer: ApiAnswer, key_hint: str = "", *, of_create: bool = True) -> ViduAPIError | ViduResponseError:
    """Return the error that an error answer means.

    :param answer: an answer that reports an error in its status or its body.
    :param key_hint: further advice on a refused key.
    :param of_create: false for the answer to a query, see :func:`error_class`.
    """
    payload = answer.json_or_none()
    reported = _reported(answer, payload)
    facts: dict[str, Any] = {
        "status_code": answer.status,
        "code": reported.code,
        "trace_id": reported.trace_id or next(filter(None, map(answer.headers.get, _TRACE_HEADERS)), None),
        "retry_after": retry_after(answer.headers),
    }
    if (other := _of_another(answer, is_json=payload is not None)) is not None:
        return ViduResponseError(other, **facts)
    detail = reported.message or answer.snippet()
    if answer.ok and reported.status is None and not is_known(reported.words, of_create=of_create):
        # The body reports an error that the table does not list: whether a create was carried out is unknown.
        return ViduResponseError(f"The service answered with success, but reports an error: {detail}", **facts)
    kind = error_class(answer.status, reported, of_create=of_create)
    advice = ADVICE.get((reported.code or "").lower(), kind.advice) if of_create else kind.advice
    if kind is exceptions.ViduAuthError and key_hint:
        advice = f"{advice} {key_hint}"
    if not detail:
        return kind(f"{advice} It gave no reason.", **facts)
    # The cause comes first, bounded so that the advice is never cut off.
    return kind(f"The service said: {sentence(redacted(detail, _MAX_REASON_CHARS))} {advice}", **facts)


def said_by(answer: ApiAnswer) -> str:
    """Return what an error answer says, as a clause: without the advice of its error, which is on a create."""
    detail = _reported(answer, answer.json_or_none()).message or answer.snippet()
    return redacted(detail, _MAX_REASON_CHARS).rstrip(".") if detail else "it gave no reason"


def _reported(answer: ApiAnswer, payload: Any) -> ErrorText:
    first = next(objects(payload), None) if isinstance(payload, list) else payload
    return error_text(first, answer.redact) if isinstance(first, Mapping) else ErrorText()


def _of_another(answer: ApiAnswer, *, is_json: bool) -> str | None:
    """Return the message of an answer that comes from something in front of the service; None if it does not."""
    if 300 <= answer.status < 400:
        return (
            f"The service redirects to {redacted(answer.headers.get('location', 'nowhere'))}. The API key is not sent "
            "to a redirect's target: set the connection's host to the final address."
        )
    if answer.status == _PROXY_WANTS_PASSWORD:
        return (
            "The proxy requires a user and a password: set the connection's proxy (http://user@…) and proxy_password."
        )
    if answer.status in (403, 404) and not is_json and answer.body.strip():
        # A firewall refuses in HTML, and an ingress without its service says "404" in plain text while the gateway is
        # redeployed; a refused key and an unknown generation are reported as JSON.
        return f"A proxy or firewall in front of the service answered: {answer.snippet()}. {IF_IT_LASTS}"
    return None


def is_error(payload: Mapping[str, Any]) -> bool:
    """Whether a body without a generation is an error, whatever its HTTP status.

    ``{"code": "video_queue_full", "message": …, "data": null}`` comes with HTTP 200, too.
    """
    data, error, code = payload.get("data"), payload.get("error"), payload.get("code")
    refused = not is_success_code(code)
    if _has_content(data) and not (refused and isinstance(data, str)):
        return False
    if refuses(payload) or (error and isinstance(error, (str, Mapping))):
        return True
    if refused or (code is None and isinstance(payload.get("reason"), str) and "message" in payload):
        return True
    return isinstance(payload.get("err_code"), str) and payload["err_code"].lower() in ERRORS


def refuses(payload: Mapping[str, Any]) -> bool:
    """Whether a body is an explicit refusal: ``{"success": false, "message": …}``."""
    return any(payload.get(name) is False or payload.get(name) == "false" for name in ("success", "ok"))


def is_success_code(code: Any) -> bool:
    """Whether a code means success or is empty; 0, 1 and 200 to 299 are common, too."""
    word = (text(code) or "").strip().lower()
    if word.isascii() and word.isdigit() and len(word) < 10:
        return int(word) < 2 or 200 <= int(word) < 300
    return not word or word in _SUCCESS_CODES


def _has_content(data: Any) -> bool:
    empty: tuple[Any, ...] = (None, "", [], {})
    return bool(data) and (not isinstance(data, Mapping) or any(value not in empty for value in data.values()))


def is_known(words: Iterable[str], *, of_create: bool = True) -> bool:
    """Whether one of the codes is known.

    :param of_create: whether only codes that count with any status are.
    """
    return any(word.lower() in (ERRORS if of_create else _WORDS) for word in words)


def is_transient(code: str | None) -> bool:
    """Whether a generation that failed with this code may succeed if submitted again.

    For the dialects only; everything else uses :attr:`Generation.is_transient`.
    """
    return code is not None and code.strip().lower() in _TRANSIENT


def failure_advice(generation: Generation) -> str:
    """Return the advice on a failed generation of any dialect."""
    if generation.is_transient:
        return exceptions.ViduGenerationInterruptedError.advice
    kind = None if generation.was_cancelled else _WORDS.get((generation.error_code or "").strip().lower())
    if kind is None or kind is exceptions.ViduAuthError:  # the refused key is the gateway's own
        return exceptions.ViduGenerationFailedError.advice
    return f"{kind.advice} Clearing the task submits a new generation."
