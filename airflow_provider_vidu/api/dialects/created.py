"""Finds the generation's id in the answer to a create: a paid id is never lost. Pure.

Every level of an answer is read; the name and place of an id decide how credible it is:

1. *named* for the job: ``task_id``, ``generation_id``, ``job_id`` … in any spelling, on any level; or ``id`` beside the
   job's state on a level that is documented to hold the job (the answer itself, ``data``, ``output``, ``result`` …).
   The one nearest the top counts. If a level has both, the official API (``state``) means ``task_id``, gateways ``id``.
2. ``id`` without a state on such a level, or an id that is the level's only content (``{"data": "task_01…"}``).
3. a number: it may be the row of a gateway's database (``dto/task.go`` of new-api).
4. a text that is the level's only content and does not look like an id.
5. a guess: ``uuid``, ``video_id``, or an ``id`` in an undocumented place.
6. an ``id`` that is a small number, or that the same answer calls ``request_id`` or ``trace_id``.

The edit and compose steps of one-click products answer ``sub_task_id`` or ``compose_sub_task_id`` beside the id of
their film. Fields that echo the request, or describe an account, a channel or a file, are never read.

If two different ids are equally credible, none is used: a wrong one would be polled, cancelled and returned as the
user's. The outcome of the create is then unknown, and the error shows both.
"""

from __future__ import annotations

import enum
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from airflow_provider_vidu.api.dialects.errors import is_error, is_success_code
from airflow_provider_vidu.api.dialects.levels import RESULT_FIELDS, STATUSES, WRAPPERS, Level, as_object, state_word
from airflow_provider_vidu.api.messages import ApiAnswer
from airflow_provider_vidu.common.parsing import Document
from airflow_provider_vidu.common.url_parts import split_url
from airflow_provider_vidu.common.values import embedded, first_text, text, web_url
from airflow_provider_vidu.models import GenerationStatus

_NAMED: Final = (
    "taskid", "composesubtaskid", "subtaskid", "generationid", "jobid", "predictionid", "taskno", "jobno",
    "taskuuid", "jobuuid", "taskids", "generationids", "jobids",
)  # fmt: skip
"""Names of the job's id as :func:`_bare_name` returns them, the documented first."""
_GUESSED: Final = ("uuid", "videoid", "adoneclicktaskid")
"""``uuid`` may be the request's, ``video_id`` a file's; the film's own id is better than none."""
_REQUESTS: Final = frozenset({"requestid", "traceid", "reqid", "logid", "spanid", "correlationid", "xrequestid"})
_HOLDERS: Final = frozenset(
    {"data", "output", "result", "response", "task", "generation", "job", "video", "taskid", "jobid", "generationid"}
)
"""Fields that hold the job, as documented or recorded; an object instead of an id counts, too."""
_BARE_JOBS: Final = ("task", "generation", "job")
"""Often the kind of job (``"task": "text2video"``), so a text counts only if it looks like an id."""
ID_FIELDS: Final = frozenset(
    {
        "id", "Id", "ID", "_id", "task_id", "taskId", "taskID", "TaskId", "task-id", "sub_task_id",
        "compose_sub_task_id", "ad_one_click_task_id", "voice_id", "generation_id", "generationId", "job_id", "jobId",
        "JobId", "prediction_id", "predictionId", "video_id", "videoId", "uuid", "taskNo", "task_no",
    }
)  # fmt: skip
"""The known names of ids; read from a damaged answer with any number of other fields."""
_NOT_JOBS: Final = frozenset(
    {
        "creations", "images", "image", "subjects", "videos", "sounds", "audios", "files", "file", "assets", "asset",
        "media", "artifacts", "inputimages", "error", "errors", "warning", "warnings", "exception", "user", "users",
        "account", "owner", "creator", "author", "member", "customer", "client", "company", "organization",
        "organisation", "org", "team", "tenant", "workspace", "project", "app", "application", "device", "session",
        "key", "apikey", "token", "tokens", "credential", "credentials", "auth", "model", "models", "modelinfo",
        "engine", "provider", "vendor", "channel", "channels", "group", "region", "server", "host", "node", "worker",
        "cluster", "route", "queue", "pool", "service", "upstream", "metadata", "meta", "usage", "billing", "bill",
        "quota", "balance", "credit", "price", "pricing", "cost", "charge", "invoice", "payment", "transaction",
        "subscription", "plan", "package", "wallet", "coupon", "payload", "request", "requests", "requestbody",
        "originalrequest", "rawrequest", "req", "input", "inputs", "params", "parameters", "param", "args", "arguments",
        "options", "settings", "config", "configuration", "properties", "body", "headers", "query", "context", "extra",
        "extras", "userdata", "custom", "customdata", "echo", "source", "original", "callback", "callbacks", "webhook",
        "webhooks", "prompt", "style", "template", "voice", "story", "trace", "tracing", "span", "log", "logs", "debug",
        "links", "pagination", "pager", "parent", "event",
    }
)  # fmt: skip
"""Fields that echo the request or describe something else, as :func:`_bare_name` returns them."""
_ERRORS: Final = frozenset({"error", "errors", "detail", "details"})
_QUOTES: Final = frozenset({"message", "msg"})

