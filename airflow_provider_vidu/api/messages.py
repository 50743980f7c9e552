"""API requests and answers as values: made and read by the dialects, sent and received by the clients."""

from __future__ import annotations

import base64
import enum
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote

from airflow_provider_vidu.common.parsing import Document, TooManyValuesError, bounded_texts, documents, parse
from airflow_provider_vidu.common.redaction import unescaped
from airflow_provider_vidu.common.text import before_cut, redacted, sanitized, without_data_uris
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduResponseError
from airflow_provider_vidu.network.bodies import CREATE, LIST, SINGLE, BodyError, Bounds, has_long_run
from airflow_provider_vidu.network.framing import SWITCHING_PROTOCOLS

IF_IT_LASTS: Final = "If this persists, check the connection's host and the proxies in front of it."
"""The advice on an answer that is not Vidu's."""

TOO_LARGE: Final = "answer_too_large"
"""The error code of an answer that exceeds a limit."""

LARGE_BYTES: Final = 16 * 1024
"""A larger answer is parsed off the event loop."""

_QUOTED_BYTES: Final = 16_000
_BARE_MEDIA_BYTES: Final = 4096
"""Shorter text is media only in a data URI."""
_SENDABLE: Final = re.compile(r"/[!-\"$-\[\]-~]*")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9_.~-]+")
_DOT_SEGMENT: Final = re.compile(r"/(?:\.|%2[eE]){1,2}(?:/|$)")


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request to the service.

    :param path: starts with a slash and is percent-encoded already.
    :param bills: whether it may cost credits; it is then never repeated after an unknown outcome.
    :param lists: whether its answer may have many entries.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    bills: bool = False
    lists: bool = False

    def __post_init__(self) -> None:
        """Refuse a path or a body that cannot be sent: the HTTP client's error would leave the outcome unknown.

        An ``endpoint`` may come from a template: with dot segments it would leave the connection's path prefix.

        :raises ViduConfigError: for dot segments or characters that a URL cannot have in the path, and for a body that
            is not JSON serializable.
        """
        if not _SENDABLE.fullmatch(self.path) or _DOT_SEGMENT.search(self.path.partition("?")[0]):
            raise ViduConfigError(
                "The path of a request must start with a slash and be percent-encoded ASCII without '..' segments, "
                f"not {redacted(self.path, 100)!r}. Check endpoint."
            )
        if self.body is None:  # as of every poll
            return
        try:
            json.dumps(dict(self.body), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ViduConfigError(f"The request body is not JSON serializable: {error}") from None

    @property
    def bounds(self) -> Bounds:
        """The limits on its answer."""
        return CREATE if self.bills else LIST if self.lists else SINGLE


METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PATH: Final = re.compile(r"/(?!/)[!$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]*")


def checked_request(method: object, path: object, body: object, *, bills: bool | None = None) -> ApiRequest:
    """Return a request from the arguments of :meth:`.ViduHook.request`.

    :raises ViduConfigError: naming the invalid argument.
    """
    name = method.strip().upper() if isinstance(method, str) else ""
    if name not in METHODS:
        raise ViduConfigError(f"method must be one of {', '.join(METHODS)}, not {redacted(method, 40)!r}.")
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ViduConfigError(
            "path must start with one slash and be percent-encoded ASCII without a fragment, such as "
            f"/ent/v2/subjects?pager.page=1 (got {redacted(path, 100)!r}). The host comes from the connection."
        )
    if body is not None and not isinstance(body, Mapping):
        raise ViduConfigError(f"json must be a JSON object, not {type(body).__name__}.")
    return ApiRequest(name, path, body, bills=name == "POST" if bills is None else bills, lists=True)


def fill(template: str, **values: str) -> str:
    """Put percent-encoded values into a path template; ``{task_id}`` and ``{generation_id}`` mean ``{id}``.

    ``str.format`` is not used, because a template is user input and could reach into objects.
    """
    for name, value in values.items():
        encoded = value if _UNRESERVED.fullmatch(value) else quote(value, safe="")
        for alias in (name, "task_id", "generation_id") if name == "id" else (name,):
            template = template.replace("{" + alias + "}", encoded)
    return template


def check_template(field: str, template: str, *, required: Iterable[str] = ()) -> str:
    """Return a path template of a connection after checking it.

    Only the template of a query may have a query string, which may contain the id: ``/v1/video/query?id={id}``.

    :raises ViduConfigError: when it does not start with a slash, lacks a placeholder or has another.
    """
    placeholders = set(re.findall(r"\{([^{}]*)\}", template))
    named = {"id" if name in ("task_id", "generation_id") else name for name in placeholders}
    of_a_query = "id" in required
    bare = re.sub(r"\{[^{}]*\}", "", template)
    if not template.startswith("/") or not template.isascii() or re.search(r"[\s#\x00-\x1f\x7f]", bare):
        raise ViduConfigError(f"{field} must be a path such as /v2/tasks/{{id}}, without spaces or a fragment.")
    if bare.count("?") > (1 if of_a_query else 0):
        only = "may have one query string" if of_a_query else "must have no query string"
        raise ViduConfigError(f"{field} {only}: {sanitized(template, 80)!r}.")
    if "{" in bare or "}" in bare:
        raise ViduConfigError(f"{field} contains a brace that is not part of a placeholder.")
    if missing := set(required) - named:
        raise ViduConfigError(f"{field} lacks the placeholder {{{missing.pop()}}}.")
    if extra := named - {"id" if of_a_query else "endpoint"}:
        raise ViduConfigError(f"{field} contains an unknown placeholder {{{sanitized(extra.pop(), 40)}}}.")
    return template


class RedactedHeaders(Mapping[str, str]):
    """Headers whose values are redacted when they are read: nearly every poll reads none.

    :param fields: the values by lower-case name.
    """

    __slots__ = ("_fields", "_redact")

    def __init__(self, fields: Mapping[str, str], redact: Callable[[str], str]) -> None:
        self._fields = fields
        self._redact = redact

    def __getitem__(self, name: str) -> str:
        return self._redact(self._fields[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return repr(dict(self))


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """An answer of the service.

    :param headers: with lower-case names.
    :param redact: removes secrets from every text that is read from the body.
    :param most_values: how many values are parsed at most.
    :param lost: the error that ended the body too early. Such an answer is kept if its request bills, because an id
        that has arrived counts, or if its status is enough.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    redact: Callable[[str], str] = field(default=str, repr=False, compare=False)
    most_values: int = field(default=SINGLE.values, repr=False, compare=False)
    lost: ViduError | None = field(default=None, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300

    @property
    def is_large(self) -> bool:
        """Whether parsing it would block an event loop noticeably."""
        return len(self.body) > LARGE_BYTES

    @property
    def may_hold_media(self) -> bool:
        """Whether it may hold inline media: searching the bytes is much cheaper than walking through the values."""
        body = self.body
        return b"ase64," in body or b"ASE64," in body or has_long_run(body, _BARE_MEDIA_BYTES)

    def json(self, *, is_whole: bool = False) -> Any:
        """Return the body as JSON that every store can hold.

        :param is_whole: whether texts that hold thousands of objects stay; no text in it may be parsed then.
        :raises ViduResponseError: when it is not JSON or holds too many values; the message quotes its beginning.
        :raises ViduError: when the body ended too early.
        """
        if self.lost is not None:
            raise self.lost
        try:
            value = parse(self.body, self.redact, self.most_values)
            return value if is_whole else bounded_texts(value, self.body, self.most_values)
        except TooManyValuesError:
            reason, code = f"holds more than {self.most_values:,} values", TOO_LARGE
        except (ValueError, RecursionError):
            kind = self.headers.get("content-type", "").partition(";")[0].strip()
            shown = f" but {redacted(kind, 60)}" if kind and "json" not in kind else ""
            reason, code = f"is not JSON{shown}", None
        raise ViduResponseError(
            f"The answer {reason}. It begins: {self.snippet() or '(empty)'}. {IF_IT_LASTS}",
            status_code=self.status,
            code=code,
        )

    def json_or_none(self, *, is_whole: bool = False) -> Any:
        """Return the body as JSON as :meth:`json` does, or None if it is not JSON (error pages are HTML)."""
        try:
            return self.json(is_whole=is_whole)
        except ViduError:
            return None

    def documents(self, wanted: Collection[str] = ()) -> list[Document]:
        """Return every object and list in the body, even inside other text; see :func:`parsing.documents`.

        :param wanted: the field names that count most.
        """
        return documents(self.body, self.redact, wanted)

    def snippet(self) -> str:
        """Return the first 200 characters of the body as one redacted line."""
        # Redacted before it is cut: a secret that the end of the window halves must not show.
        text = self.redact(unescaped(self.body[:_QUOTED_BYTES].decode("utf-8", "replace")))
        text = before_cut(text) if len(self.body) > _QUOTED_BYTES else text
        return redacted(without_data_uris(text[: _QUOTED_BYTES // 4]))


_OF_A_FUNCTION: Final = frozenset(
    {"statusCode", "statusDescription", "headers", "multiValueHeaders", "cookies", "body", "isBase64Encoded"}
)


def unwrapped(answer: ApiAnswer) -> ApiAnswer:
    """Return the answer of a function behind a gateway that passes on its envelope, or encodes the answer once more.

    Any other answer is returned unchanged. The envelope is
    ``{"statusCode": 200, "headers": …, "body": "…", "isBase64Encoded": false}``
    (docs.aws.amazon.com/apigateway, "Output format of a Lambda function for proxy integration").
    """
    if answer.body.lstrip()[:2] in (b'"{', b'"['):
        text = answer.json_or_none(is_whole=True)
        answer = replace(answer, body=text.encode()) if isinstance(text, str) else answer
    if b'"statusCode"' not in answer.body:
        return answer
    envelope = answer.json_or_none(is_whole=True)
    if not isinstance(envelope, dict) or not {"statusCode", "body"} <= envelope.keys() <= _OF_A_FUNCTION:
        return answer
    status, body = envelope["statusCode"], envelope["body"]
    if not isinstance(body, str):
        body = json.dumps(body)
    try:
        content = base64.b64decode(body) if envelope.get("isBase64Encoded") is True else body.encode()
        code = int(status)
    except (TypeError, ValueError):
        return answer
    return replace(answer, status=code, body=content) if 100 <= code < 600 else answer


def unreadable(error: BodyError, status: int) -> ViduResponseError:
    """Return the error for an unreadable body."""
    code = TOO_LARGE if error.is_too_large else None
    return ViduResponseError(f"{error} {IF_IT_LASTS}", status_code=status, code=code)


def outlives_its_body(status: int) -> bool:
    """Whether a status counts although its body cannot be unpacked, such as 401 and 429.

    403 and 404 do not: firewalls and ingresses use them, too, and only the body distinguishes them.
    """
    return status >= 300 and status not in (403, 404)


def unasked_switch() -> ViduResponseError:
    """Return the error of an answer with status 101, which leaves the outcome of the request open."""
    return ViduResponseError(
        "The service answered 101 Switching Protocols, which was not requested; a proxy configured for WebSockets does "
        f"that. {IF_IT_LASTS}",
        status_code=SWITCHING_PROTOCOLS,
    )


PLAIN_HTTP: Final = "If the service speaks plain HTTP, write http:// before the connection's host."


class TransportFailure(enum.Enum):
    """How an exchange can fail without an answer: the message, the advice, and whether the request may have arrived."""

    UNTRUSTED = (
        "failed because the server's certificate is not trusted",
        "Check the host, or set the connection's verify to the CA bundle that signed it.",
        False,
    )
    NO_TLS = "failed in the TLS handshake", f"Check the host and its port. {PLAIN_HTTP}", False
    NO_CERTIFICATE = (
        "failed because the server requires a client certificate",
        "This provider has none: use an address of the service that takes the API key alone.",
        False,
    )
    UNMADE = "failed", "Check the connection's host, port and proxy.", False
    UNREACHED = "timed out", "Check the connection's host, port, proxy and timeout.", False
    BROKEN = "broke", "If this persists, check the gateway and the proxies in front of it.", True
    SILENT = "was silent for too long", "If this persists, raise the connection's timeout.", True
    SLOW = "took too long to deliver the answer", "If this persists, raise the connection's timeout.", True

    @property
    def sent(self) -> bool:
        """Whether the request may have reached the service."""
        return self.value[2]
