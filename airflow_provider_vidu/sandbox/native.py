"""How the gateway dialect ``vidu-native`` says things; bodies only, no I/O."""

from __future__ import annotations

from typing import Any

from airflow_provider_vidu.sandbox.answers import Answer, json_answer
from airflow_provider_vidu.sandbox.generations import Generation, State

Json = dict[str, Any]


def created(generation: Generation) -> Answer:
    """Return the answer to a create."""
    word = generation.stages[0].word
    body = {"id": generation.id, "status": word, "status_update_time": int(generation.created_at * 1000)}
    return json_answer(body)


def queried(generation: Generation, state: State, urls: list[dict[str, str]]) -> Answer:
    """Return the answer to a query; ``urls`` holds one mapping of artifact to URL per creation."""
    first = urls[0] if state.succeeded and urls else {}
    body: Json = {
        "id": generation.id,
        "status": state.word,
        "video_url": first.get("video"),
        "enhanced_prompt": f"```\n{generation.prompt}\n```" if generation.prompt else "",
        "status_update_time": int(state.since * 1000),
        "progress": state.progress,
        "model": generation.model,
        "prompt": generation.prompt,
        "trace_id": generation.trace_id,
        "created_at": int(generation.created_at),
        "error": "",
    }
    if state.succeeded:
        body["thumbnail_url"] = first.get("cover")
    if state.finished_at is not None:
        body["completed_at"] = int(state.finished_at)
    if state.failed:
        body["error"] = {"code": generation.error_code, "message": generation.error_message}
        body["fail_reason"] = generation.error_message
    return json_answer(body)


def task_error(status: int, code: str, message: str) -> Answer:
    """Return an error of a task endpoint."""
    return json_answer({"code": code, "message": message, "data": None}, status)


def gateway_error(status: int, code: str, message: str, kind: str = "new_api_error") -> Answer:
    """Return an error of the gateway itself: key, quota, request."""
    return json_answer({"error": {"message": message, "type": kind, "code": code}}, status)