_DEPTH: Final = 4
_MAX_LEVELS: Final = 2_000
_MAX_ENTRIES: Final = 20
_EXACT_BELOW: Final = 2**53
_ID_DIGITS: Final = 13
"""The service's own ids have 18 digits; the row of a database has fewer."""
_NO_SPACES: Final = re.compile(r"\S{1,1024}")
# For an answer of a single word: not "success".
_LIKE_AN_ID: Final = re.compile(r"(?=.*\d)[\w.:^~/-]{6,1024}")
# Matches task_01k…, UUIDs and ids of digits, but not "text2video" or "viduq3-pro".
_SURELY_AN_ID: Final = re.compile(
    r"(?!\d{4}-\d\d-\d\d)(?:(?:task|job|gen)[a-z]*[_:-](?=.*\d)|(?=(?:\D*\d){6}))[\w.:^~-]{6,1024}"
)
# What stands for "none yet": the zero values of Go and UUID, and what languages print for nothing.
_NO_ID: Final = re.compile(r"[-0]+|-\d+|<?(?:none|null|nil|undefined|nan)>?|n/a|false|true", re.IGNORECASE)
_OF_A_REQUEST: Final = re.compile(r"(?:req|request|trace|log)[_:.-]", re.IGNORECASE)
_MOST_WORD_BYTES: Final = 4096
_NO_LETTERS: Final = re.compile(r"[^0-9a-z]+")


class Rank(enum.IntEnum):
    """How credible an id is; the lowest is the most credible."""

    NAMED = 0
    OWN = 1
    NUMBER = 2
    BARE = 3
    GUESS = 4
    ROW = 5
    REQUEST = 6


class _Candidate(NamedTuple):
    rank: Rank
    depth: int
    id: str


class _Place(NamedTuple):
    """A level of an answer."""

    level: Level
    names: Mapping[str, Any]
    """Its fields, by :func:`_bare_name`."""
    depth: int
    is_known: bool
    """Whether it is documented to hold the job."""


def created_object(value: Any) -> dict[str, Any] | None:
    """Return a create's parsed answer as an object, or None if that is impossible.

    A list of one becomes its entry; a text or a number that looks like an id becomes ``{"id": …}``.
    """
    for _ in range(_DEPTH):
        if not isinstance(value, list) or len(value) != 1:
            break
        value = value[0]
    if isinstance(value, list) and value:
        value = {"data": value}
    if isinstance(value, str) and isinstance(inner := embedded(value), dict):
        return inner
    if isinstance(value, dict):
        return value
    word = text(value)
    return {"id": word} if word and _LIKE_AN_ID.fullmatch(word.strip()) else None


def created_ids(payload: Level, *, synchronous: bool = False) -> tuple[str, ...]:
    """Return the id in a create's answer; several if they are different and equally credible.

    :param synchronous: whether the answer is already the result; then ``voice_id`` counts, too.
    """
    best = _best(payload)
    if best and best[0].rank in (Rank.GUESS, Rank.REQUEST) and is_error(payload):
        best = []  # in a refusal, such an id is an echo or the request's own
    if not best and synchronous:
        voice_id = first_text(*map(_id, (payload.get("voice_id"), as_object(payload.get("data")).get("voice_id"))))
        return () if voice_id is None else (voice_id,)
    return tuple(dict.fromkeys(candidate.id for candidate in best))


def created_id(payload: Level) -> str | None:
    """Return the id in a create's answer, or in an entry of a list; None if there is not exactly one."""
    ids = created_ids(payload)
    return ids[0] if len(ids) == 1 else None


def written_out(answer: ApiAnswer) -> dict[str, Any] | None:
    """Return the object for an answer that is nothing but an id, as text without quotation marks; None otherwise."""
    word = answer.redact(answer.body[:_MOST_WORD_BYTES].decode("utf-8", "replace")).strip()
    # The end of an id may be missing from an answer that was cut off.
    return {"id": word} if answer.lost is None and _SURELY_AN_ID.fullmatch(word) else None


