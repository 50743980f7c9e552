"""Answers other than tasks: immediate results, one-click films, and parts of films. Bodies only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from airflow_provider_vidu.sandbox.bodies import ent
from airflow_provider_vidu.sandbox.messages.answers import Answer, json_answer
from airflow_provider_vidu.sandbox.settings import Settings
from airflow_provider_vidu.sandbox.world.generations import Generation, State
from airflow_provider_vidu.sandbox.world.world import Moments

Json = dict[str, Any]
#: The number of storyboards in every film.
STORYBOARDS: Final = 3
_NARRATION, _MUSIC, _COMPOSED = STORYBOARDS, STORYBOARDS + 1, STORYBOARDS + 2


def spoken(generation: Generation, created_at: float, url: str, settings: Settings) -> Answer:
    """Return the answer to audio-tts, which already holds the result."""
    request = generation.request
    return json_answer(
        {**_head(generation, created_at, settings), "file_url": url, "payload": request.get("payload", "")}
    )


def cloned(generation: Generation, created_at: float, url: str, settings: Settings) -> Answer:
    """Return the answer to audio-clone."""
    request = generation.request
    body = {"voice_id": request.get("voice_id", ""), "demo_audio": url, "payload": request.get("payload", "")}
    return json_answer({**_head(generation, created_at, settings), **body})


def _head(generation: Generation, created_at: float, settings: Settings) -> Json:
    word = generation.stages[-1].word
    failed = word == "failed"
    return {
        "task_id": generation.id,
        settings.state_field: word,
        **({"err_code": generation.error_code} if failed else {}),
        "credits": 0 if failed else generation.credits,
        "created_at": ent.written_time(created_at, settings),
    }


def subject(generation: Generation, created_at: float, settings: Settings) -> Json:
    """Return a subject, which has no state."""
    request = generation.request
    return {
        "id": generation.id,
        "name": request.get("name", ""),
        "images": request.get("images", []),
        "videos": request.get("videos", []),
        "voice_id": request.get("voice_id", ""),
        "created_at": ent.written_time(created_at, settings),
        "credits": generation.credits,
    }


def recommended(generation: Generation) -> Answer:
    """Return the answer to img2video-prompt-recommendation."""
    request = generation.request
    count, kinds = request.get("count") or 1, request.get("type") or ["img2video"]
    prompts = [
        {
            "type": kinds[number % len(kinds)],
            "content": f"idea {number + 1}",
            "prompt": f"The camera moves slowly towards the subject, idea {number + 1}.",
            "template": "hugging" if kinds[number % len(kinds)] == "template" else "",
            "resolution": request.get("resolution", "720p"),
        }
        for number in range(count)
    ]
    return json_answer({"id": generation.id, "images": request.get("images", []), "count": count, "prompts": prompts})


def part_id(generation: Generation, number: int) -> str:
    """Return the id of a part of a film."""
    return str(int(generation.id) + 100 + number) if generation.id.isdecimal() else f"{generation.id}-{number}"


def edited(generation: Generation, parent: str, name: str, settings: Settings) -> Answer:
    """Return the answer to ad-one-click/edit and …/compose, with the id in the field ``name``.

    As in the vendor's example, the state is ``success`` although the work has only begun.
    """
    return json_answer(
        {
            "ad_one_click_task_id": parent,
            name: generation.id,
            settings.state_field: "success",
            "err_code": "",
            "credits": generation.credits,
        }
    )


def ad_parts(generation: Generation, state: State, url: str) -> Answer:
    """Return the answer to ``GET /ent/v2/ad-one-click/{id}``: storyboards, narration, music and the composition."""
    common = {"state": state.word, "err_code": ent.error_code(generation, state)}

    def record(number: int, kind: str) -> Json:
        prompt = generation.prompt or "a prompt by the service"
        return {"id": part_id(generation, number), "type": kind, "prompt": prompt, "creation_url": url, **common}

    videos = [record(number, "generate_video") for number in range(STORYBOARDS)]
    composed = {
        "id": part_id(generation, _COMPOSED),
        "params": {
            "video_task_ids": [video["id"] for video in videos],
            "bgm_task_id": part_id(generation, _MUSIC),
            "narration_task_id": part_id(generation, _NARRATION),
        },
        "creation_url": url,
        **common,
    }
    records = {
        # The vendor's spelling.
        "storyboards": [{"stroyboard_id": number, "records": [video]} for number, video in enumerate(videos)],
        "narration_records": [record(_NARRATION, "generate_narration")],
        "bgm_records": [record(_MUSIC, "generate_bgm")],
        "completed_creation_records": [composed],
    }
    return json_answer({"id": generation.id, **common, "data_records": records})


def film(
    generation: Generation,
    state: State,
    moments: Moments,
    url: str,
    parts: Iterable[tuple[Generation, State, str]],
    settings: Settings,
) -> Answer:
    """Return the answer to ``GET /ent/v2/one-click/mv/{id}``; ``parts`` are later edits and compositions."""
    # These films are never queued: they are created, processing, success or failed.
    word = "created" if state.waiting else state.word
    code = ent.error_code(generation, state)
    message = generation.error_message if code else ""
    times = {
        "created_at": ent.written_time(moments.created, settings),
        "updated_at": ent.written_time(moments.since, settings),
    }
    common = {settings.state_field: word, "err_code": code, "err_msg": message}
    kinds = [*(("generate_video", number) for number in range(STORYBOARDS)), ("compose", 0)]
    records: list[Json] = []
    for place, (kind, index) in enumerate(kinds):
        job = {"id": part_id(generation, place), "type": kind, "index": index, "signed_url": url, **common, **times}
        records.append({"type": kind, "index": index, "jobs": [job]})
    for part, part_state, part_url in parts:
        kind = "compose" if part.endpoint.endswith("compose") else "generate_video"
        row = next(row for row in records if row["type"] == kind)
        row["jobs"].append({"id": part.id, "type": kind, "signed_url": part_url, settings.state_field: part_state.word})
    kind = "mv" if generation.endpoint.startswith("one-click/mv") else "general_one_click"
    return json_answer(
        {"id": generation.id, "type": kind, **common, "signed_url": url, "job_records": records, **times}
    )
