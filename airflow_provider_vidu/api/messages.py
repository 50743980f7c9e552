"""Requests and answers as values: what the dialects speak and what the shells carry."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from airflow_provider_vidu.common.parsing import Document, TooManyValuesError, documents, parse
from airflow_provider_vidu.common.redaction import unescaped
from airflow_provider_vidu.common.text import redacted, sanitized, without_data_uris
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduResponseError, ViduTransportError
from airflow_provider_vidu.network.bodies import CREATE, LIST, SINGLE, BodyError, Bounds, has_long_run
from airflow_provider_vidu.network.framing import SWITCHING_PROTOCOLS
from airflow_provider_vidu.network.limits import TOTAL_TIMEOUTS

IF_IT_LASTS: Final = "If this lasts, check the connection's host and whatever stands before it."
"""What to do about an answer that is not Vidu's."""

TOO_LARGE: Final = "answer_too_large"
"""The code of the error of an answer that is larger than what is read."""

LARGE_BYTES: Final = 16 * 1024
"""A larger answer is parsed off the event loop."""

_QUOTED_BYTES: Final = 16_000
_BARE_MEDIA_BYTES: Final = 4096
"""Fewer characters are media only in a data URI."""


_SENDABLE: Final = re.compile(r"/[!-\"$-\[\]-~]*")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9_.~-]+")
"""What is in a URL as it is."""
_DOT_SEGMENT: Final = re.compile(r"/(?:\.|%2[eE]){1,2}(?:/|$)")


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request to the service: ``path`` is percent-encoded already and starts with a slash.

    ``bills`` marks a request that must never be repeated when its outcome is unknown, ``lists`` one whose answer
    speaks of many things.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    bills: bool = False
    lists: bool = False

    def __post_init__(self) -> None:
        """Refuse a path or a body that cannot be sent.

        Left to the HTTP client, it would look like a create that broke on its way, of unknown outcome. An ``endpoint``
        may come from a template: with dot segments it would leave the connection's path prefix.

        :raises ViduConfigError: when the path holds dot segments or what no URL can, or when JSON cannot hold a value
            (bytes, NaN, an object).
        """
        if not _SENDABLE.fullmatch(self.path) or _DOT_SEGMENT.search(self.path.partition("?")[0]):
            raise ViduConfigError(
                "The path of a request must start with a slash and be percent-encoded ASCII without '..' segments, "
                f"not {redacted(self.path, 100)!r}. Check endpoint."
            )
        if self.body is None:
            return
        try:
            json.dumps(dict(self.body), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ViduConfigError(f"The request body is not JSON serializable: {error}") from None

    @property
    def bounds(self) -> Bounds:
        """How much of its answer is read."""
        return CREATE if self.bills else LIST if self.lists else SINGLE


METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PATH: Final = re.compile(r"/(?!/)[!$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]*")


def checked_request(method: object, path: object, body: object, *, bills: bool | None = None) -> ApiRequest:
    """Return a request that a user has put together.

    :param method: one of ``METHODS``, in any case.
    :param path: starts with a slash and is percent-encoded; it may have a query.
    :param body: a JSON object, or None.
    :param bills: whether it may cost credits; None means that a POST does.
    :raises ViduConfigError: naming the argument that cannot be sent.
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
    """Return a path template from the connection after checking it.

    The template of a query may end in a query string, and that may hold the id: ``/v1/video/query?id={id}``.

    :raises ViduConfigError: when it does not start with a slash, lacks a placeholder or has another.
    """
    found = set(re.findall(r"\{([^{}]*)\}", template))
    named = {"id" if name in ("task_id", "generation_id") else name for name in found}
    of_a_query = "id" in required
    allowed = {"id"} if of_a_query else {"endpoint"}
    bare = re.sub(r"\{[^{}]*\}", "", template)
    if not template.startswith("/") or not template.isascii() or re.search(r"[\s#\x00-\x1f\x7f]", bare):
        raise ViduConfigError(f"{field} must be a path such as /v2/tasks/{{id}}, without spaces or a fragment.")
    if bare.count("?") > (1 if of_a_query else 0):
        only = "may have one query string" if of_a_query else "must have no query string"
        raise ViduConfigError(f"{field} {only}: {sanitized(template, 80)!r}.")
    if "{" in bare or "}" in bare:
        raise ViduConfigError(f"{field} holds a brace that belongs to no placeholder.")
    if missing := set(required) - named:
        raise ViduConfigError(f"{field} lacks the placeholder {{{missing.pop()}}}.")
    if extra := named - allowed:
        raise ViduConfigError(f"{field} holds an unknown placeholder {{{sanitized(extra.pop(), 40)}}}.")
    return template


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """An answer: status, headers with lower-case names, and the body's bytes (never in ``repr``).

    ``redact`` takes secrets out of every text that is read from the body: some gateways quote the key
    in their refusal. ``most_values`` bounds what is parsed. ``lost`` is the error that ended the body too early. The
    answer to a request that bills comes so, for an id that has arrived counts, and one whose status says enough.
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
        """Whether reading it takes long enough to hold up an event loop."""
        return len(self.body) > LARGE_BYTES

    @property
    def may_hold_media(self) -> bool:
        """Whether it may hold inline media: a search of the bytes is much cheaper than a walk through the values."""
        body = self.body
        return b"ase64," in body or b"ASE64," in body or has_long_run(body, _BARE_MEDIA_BYTES)

    def json(self) -> Any:
        """Return the body as JSON that every store can hold.

        :raises ViduResponseError: when it is not JSON, the message shows its beginning; or when it holds more values
            than are read.
        :raises ViduError: when the body ended too early.
        """
        if self.lost is not None:
            raise self.lost
        try:
            return parse(self.body, self.redact, self.most_values)
        except TooManyValuesError:
            reason, code = f"holds more than {self.most_values:,} values", TOO_LARGE
        except (ValueError, RecursionError):
            reason, code = f"is not JSON{self._kind()}", None
        raise ViduResponseError(
            f"The answer {reason}. It begins: {self.snippet() or '(empty)'}. {IF_IT_LASTS}",
            status_code=self.status,
            code=code,
        )

    def json_or_none(self) -> Any:
        """Return the body as JSON, or None when it is none (error pages come as HTML)."""
        try:
            return self.json()
        except ViduError:
            return None

    def documents(self, wanted: Collection[str] = ()) -> list[Document]:
        """Return every object and list in the body, also with other text around them; see :func:`parsing.documents`.

        :param wanted: names that count most.
        """
        return documents(self.body, self.redact, wanted)

    def snippet(self) -> str:
        """Return the first 200 characters of the body as one redacted line."""
        # Secrets are struck before anything is cut out: one that the end of the window halves must not come into view.
        text = self.redact(unescaped(self.body[:_QUOTED_BYTES].decode("utf-8", "replace")))
        return redacted(without_data_uris(text[: _QUOTED_BYTES // 4]))

    def _kind(self) -> str:
        kind = self.headers.get("content-type", "").partition(";")[0].strip()
        return f" but {redacted(kind, 60)}" if kind and "json" not in kind else ""


def unreadable(error: BodyError, status: int | None, conn_id: str | None = None) -> ViduResponseError:
    """Return the error of an answer whose body cannot be read."""
    return ViduResponseError(
        f"{error} {IF_IT_LASTS}", status_code=status, code=TOO_LARGE if error.is_too_large else None, conn_id=conn_id
    )


def outlives_its_body(status: int) -> bool:
    """Whether a status counts although its body cannot be unpacked: a refused key is one, and "too many" is to wait.

    Not 403 and 404: a firewall and an ingress use them, too, and the body tells which it is.
    """
    return status >= 300 and status not in (403, 404)


def unasked_switch(conn_id: str | None = None) -> ViduResponseError:
    """Return the error of an answer with status 101, which says nothing of the request: of a create, no refusal."""
    return ViduResponseError(
        "The service answered 101 Switching Protocols, which was not requested; a proxy that is set up for WebSockets "
        f"does so. {IF_IT_LASTS}",
        status_code=SWITCHING_PROTOCOLS,
        conn_id=conn_id,
    )


PLAIN_HTTP: Final = "If the service speaks plain HTTP, write http:// before the connection's host."


class TransportFailure(enum.Enum):
    """How an exchange can end without an answer, and what the user may do about it."""

    UNTRUSTED = (
        "could not be made, for the server's certificate is not trusted",
        "Check the host, or set the connection's verify to the CA bundle that has signed it.",
    )
    NO_TLS = (
        "could not be made, for the TLS handshake failed",
        f"Check the host and its port. {PLAIN_HTTP}",
    )
    UNMADE = ("could not be made", "Check the connection's host, port and proxy.")
    UNREACHED = ("could not be made in time", "Check the connection's host, port, proxy and timeout.")
    BROKEN = ("broke", "It may pass; if it lasts, check the gateway and the proxies before it.")
    SILENT = ("was silent for too long", "It may pass; if it lasts, raise the connection's timeout.")
    SLOW = ("brought no whole answer in time", "It may pass; if it lasts, raise the connection's timeout.")

    @property
    def sent(self) -> bool:
        """Whether the request may have reached the service."""
        return self not in (
            TransportFailure.UNTRUSTED,
            TransportFailure.NO_TLS,
            TransportFailure.UNMADE,
            TransportFailure.UNREACHED,
        )


def no_answer(
    loss: TransportFailure, reason: str, *, origin: tuple[str, str, int], timeout: float, conn_id: str
) -> ViduTransportError:
    """Return the error of an exchange that brought no answer, in the same words for both clients.

    :param loss: how it ended.
    :param reason: what the HTTP client said, without secrets.
    :param origin: scheme, host and port that were asked.
    :param timeout: the connection's timeout in seconds.
    :param conn_id: the connection.
    """
    what, advice = loss.value
    limits = {
        TransportFailure.UNREACHED: timeout,
        TransportFailure.SILENT: timeout,
        TransportFailure.SLOW: TOTAL_TIMEOUTS * timeout,
    }
    limit = f" ({limits[loss]:g} s)" if loss in limits else ""
    scheme, host, port = origin
    if loss is TransportFailure.UNREACHED and scheme == "https" and port != 443:
        # Some servers of plain HTTP wait for the end of the line that they take a TLS handshake for.
        advice += f" {PLAIN_HTTP}"
    host = f"[{host}]" if ":" in host else host
    return ViduTransportError(
        f"The connection to {scheme}://{host}:{port} {what}{limit}: {redacted(reason).rstrip('.')}. {advice}",
        conn_id=conn_id,
        sent=loss.sent,
    )