def salvaged(documents: Sequence[Document]) -> dict[str, Any] | None:
    """Return the object with the job's id from an answer that is not JSON, or incomplete.

    :param documents: the objects and lists in the answer. Inside other text an ``id`` may be of anything, so there only
        an id that is named for the job counts.
    :return: that object; all of them if they have different ids; None if no id is certain.
    """
    ranked: list[tuple[Rank, dict[str, Any]]] = []
    for document in documents:
        payload = created_object(document.value)
        rank = None if payload is None else _sure_rank(payload)
        if payload is not None and rank is not None and (rank is Rank.NAMED or document.is_clean):
            ranked.append((rank, payload))
    if not ranked:
        return None
    best = min(rank for rank, _ in ranked)
    payloads = [payload for rank, payload in ranked if rank is best]
    ids = {created_id(payload) for payload in payloads}
    return payloads[0] if len(ids) == 1 else {"data": payloads}


def _sure_rank(payload: Level) -> Rank | None:
    """Return the rank of the id in an answer that may be incomplete, or None if it may not be the job's.

    The job's own id may be in the missing part: a small number in ``id`` may be the row of a gateway's database, and an
    id in an undocumented place may be of something else.
    """
    best = _best(payload)
    if not best:
        return Rank.GUESS if _id(payload.get("voice_id")) else None
    rank = best[0].rank
    if rank > Rank.NUMBER:
        return None
    is_cut_off = any(payload.get(name) in ({}, []) for name in WRAPPERS)  # the job's own id was to follow
    return None if is_cut_off and rank is not Rank.NAMED else rank


def strict_id(payload: Level) -> str | None:
    """Return the id in an error answer to a create; a bare ``id`` may be the request's and does not count.

    A gateway that cannot parse the answer of the service behind it quotes that answer in its message
    (``unmarshal_response_failed`` of new-api): the generation is created and paid.
    """
    candidates = [
        _Candidate(Rank.NAMED, place.depth, name)
        for place in _places(payload, of_error=True)
        if place.is_known
        for name in _named_ids(place)
    ]
    ids = {candidate.id for candidate in _nearest(candidates)}
    return ids.pop() if len(ids) == 1 else None


def located_id(location: str, query_path: str, *, is_success: bool) -> str | None:
    """Return the id in the ``Location`` header of a create's answer (for 201, 202 and 303 the new resource).

    :param location: the header's value; it is not followed.
    :param query_path: the path of a query, with ``{id}`` for the id.
    :param is_success: whether the status is a success. If not, only the path of a query counts: a redirect may lead to
        a login.
    """
    try:
        parts = split_url(location.strip())
    except ValueError:
        return None
    path, _, query = query_path.partition("?")
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    names = [segment for segment in path.split("/") if segment]
    for name, value in parse_qsl(query):
        if value.startswith("{"):
            given = dict(parse_qsl(parts.query)) if segments[-1:] == names[-1:] else {}
            return given.get(name)
    before = next((names[index - 1] for index, name in enumerate(names) if name.startswith("{") and index), None)
    for known, following in pairwise(segments):
        if known == before and _LIKE_AN_ID.fullmatch(following):
            return following
    last = segments[-1] if segments else ""
    return last if is_success and _SURELY_AN_ID.fullmatch(last) else None


# -- every id, and how credible it is -------------------------------------------------------------


def _best(payload: Level) -> list[_Candidate]:
    places = list(_places(payload))
    requests = {word for place in places for name in _REQUESTS if (word := text(place.names.get(name)))}
    candidates = [candidate for place in places for candidate in _candidates(place, requests)]
    if not candidates:
        return []
    rank = min(candidate.rank for candidate in candidates)
    candidates = [candidate for candidate in candidates if candidate.rank is rank]
    # The depth does not make a guess better.
    return candidates if rank is Rank.GUESS else _nearest(candidates)


