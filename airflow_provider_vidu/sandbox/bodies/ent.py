"""Answers of the official API, dialect ``ent-v2``, about tasks. Bodies only, no I/O."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow_provider_vidu.sandbox.faults.refusals import official_error
from airflow_provider_vidu.sandbox.media import pictures
from airflow_provider_vidu.sandbox.messages.answers import Answer, json_answer
from airflow_provider_vidu.sandbox.settings import Settings
from airflow_provider_vidu.sandbox.world.generations import Generation, State

Json = dict[str, Any]

#: The types in the service's answers that differ from the endpoint's path.
_TYPES = {"start-end2video": "headtailimg2video", "reference2video": "character2video"}
#: The fields that a recorded answer to a create of a video adds to the request.
_VIDEO_DEFAULTS: Json = {
    "model": "",
    "style": "general",
    "prompt": "",
    "images": [],
    "duration": 5,
    "seed": 0,
    "aspect_ratio": "",
    "resolution": "1080p",
    "movement_amplitude": "auto",
    "payload": "",
    "cus_priority": 0,
    "off_peak": False,
    "watermark": False,
    "is_rec": False,
    "wm_position": 1,
    "wm_url": "",
    "meta_data": "",
    "client_request_id": "",
}
_RECORDED = ("text2video", "img2video", "start-end2video", "reference2video")


def written_time(seconds: float, settings: Settings) -> str | int:
    """Return epoch ``seconds`` as UTC text with nine fractional digits or as a whole number; both were recorded."""
    if settings.times == "epoch":
        return int(seconds)
    whole, fraction = divmod(round(seconds * 1e9), 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def task_type(endpoint: str) -> str:
    """Return the type of an endpoint's tasks in the service's answers."""
    return _TYPES.get(endpoint, endpoint)


def created(generation: Generation, created_at: float, settings: Settings) -> Answer:
    """Return the answer to a create: the request with its defaults, the id and the price."""
    defaults = _VIDEO_DEFAULTS if generation.endpoint in _RECORDED else {}
    return json_answer(
        {
            "task_id": generation.id,
            "type": task_type(generation.endpoint),
            settings.state_field: generation.stages[0].word,
            **defaults,
            **generation.request,
            "created_at": written_time(created_at, settings),
            "credits": generation.credits,
        }
    )


def queried(generation: Generation, state: State, urls: list[dict[str, str]], settings: Settings) -> Answer:
    """Return the answer to a query; ``urls`` holds one mapping of artifact to URL per creation."""
    body = query_body(generation, state, urls)
    return json_answer({settings.state_field if name == "state" else name: value for name, value in body.items()})


def query_body(generation: Generation, state: State, urls: list[dict[str, str]], *, word: str | None = None) -> Json:
    """Return the body of a query's answer; ``word`` replaces the state's own."""
    body: Json = {
        "id": generation.id,
        "state": word or state.word,
        "err_code": error_code(generation, state),
        "credits": 0 if state.failed else generation.credits,
        "payload": generation.request.get("payload", ""),
        "bgm": generation.request.get("bgm", False),
        "off_peak": generation.request.get("off_peak", False),
        "creations": [],
    }
    if not state.failed:
        body["progress"] = state.progress
    if state.succeeded:
        body["creations"] = creations(generation, urls)
    return body


def error_code(generation: Generation, state: State) -> str:
    """Return the code of a failure, or an empty text."""
    if not state.failed:
        return ""
    return "UserCancelled" if generation.cancelled_at is not None else generation.error_code


def creations(generation: Generation, urls: list[dict[str, str]]) -> list[Json]:
    """Return the entries of ``creations``."""
    return [_creation(generation, number, links) for number, links in enumerate(urls, 1)]


def _creation(generation: Generation, number: int, urls: dict[str, str]) -> Json:
    # The service's ids are numbers; a preset may have any id.
    own_id = str(int(generation.id) + number) if generation.id.isdecimal() else f"{generation.id}-{number}"
    body: Json = {
        "id": own_id,
        "url": urls.get("video", ""),
        "cover_url": urls.get("cover", ""),
        "watermarked_url": urls.get("watermarked", ""),
    }
    body |= {f"{name}_url": urls[name] for name in ("speech", "sound") if name in urls}
    if generation.medium == "video":
        body["video"] = {
            "duration": float(urls.get("seconds", 0)),
            "fps": pictures.FPS,
            "resolution": {"width": pictures.WIDTH, "height": pictures.HEIGHT},
        }
    return body


def credits_left(balance: int, running: int, waiting: int, settings: Settings) -> Answer:
    """Return the balance, the numbers of running and waiting tasks, and the purchased package."""
    limit = settings.concurrency if settings.concurrency is not None else 1_000
    numbers = {
        "type": "test",
        "credit_remain": balance,
        "concurrency_limit": limit,
        "current_concurrency": running,
        "queue_count": waiting,
    }
    package = {"id": "1", "type": "test", "name": "sandbox", "concurrency": limit, "credit_amount": settings.balance}
    return json_answer({settings.balance_field: [numbers], "packages": [{**package, "credit_remain": balance}]})


def error(status: int, reason: str, message: str, trace_id: str) -> Answer:
    """Return an error body; the code string is in ``reason``."""
    return json_answer(official_error(status, reason, message, trace_id), status)
