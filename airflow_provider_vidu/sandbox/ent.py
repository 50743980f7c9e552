"""How the official API's dialect ``ent-v2`` says things, and what it checks; bodies only, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from airflow_provider_vidu.sandbox import pictures
from airflow_provider_vidu.sandbox.answers import Answer, json_answer
from airflow_provider_vidu.sandbox.generations import Generation, State

Json = dict[str, Any]

#: Fewest and most images each endpoint takes.
_IMAGE_COUNTS = {"img2video": (1, 1), "start-end2video": (2, 2), "reference2video": (1, 7)}
#: What the service calls the endpoints in its answers, as far as it differs from the path.
_TYPES = {"start-end2video": "headtailimg2video", "reference2video": "character2video"}
_DEFAULTS: Json = {
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


def iso_time(seconds: float) -> str:
    """Return epoch ``seconds`` as the service writes them: UTC with nine fractional digits."""
    nanoseconds = round(seconds * 1e9)
    whole, fraction = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def problem(endpoint: str, request: Json) -> tuple[str, str] | None:
    """Return (reason, message) of what is wrong with a create, or None."""
    images = request.get("images", [])
    if endpoint == "text2video" and not request.get("prompt"):
        return "FieldLacking", "field prompt is lacking"
    if endpoint in _IMAGE_COUNTS:
        if not isinstance(images, list):
            return "FieldInvalid", "field images must be a list"
        subjects = request.get("subjects")
        extra = len(subjects) if endpoint == "reference2video" and isinstance(subjects, list) else 0
        low, high = _IMAGE_COUNTS[endpoint]
        if not low <= len(images) + extra <= high:
            counts = str(low) if low == high else f"{low} to {high}"
            return (
                "FieldItemCountOutOfRange",
                f"field images must have {counts} items, got {len(images) + extra}",
            )
    payload = request.get("payload", "")
    if not isinstance(payload, str) or len(payload) > 1_048_576:
        return "FieldInvalid", "field payload must be a text of at most 1048576 characters"
    return None


def created(generation: Generation) -> Answer:
    """Return the answer to a create: the request with its defaults, the id and the price."""
    return json_answer(
        {
            "task_id": generation.id,
            "type": _TYPES.get(generation.endpoint, generation.endpoint),
            "state": generation.stages[0].word,
            **_DEFAULTS,
            **generation.request,
            "created_at": iso_time(generation.created_at),
            "credits": generation.credits,
        }
    )


def queried(generation: Generation, state: State, urls: list[dict[str, str]]) -> Answer:
    """Return the answer to a query; ``urls`` holds one mapping of artifact to URL per creation."""
    body: Json = {
        "id": generation.id,
        "state": state.word,
        "err_code": _error_code(generation, state),
        "credits": 0 if state.failed else generation.credits,
        "payload": generation.request.get("payload", ""),
        "bgm": generation.request.get("bgm", False),
        "off_peak": generation.request.get("off_peak", False),
        "creations": [],
    }
    if not state.failed:
        body["progress"] = state.progress
    if state.succeeded:
        body["creations"] = [_creation(generation, number, found) for number, found in enumerate(urls, 1)]
    return json_answer(body)


def _error_code(generation: Generation, state: State) -> str:
    if not state.failed:
        return ""
    return "UserCancelled" if generation.cancelled_at is not None else generation.error_code


def _creation(generation: Generation, number: int, urls: dict[str, str]) -> Json:
    # A preset may bear any id, the service's own are numbers.
    own_id = str(int(generation.id) + number) if generation.id.isdecimal() else f"{generation.id}-{number}"
    return {
        "id": own_id,
        "url": urls.get("video", ""),
        "cover_url": urls.get("cover", ""),
        "watermarked_url": urls.get("watermarked", ""),
        "video": {
            "duration": float(urls.get("seconds", 0)),
            "fps": pictures.FPS,
            "resolution": {"width": pictures.WIDTH, "height": pictures.HEIGHT},
        },
    }


def listed(entries: Iterable[tuple[Generation, State]], next_page_token: str) -> Answer:
    """Return the list of tasks; ``next_page_token`` is empty on the last page."""
    tasks = [
        {
            "id": generation.id,
            "type": _TYPES.get(generation.endpoint, generation.endpoint),
            "state": state.word,
            "err_code": _error_code(generation, state),
            "model": generation.model,
            "prompt": generation.prompt,
            "payload": generation.request.get("payload", ""),
            "credits": 0 if state.failed else generation.credits,
            "created_at": iso_time(generation.created_at),
        }
        for generation, state in entries
    ]
    return json_answer({"tasks": tasks, "next_page_token": next_page_token})


def credits_left(balance: int, running: int, waiting: int) -> Answer:
    """Return the balance and how many tasks run and wait."""
    numbers = {
        "credit_remain": balance,
        "concurrency_limit": 5,
        "current_concurrency": running,
        "queue_count": waiting,
    }
    return json_answer({"remains": [{"type": "test", **numbers}], **numbers})


def error(status: int, reason: str, message: str, trace_id: str) -> Answer:
    """Return an error body; the code string stands in ``reason``."""
    body = {"code": status, "reason": reason, "message": message, "metadata": {"trace_id": trace_id}}
    return json_answer(body, status)