def _nearest(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    depth = min((candidate.depth for candidate in candidates), default=0)
    return [candidate for candidate in candidates if candidate.depth == depth]


def _places(payload: Level, *, of_error: bool = False) -> Iterator[_Place]:
    """Yield the levels of an answer that may describe the job, outermost first.

    :param of_error: for an error answer: also read the fields that explain the error.
    """
    queue = deque([(payload, 0, True)])
    for _ in range(_MAX_LEVELS):
        if not queue:
            return
        level, depth, is_known = queue.popleft()
        names: dict[str, Any] = {}
        for name, value in level.items():
            names.setdefault(_bare_name(name), value)
        yield _Place(level, names, depth, is_known)
        if depth >= _DEPTH:
            continue
        for name, value in names.items():
            explains = of_error and (name in _ERRORS or name in _QUOTES)
            is_answer = name == "body" and "statuscode" in names  # of a function behind a gateway (AWS Lambda)
            if name not in _NOT_JOBS or explains or is_answer:
                is_inner_known = is_known and (name in _HOLDERS or explains or is_answer)
                inner = _objects(value, is_quote=explains and name in _QUOTES)
                queue.extend((level, depth + 1, is_inner_known) for level in inner)


def _objects(value: Any, *, is_quote: bool = False) -> Iterable[Level]:
    """Return the objects that a field holds: one, those of a list, or those of JSON in a text."""
    if isinstance(value, str) and (is_quote or value.lstrip()[:1] in ("{", "[")):
        value = embedded(value)
    if isinstance(value, list):
        return filter(None, map(as_object, value[:_MAX_ENTRIES]))
    return [value] if isinstance(value, Mapping) else ()


def _candidates(place: _Place, requests: Iterable[str]) -> Iterator[_Candidate]:
    named, own = _named_ids(place), _id(place.names.get("id"))
    state = state_word(place.level)
    if own is not None:
        has_state = state is not None and _is_of_a_job(state, place.level)
        rank = _rank_of_own(place, own, requests, has_state=has_state)
        is_official = "state" in place.level and "status" not in place.level
        if not named:
            yield _Candidate(rank, place.depth, own)
        elif rank <= Rank.OWN and place.is_known and not is_official:
            named = (own,)  # [?] the documented order; a task_id beside it makes the level the job's
    for job_id in named:
        yield _Candidate(Rank.NUMBER if _is_small(job_id) else Rank.NAMED, place.depth, job_id)
    if place.is_known:
        for rank, bare in _bare_ids(place):
            yield _Candidate(rank, place.depth, bare)
    for name in _GUESSED:
        if (guess := _id(place.names.get(name))) is not None:
            yield _Candidate(Rank.GUESS, place.depth, guess)


def _is_of_a_job(state: str, level: Level) -> bool:
    """Whether a state is the job's, and not the envelope's: ``{"status": "success", "data": …}``."""
    word = state.strip().lower()
    if is_success_code(word) or STATUSES.get(word) is GenerationStatus.SUCCEEDED:
        return not RESULT_FIELDS.isdisjoint(level)
    return not word.isdigit()


def _rank_of_own(place: _Place, own: str, requests: Iterable[str], *, has_state: bool) -> Rank:
    if own in requests or _OF_A_REQUEST.match(own):
        return Rank.REQUEST
    if _is_small(own):
        return Rank.ROW
    if isinstance(place.names["id"], (int, float)):
        return Rank.NUMBER
    if place.is_known:
        return Rank.NAMED if has_state else Rank.OWN
    return Rank.OWN if has_state else Rank.GUESS


def _named_ids(place: _Place) -> tuple[str, ...]:
    """Return the ids under the first name of a job's id on a level; several if it is a list."""
    for name in _NAMED:
        value = place.names.get(name)
        words = value[:_MAX_ENTRIES] if isinstance(value, list) else [value]
        if ids := tuple(filter(None, map(_id, words))):
            return ids
    return ()


def _bare_ids(place: _Place) -> Iterator[tuple[Rank, str]]:
    """Yield ids in place of an object: ``{"code": "success", "data": "task_…"}``."""
    for name in (*WRAPPERS, *_BARE_JOBS):
        value = place.names.get(name)
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else None
        word = (_id(value) or "").strip()
        if not _NO_SPACES.fullmatch(word) or word.lower() in STATUSES or web_url(word) or is_error(place.level):
            continue
        if _SURELY_AN_ID.fullmatch(word):
            yield Rank.OWN, word
        elif name in WRAPPERS and (isinstance(value, int) or len(word) > len("ok")):
            yield Rank.ROW if _is_small(word) else Rank.BARE, word


def _id(value: Any) -> str | None:
    """Return an id, or None for a placeholder (``"task_id": 0``).

    Some gateways make a float of every number: 123456.0 is exact up to 2^53, beyond which it is another number.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_BELOW:
        value = int(value)
    word = text(value)
    return None if word is None or _NO_ID.fullmatch(word.strip()) else word


def _is_small(word: str) -> bool:
    return word.isdecimal() and len(word) < _ID_DIGITS


def _bare_name(name: object) -> str:
    """Return a field's name in lower case without separators: ``Task-ID`` and ``task_id`` are the same."""
    return _NO_LETTERS.sub("", name.lower()) if isinstance(name, str) else ""
