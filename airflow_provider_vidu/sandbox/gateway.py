"""The gateways: answers to creates and queries on each of their routes. No I/O, no lock."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from airflow_provider_vidu.sandbox.bodies import native
from airflow_provider_vidu.sandbox.faults import refusals
from airflow_provider_vidu.sandbox.faults.actions import Action
from airflow_provider_vidu.sandbox.messages import answers
from airflow_provider_vidu.sandbox.messages.answers import UNSET, Answer
from airflow_provider_vidu.sandbox.messages.calls import NATIVE, Call, Route
from airflow_provider_vidu.sandbox.settings import ANY_MODEL
from airflow_provider_vidu.sandbox.world import files
from airflow_provider_vidu.sandbox.world.generations import triggers
from airflow_provider_vidu.sandbox.world.world import World

#: The names in the gateways' own examples, beside the vendor's.
_OWN_MODELS: Final = frozenset({"TC-Vidu", "vidu-2.0"})


class GatewayApi:
    """Answers for ``/vidu-native/…`` and ``/v1/…``.

    ``models`` are those of the service behind the gateway, which has no channel for any other name.
    """

    def __init__(self, world: World, models: Collection[str]) -> None:
        self._world = world
        self._models = _OWN_MODELS.union(models)

    def answer(self, call: Call, where: Route, now: float, action: Action, trace_id: str) -> Answer:
        """Return the answer to a request with a valid key."""
        if where.kind == "create":
            return self._create(call, where, now, action, trace_id)
        if where.kind == "content":
            return self._content(call, where, now, action)
        return self._query(call, where, now)

    def _create(self, call: Call, where: Route, now: float, action: Action, trace_id: str) -> Answer:
        world, settings = self._world, self._world.settings
        request = call.parsed()
        if not isinstance(request, dict):
            message = "the request body is not a JSON object"
            return native.gateway_error(400, "invalid_request", message, "invalid_request_error")
        refused = self._refusal(request, now)
        if refused is not None:
            return refusals.refusal(refused, str(request.get("model") or ""), trace_id)
        prompt, limit = request.get("prompt"), settings.gateway_prompt_limit
        if isinstance(prompt, str) and limit is not None and len(prompt) > limit:
            # The official API behind the gateway refuses it, and the gateway passes that on.
            message = f"field prompt must have at most {limit} characters, got {len(prompt)}"
            return refusals.wrapped(400, "FieldInvalid", message, trace_id)
        if world.ledger.balance < world.price_of(request):
            return native.gateway_error(403, "insufficient_user_quota", "the balance is exhausted")
        is_task = where.shape in ("openai", "new-api")
        new_id = f"task_{trace_id}" if is_task else world.gateway_id(request.get("model"))
        generation, entry = world.create(NATIVE, request, now, generation_id=new_id)
        entry.answered = not action.cuts_before
        state = generation.state_at(now)
        assert state is not None, "a new generation has a state"
        return native.created(generation, world.moments(generation, state), where.shape, settings)

    def _refusal(self, request: dict[str, Any], now: float) -> str | None:
        """Return the name of the refusal of a create, or None."""
        settings = self._world.settings
        prompt = request.get("prompt")
        requested = triggers(prompt).get("refuse") if isinstance(prompt, str) else None
        if requested in refusals.REFUSALS:
            return requested
        if not self._has_channel(request.get("model")):
            return "model_not_found"
        limit = settings.gateway_concurrency
        if limit is not None and self._world.unfinished(NATIVE, now) >= limit:
            return settings.gateway_refusal
        return None

    def _has_channel(self, model: Any) -> bool:
        """Whether the gateway can forward a create of ``model``; whether one may be absent is not documented."""
        settings = self._world.settings
        if settings.models == ANY_MODEL:
            return True
        named = settings.named_models()
        return model in named if named is not None else not model or model in self._models

    def _query(self, call: Call, where: Route, now: float) -> Answer:
        world = self._world
        match = world.find(NATIVE, where.id, now)
        if match is None:
            return native.task_error(400, "task_not_exist", "task_not_exist")
        generation, state = match
        if generation.answer is not UNSET:
            return answers.json_answer(generation.answer)
        urls = world.urls(generation, call.origin, now) if state.succeeded else []
        if where.shape == "openai" and world.settings.openai_url == "content" and urls and "video" in urls[0]:
            urls[0]["video"] = f"{call.origin}{call.target.partition('?')[0].rstrip('/')}/content"
        return native.queried(generation, state, urls, world.moments(generation, state), where.shape, world.settings)

    def _content(self, call: Call, where: Route, now: float, action: Action) -> Answer:
        """Return the result's bytes: unlike a signed URL, this endpoint requires the key."""
        world = self._world
        match = world.find(NATIVE, where.id, now)
        if match is None:
            return native.task_error(400, "task_not_exist", "task_not_exist")
        generation, state = match
        if not state.succeeded or generation.without_url:
            return native.gateway_error(400, "task_not_completed", "the task is not completed yet")
        content = files.content(generation, 1, "video", world.settings.clip_seconds)
        modified_at = world.moments(generation, state).since
        path = files.path(generation, 1, "video")
        return files.serve(call, path, "video", content, modified_at=modified_at, action=action, serial=0)
