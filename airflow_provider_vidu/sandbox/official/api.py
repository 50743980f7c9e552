"""The official API: answers to creates, queries, cancels, lists and uploads. No I/O, no lock."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from airflow_provider_vidu.sandbox.bodies import ent, native
from airflow_provider_vidu.sandbox.faults import refusals
from airflow_provider_vidu.sandbox.faults.actions import Action
from airflow_provider_vidu.sandbox.messages import answers
from airflow_provider_vidu.sandbox.messages.answers import UNSET, Answer
from airflow_provider_vidu.sandbox.messages.calls import ENT, Call, Route
from airflow_provider_vidu.sandbox.official import films, listing
from airflow_provider_vidu.sandbox.official.checks import MAX_REQUEST, Uploaded, check_create
from airflow_provider_vidu.sandbox.official.endpoints import endpoint_of
from airflow_provider_vidu.sandbox.official.fields import Json, Refused, Unknown
from airflow_provider_vidu.sandbox.official.rows import Endpoint
from airflow_provider_vidu.sandbox.world.generations import Generation, Stage, State, triggers
from airflow_provider_vidu.sandbox.world.ledger import CreateRecord
from airflow_provider_vidu.sandbox.world.uploads import Upload
from airflow_provider_vidu.sandbox.world.world import World, without_null

#: Largest upload, in bytes: "All images are limited to 50MB" (platform.vidu.com/docs/image-to-video). The vendor does
#: not say whether megabytes are decimal; the sandbox assumes so everywhere, which is stricter.
MAX_UPLOAD = 50_000_000
_TOO_LARGE = f"the request has more than {MAX_REQUEST} bytes"


class OfficialApi:
    """Answers for the paths under ``/ent/v2`` and ``/tools/v2``."""

    def __init__(self, world: World) -> None:
        self._world = world

    def answer(self, call: Call, where: Route, query: str, now: float, action: Action, trace_id: str) -> Answer:
        """Return the answer to a request with a valid key."""
        try:
            if where.kind == "create":
                return self._create(call, where, now, action, trace_id)
            if where.kind == "query":
                return self._query(call, where, now)
            if where.kind == "cancel":
                return self._cancel(where, now)
            if where.kind == "list":
                return self._list(call, query, now)
            if where.kind == "subject":
                return self._subject(call, where)
            if where.kind == "upload":
                return self._upload(call, where, now)
            return self._credits(now)
        except Refused as refused:
            return ent.error(400, refused.reason, refused.message, trace_id)
        except Unknown as unknown:
            return ent.error(404, "TaskNotFound", str(unknown), trace_id)

    # -- creates -----------------------------------------------------------------------------------------------------

    def _create(self, call: Call, where: Route, now: float, action: Action, trace_id: str) -> Answer:
        world, settings = self._world, self._world.settings
        if len(call.body) > MAX_REQUEST:
            # The limit is documented, the status (413 or 400) is not.
            return ent.error(413, "FieldInvalid", _TOO_LARGE, trace_id)
        endpoint, request = endpoint_of(where.endpoint), _json_object(call)
        refusal = triggers(_trigger_text(request)).get("refuse")
        if refusal in refusals.REFUSALS:
            return refusals.refusal(refusal, str(request.get("model") or ""), trace_id)
        if settings.balance_check == "first":
            self._check_balance(request)
        check_create(endpoint, request, settings, Uploaded(world.uploads, settings.uploads))
        parent = self._parent(where, endpoint, request, now)
        self._check_balance(request)
        takes_slot = endpoint.answer not in ("speech", "voice", "subject", "prompts")
        if takes_slot and settings.when_full == "refuse" and self._is_full(now):
            return refusals.refusal("quota_exceeded", "", trace_id)
        generation, entry = self._add(endpoint, request, now, parent, at_once=not takes_slot)
        entry.answered = not action.cuts_before
        if takes_slot:
            world.take_slot(generation, now)
            self._expect_callback(call, request, generation)
        return self._created(call, endpoint, generation, now)

    def _expect_callback(self, call: Call, request: Json, generation: Generation) -> None:
        url = request.get("callback_url")
        if isinstance(url, str) and url:
            key = (call.header("authorization") or "").rpartition(" ")[2]
            self._world.callbacks.expect(generation, url, key)

    def _is_full(self, now: float) -> bool:
        limit = self._world.settings.concurrency
        return limit is not None and self._world.slots.unfinished(now) >= limit

    def _check_balance(self, request: Json) -> None:
        if self._world.ledger.balance < self._world.price_of(request):
            raise Refused("CreditInsufficient", "credits are insufficient")

    def _parent(self, where: Route, endpoint: Endpoint, request: Json, now: float) -> Generation | None:
        """Return the film that a part belongs to, or None; :class:`Unknown` if it does not exist."""
        if endpoint.name.startswith("ad-one-click/"):
            parent = self._find(str(request["ad_one_click_task_id"]), now, "ad-one-click")[0]
            wanted = request.get("video_task_ids")
            if wanted is not None and len(wanted) != films.STORYBOARDS:
                raise Refused("FieldItemCountOutOfRange", f"field video_task_ids must have {films.STORYBOARDS} items")
            return parent
        if where.shape == "film":
            return self._find(where.id or "", now, "one-click/")[0]
        return None

    def _add(
        self, endpoint: Endpoint, request: Json, now: float, parent: Generation | None, *, at_once: bool
    ) -> tuple[Generation, CreateRecord]:
        word = "failed" if "fail" in triggers(_trigger_text(request)) else "success"
        return self._world.create(
            ENT,
            request,
            now,
            generation_id=self._world.decimal_id(),
            endpoint=endpoint.name,
            triggers_in=_trigger_text(request),
            stages=(Stage(word, 0.0),) if at_once else (),
            medium=endpoint.medium,
            short_lived=endpoint.short_lived,
            parent=parent.id if parent is not None else None,
            listed=endpoint.answer in ("task", "speech", "voice", "sub-task", "composition"),
        )

    def _created(self, call: Call, endpoint: Endpoint, generation: Generation, now: float) -> Answer:
        world, settings = self._world, self._world.settings
        created_at = world.created_at(generation)
        if endpoint.answer in ("speech", "voice"):
            say = films.spoken if endpoint.answer == "speech" else films.cloned
            return say(generation, created_at, self._result_url(call, generation, now), settings)
        if endpoint.answer == "subject":
            world.subjects[generation.id] = films.subject(generation, created_at, settings)
            return answers.json_answer(world.subjects[generation.id])
        if endpoint.answer == "prompts":
            return films.recommended(generation)
        if endpoint.answer == "film":
            return answers.json_answer({"id": generation.id})
        if endpoint.answer in ("sub-task", "composition"):
            name = "sub_task_id" if endpoint.answer == "sub-task" else "compose_sub_task_id"
            return films.edited(generation, generation.parent or "", name, settings)
        return ent.created(generation, created_at, settings)

    # -- queries -----------------------------------------------------------------------------------------------------

    def _find(self, wanted: str, now: float, endpoint: str = "") -> tuple[Generation, State]:
        """Return a generation by its endpoint's prefix (empty: any task); :class:`Unknown` if it does not exist."""
        match = self._world.find(ENT, wanted, now)
        if match is None or not (match[0].endpoint.startswith(endpoint) if endpoint else match[0].listed):
            raise Unknown(wanted)
        return match

    def _query(self, call: Call, where: Route, now: float) -> Answer:
        world, wanted = self._world, where.id or ""
        if where.shape == "film":
            return self._film(call, wanted, now)
        generation, state = self._find(wanted, now, "ad-one-click" if where.shape == "ad" else "")
        if generation.answer is not UNSET:
            return answers.json_answer(generation.answer)
        if where.shape == "ad":
            return films.ad_parts(generation, state, self._result_url(call, generation, now))
        urls = world.urls(generation, call.origin, now) if state.succeeded else []
        if where.shape == "flat-task":
            # Resellers answer the singular path in the flat form.
            return answers.json_answer(native.flat(generation, state, urls, world.moments(generation, state)))
        return ent.queried(generation, state, urls, world.settings)

    def _film(self, call: Call, wanted: str, now: float) -> Answer:
        world = self._world
        generation, state = self._find(wanted, now, "one-click/")
        if generation.answer is not UNSET:
            return answers.json_answer(generation.answer)
        parts = [
            (one, part_state, self._result_url(call, one, now))
            for one in world.generations.values()
            if one.parent == generation.id and (part_state := one.state_at(now)) is not None
        ]
        url = self._result_url(call, generation, now)
        return films.film(generation, state, world.moments(generation, state), url, parts, world.settings)

    def _result_url(self, call: Call, generation: Generation, now: float) -> str:
        state = generation.state_at(now)
        if state is None or not state.succeeded:
            return ""
        return self._world.urls(generation, call.origin, now)[0].get("video", "")

    def _cancel(self, where: Route, now: float) -> Answer:
        generation, state = self._find(where.id or "", now)
        if not state.waiting:
            word = "scheduled" if state.finished_at is None else state.word
            raise Refused("BadRequest", f"task state is {word}, can not cancel")
        self._world.cancel(generation, now)
        return answers.json_answer({})

    def _list(self, call: Call, query: str, now: float) -> Answer:
        world, wanted = self._world, parse_qs(query)
        filters = listing.Filters.of(wanted, world.settings)
        tasks = world.tasks(now, filters.ids)
        page = listing.page(
            [listing.Entry(one, state, world.created_at(one)) for one, state in tasks], filters, wanted, now
        )
        succeeded = [entry.generation for entry in page.entries if entry.state.succeeded]
        urls = {one.id: world.urls(one, call.origin, now) for one in succeeded}
        return listing.listed(page, urls, world.settings)

    def _credits(self, now: float) -> Answer:
        states = [state for _, state in self._world.tasks(now) if state.finished_at is None]
        waiting = sum(state.waiting for state in states)
        return ent.credits_left(self._world.ledger.balance, len(states) - waiting, waiting, self._world.settings)

    # -- subjects and uploads ----------------------------------------------------------------------------------------

    def _subject(self, call: Call, where: Route) -> Answer:
        world = self._world
        if call.method == "GET" and where.id is None:
            return answers.json_answer({"subjects": list(world.subjects.values()), "next_page_token": ""})
        change = _json_object(call) if call.method == "PUT" else {}
        wanted = where.id or str(change.pop("id", ""))
        known = world.subjects.get(wanted)
        if known is None:
            raise Unknown(wanted)
        if call.method == "PUT":
            changed = {**{name: known[name] for name in ("name", "images", "videos", "voice_id")}, **change}
            uploaded = Uploaded(world.uploads, world.settings.uploads)
            check_create(endpoint_of("subjects"), changed, world.settings, uploaded)
            known.update(changed)
        return answers.json_answer(known)

    def _upload(self, call: Call, where: Route, now: float) -> Answer:
        world = self._world
        if where.shape == "announce":
            if _json_object(call).get("scene") != "vidu":
                raise Refused("FieldInvalid", 'field scene must be "vidu"')
            announced, url = world.announce_upload(call.origin, now)
            return answers.json_answer({"id": announced.id, "put_url": url})
        upload = world.uploads.get(where.token)
        if upload is None:
            raise Unknown(where.token)
        _check_etag(upload, _json_object(call).get("etag"))
        upload.finished = True
        return answers.json_answer({"uri": upload.uri})

    def receive(self, call: Call, where: Route, path: str, query: str, now: float, trace_id: str) -> Answer:
        """Return the store's answer to the bytes of an upload, which need a signed URL but no key."""
        upload = self._world.uploads.get(where.token)
        problem = "NoSuchKey" if upload is None else self._world.signer.problem(path, query, now)
        if problem is None and len(call.body) > MAX_UPLOAD:
            problem = "EntityTooLarge"
        if upload is None or problem is not None:
            return refusals.store_refusal(problem or "NoSuchKey", trace_id)
        upload.receive(call.body)
        return Answer(200, {"ETag": upload.etag})


def _check_etag(upload: Upload, etag: object) -> None:
    """Raise :class:`Refused` unless ``etag`` is that of the received bytes."""
    if not isinstance(etag, str) or not etag:
        raise Refused("FieldLacking", "field etag is lacking")
    if not upload.etag or etag.strip('"') != upload.etag.strip('"'):
        raise Refused("FieldInvalid", "field etag is not that of the uploaded bytes")


def _trigger_text(request: Json) -> str:
    """Return the text that may hold ``[fail]`` and other triggers: the prompt and the words to be spoken."""
    return "\n".join(text for text in (request.get("prompt"), request.get("text")) if isinstance(text, str))


def _json_object(call: Call) -> dict[str, Any]:
    body = call.parsed()
    if not isinstance(body, dict):
        raise Refused("BadRequest", "the request body is not a JSON object")
    return without_null(body)
