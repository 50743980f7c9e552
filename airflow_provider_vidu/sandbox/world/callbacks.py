"""The callbacks that are owed for generations with a ``callback_url``; no I/O.

[doc] A POST on ``processing``, ``success`` and ``failed``; the last two up to three times while the delivery fails. The
example holds ``state`` (the text says ``status``) and no id. [?] The time between the attempts, the timeout, and what a
cancel sends: here a second, five seconds, and nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import urlsplit

from airflow_provider_vidu.sandbox.world.generations import Generation, State

Json = dict[str, Any]

MAX_ATTEMPTS: Final = 3
ACTIONS: Final = (
    *("lost", "late", "doubled", "replayed", "wrong-key", "unsigned", "old-date", "wrong-path"),
    *("not-json", "huge", "lying", "with-id", "unknown-word"),
)
"""The faults: never sent, sent later, twice, twice with one nonce, signed otherwise or not at all, with an odd body, or
``lying``: ``success`` where ``processing`` is true."""
_RUNNING: Final = "processing"


@dataclass
class CallbackFault:
    """What happens to callbacks of a kind.

    :param action: one of :data:`ACTIONS`.
    :param word: only callbacks with this state; None for all.
    :param id: only callbacks of this generation; None for all.
    :param times: how many callbacks are hit; None for all.
    :param seconds: how much later a ``late`` one is sent, in real seconds.
    """

    action: str
    word: str | None = None
    id: str | None = None
    times: int | None = 1
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"action must be one of {', '.join(ACTIONS)}, not {self.action!r}")

    def hits(self, generation_id: str, word: str) -> bool:
        """Whether this fault applies to a callback."""
        is_left = self.times is None or self.times > 0
        return is_left and self.word in (None, word) and self.id in (None, generation_id)


@dataclass
class CallbackRecord:
    """One attempt to deliver a callback; ``status`` 0 means that there was no answer."""

    id: str
    url: str
    word: str
    attempt: int
    status: int = 0
    wall_time: float = 0.0
    fault: str | None = None

    def to_json(self) -> Json:
        """Return it as JSON."""
        return asdict(self)


@dataclass
class _Expected:
    generation: Generation
    url: str
    key: str
    sent: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Due:
    """A callback that is to be sent now."""

    generation: Generation
    state: State
    url: str
    key: str
    word: str
    fault: CallbackFault | None = None

    @property
    def attempts(self) -> int:
        """How often it is tried."""
        return 1 if self.word == _RUNNING else MAX_ATTEMPTS


class Callbacks:
    """The callbacks that are owed, the faults, and what was sent; not thread-safe by itself."""

    def __init__(self) -> None:
        self.faults: list[CallbackFault] = []
        self.records: list[CallbackRecord] = []
        self._expected: dict[str, _Expected] = {}

    def expect(self, generation: Generation, url: str, key: str) -> None:
        """Send callbacks for a generation from now on, signed with the key of its create."""
        self._expected[generation.id] = _Expected(generation, url, key)

    def due(self, now: float) -> list[Due]:
        """Return the callbacks that are due at sandbox time ``now``; each is returned once."""
        found = []
        for expected in list(self._expected.values()):
            generation = expected.generation
            state = generation.state_at(now)
            if state is None:
                continue
            if generation.cancelled_at is not None:
                del self._expected[generation.id]
                continue
            word = "success" if state.succeeded else "failed" if state.failed else state.word
            if word in expected.sent or word not in (_RUNNING, "success", "failed"):
                continue
            expected.sent.add(word)
            if word != _RUNNING:
                del self._expected[generation.id]
            found.append(Due(generation, state, expected.url, expected.key, word, self._fault(generation.id, word)))
        return found

    def _fault(self, generation_id: str, word: str) -> CallbackFault | None:
        fault = next((fault for fault in self.faults if fault.hits(generation_id, word)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
        return fault


def signed_headers(key: str, url: str, now: float) -> dict[str, str]:
    """Return the headers of a callback to ``url``, signed at ``now`` (epoch seconds)."""
    parts, date, nonce = urlsplit(url), formatdate(now, usegmt=True), str(uuid.uuid4())
    text = f"POST\n{parts.path}\n{parts.query}\nvidu\n{date}\nDate:{date}\nx-request-nonce:{nonce}\n"
    signature = hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()
    return {
        "Date": date,
        "x-request-nonce": nonce,
        "X-HMAC-SIGNED-HEADERS": "Date;x-request-nonce",
        "X-HMAC-SIGNATURE": base64.b64encode(signature).decode("ascii"),
        "X-HMAC-ALGORITHM": "hmac-sha256",
        "X-HMAC-ACCESS-KEY": "vidu",
        "Content-Type": "application/json",
    }


def headers_of(due: Due, now: float) -> dict[str, str]:
    """Return the headers of a callback, with its fault."""
    action = due.fault.action if due.fault is not None else ""
    key = "another-key" if action == "wrong-key" else due.key
    url = due.url + "-elsewhere" if action == "wrong-path" else due.url
    headers = signed_headers(key, url, now - 86_400 if action == "old-date" else now)
    return {"Content-Type": "application/json"} if action == "unsigned" else headers


def body_of(due: Due, queried: Mapping[str, Any], state_field: str) -> Json | str:
    """Return the body of a callback, with its fault: that of a query's answer, without the id."""
    action = due.fault.action if due.fault is not None else ""
    word = {"lying": "success", "unknown-word": "marinating"}.get(action, due.word)
    body = {state_field if name == "state" else name: value for name, value in queried.items() if name != "id"}
    body[state_field] = word
    if action == "with-id":
        return {"id": due.generation.id, **body}
    if action == "huge":
        return {"payload": "x" * 3_000_000, **body}
    return "<html>not JSON" if action == "not-json" else body
