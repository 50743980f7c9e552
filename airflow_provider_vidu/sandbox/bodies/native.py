"""Answers of gateways: the dialect ``vidu-native`` and their other routes. Bodies only, no I/O.

The routes are those of ``vidu_api_full.md`` section 5.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_vidu.sandbox.bodies import ent
from airflow_provider_vidu.sandbox.messages.answers import Answer, json_answer
from airflow_provider_vidu.sandbox.messages.calls import Shape
from airflow_provider_vidu.sandbox.settings import Settings
from airflow_provider_vidu.sandbox.world.generations import Generation, State
from airflow_provider_vidu.sandbox.world.world import Moments

Json = dict[str, Any]
Urls = list[dict[str, str]]


def created(generation: Generation, moments: Moments, shape: Shape, settings: Settings) -> Answer:
    """Return the answer to a create on the route of ``shape``."""
    if shape == "openai" or (shape == "new-api" and settings.new_api_url == "result_url"):
        return json_answer({**_openai_head(generation, moments), "status": "queued", "progress": 0})
    if shape == "new-api":
        return json_answer({"task_id": generation.id})
    updated_at = int(moments.created * 1000)
    return json_answer({"id": generation.id, "status": generation.stages[0].word, "status_update_time": updated_at})


def queried(
    generation: Generation, state: State, urls: Urls, moments: Moments, shape: Shape, settings: Settings
) -> Answer:
    """Return the answer to a query on the route of ``shape``; ``urls`` maps artifacts to URLs, per creation."""
    if shape == "openai":
        return json_answer(_openai(generation, state, urls, moments))
    if shape == "new-api":
        return json_answer(_new_api(generation, state, urls, moments, settings.new_api_url))
    body = flat(generation, state, urls, moments)
    if shape == "" and settings.native_shape == "wrapped":
        return json_answer(_wrapped(generation, state, body))
    if shape == "" and settings.native_shape == "official":
        return json_answer(ent.query_body(generation, state, urls, word=official_word(state)))
    return json_answer(body)


def flat(generation: Generation, state: State, urls: Urls, moments: Moments) -> Json:
    """Return the flat body of a query: ``status`` and ``video_url``."""
    first = urls[0] if state.succeeded and urls else {}
    body: Json = {
        "id": generation.id,
        "status": state.word,
        "video_url": first.get("video"),
        "enhanced_prompt": f"```\n{generation.prompt}\n```" if generation.prompt else "",
        "status_update_time": int(moments.since * 1000),
        "progress": state.progress,
        "model": generation.model,
        "prompt": generation.prompt,
        "trace_id": generation.trace_id,
        "created_at": int(moments.created),
        "error": "",
    }
    if state.succeeded:
        body["thumbnail_url"] = first.get("cover")
    if moments.finished is not None:
        body["completed_at"] = int(moments.finished)
    if state.failed:
        body["error"] = {"code": generation.error_code, "message": generation.error_message}
        body["fail_reason"] = generation.error_message
    return body


def _wrapped(generation: Generation, state: State, body: Json) -> Json:
    inner = {
        "task_id": generation.id,
        "status": state.word,
        "fail_reason": body.get("fail_reason", ""),
        "result_url": body["video_url"] or "",
        "progress": f"{state.progress}%",
    }
    return {"code": "success", "message": "", "data": inner}


def official_word(state: State) -> str:
    """Return the official API's word for a state of a gateway."""
    return _word(state, "success", "failed", "queueing", "processing")


def _word(state: State, succeeded: str, failed: str, waiting: str, running: str) -> str:
    if state.succeeded:
        return succeeded
    if state.failed:
        return failed
    return waiting if state.waiting else running


def _openai_head(generation: Generation, moments: Moments) -> Json:
    return {
        "id": generation.id,
        "task_id": generation.id,
        "object": "video",
        "model": generation.model,
        "created_at": int(moments.created),
    }


def _openai(generation: Generation, state: State, urls: Urls, moments: Moments) -> Json:
    body: Json = {
        **_openai_head(generation, moments),
        "status": _word(state, "completed", "failed", "queued", "in_progress"),
        "progress": state.progress,
    }
    if moments.finished is not None:
        body["completed_at"] = int(moments.finished)
    if state.succeeded:
        body["metadata"] = {"url": urls[0].get("video", "") if urls else ""}
    if state.failed:
        body["error"] = {"message": generation.error_message, "code": generation.error_code}
    return body


def _new_api(generation: Generation, state: State, urls: Urls, moments: Moments, url_field: str) -> Json:
    url = urls[0].get("video", "") if state.succeeded and urls else ""
    data: Json = {
        "task_id": generation.id,
        "action": "generate",
        "status": _word(state, "SUCCESS", "FAILURE", "QUEUED", "IN_PROGRESS"),
        "fail_reason": generation.error_message if state.failed else "",
        "submit_time": int(moments.created),
        "finish_time": int(moments.finished or 0),
        "progress": f"{state.progress}%",
        "data": ent.query_body(generation, state, urls, word=official_word(state)),
    }
    # Older gateways have no field for the URL and put it into fail_reason.
    data[url_field] = url if url or url_field == "result_url" else data["fail_reason"]
    return {"code": "success", "message": "", "data": data}


def task_error(status: int, code: str, message: str) -> Answer:
    """Return an error of a task endpoint."""
    return json_answer({"code": code, "message": message, "data": None}, status)


def gateway_error(status: int, code: str, message: str, kind: str = "new_api_error") -> Answer:
    """Return an error of the gateway itself: key, quota, request."""
    return json_answer({"error": {"message": message, "type": kind, "code": code}}, status)
