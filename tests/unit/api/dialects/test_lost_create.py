"""Which entry of the list is a create whose answer was lost, and what the list proves."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest

from airflow_provider_vidu.api.dialects.lost_create import MAX_QUERIED, Likeness, Search
from airflow_provider_vidu.api.dialects.task_list import Page
from airflow_provider_vidu.models import Generation, GenerationStatus

NOW = 1_800_000_000.0
MARKER = "airflow:abc"
BODY = {"model": "viduq3-pro", "prompt": "a cat with wings"}
HOSTED = {**BODY, "images": ["https://mine.example/1.png", "https://mine.example/2.png"]}


def entry(name: str, *, age: float | None = 60.0, **shown: Any) -> Generation:
    """Return an entry as documented: what it shows of the create, and no payload unless given."""
    created = None if age is None else datetime.fromtimestamp(NOW - age, UTC)
    raw = {"id": name, "type": "text2video", "model": "viduq3-pro", "prompt": "a cat with wings", "images": [], **shown}
    return Generation(id=name, status=GenerationStatus.WAITING, created_at=created, raw=raw)


def search(*pages: Page, body: dict[str, Any] | None = BODY, marker: str | None = MARKER, since: float = 120.0) -> Any:
    """Look for a create that was sent up to ``since`` seconds ago; every page answers one request."""
    like = None if body is None else Likeness.of(body, f"/ent/v2/{'img2video' if 'images' in body else 'text2video'}")
    found = Search(marker, since=NOW - since, until=NOW - 30, like=like, now=NOW)
    answers = list(pages)
    while found.query is not None and answers:
        found.take(answers.pop(0))
    return found.result()


def page(*entries: Generation) -> Page:
    """Return a page that is the last."""
    return Page(entries, len(entries), None, True)


EMPTY = page()


def test_the_marker_decides_where_payloads_are_shown():
    """The newest entry with the marker is the one; the others are not, however alike."""
    entries = [entry("9", payload="theirs"), entry("1", payload=MARKER, age=90), entry("2", payload=MARKER)]
    assert search(page(*entries)).generation_id == "2"


def test_payloads_of_others_prove_that_nothing_was_created():
    """A list that shows payloads would show ours: alike entries with another or none are not it."""
    found = search(page(entry("8", payload="theirs"), entry("9", payload="")))
    assert (found.generation_id, found.complete, found.candidates) == (None, True, ())


@pytest.mark.parametrize("shown", [{}, {"payload": ""}], ids=["no payload", "filled in"])
def test_one_that_fits_is_found_without_payloads(shown):
    """Model, prompt, endpoint and time decide, where exactly one entry fits."""
    others = [
        entry("2", prompt="a dog", **shown),
        entry("3", age=200, **shown),
        entry("4", age=10, **shown),
    ]
    found = search(page(entry("1", **shown), *others))
    assert (found.generation_id, found.complete) == ("1", True)


def test_what_is_queried_for_its_payload():
    """First what fits, then what may be it, each once and a bounded number; nothing without a payload to tell by."""
    entries = page(entry("0", type="other"), *(entry(str(number)) for number in range(1, MAX_QUERIED + 9)))
    found = Search(MARKER, since=NOW - 120, like=Likeness.of(BODY, "text2video"), now=NOW)
    found.take(entries)
    queried = []
    while (name := found.undecided) is not None:
        queried.append(name)
        found.take_payload(name, entry(name, payload="theirs") if name == "1" else None)
    assert queried == [str(number) for number in range(1, MAX_QUERIED + 1)]
    assert "1" not in found.result().candidates
    unmarked = Search(None, since=NOW - 120, like=Likeness.of(BODY, "text2video"), now=NOW)
    unmarked.take(entries)
    assert unmarked.undecided is None


def test_a_time_without_a_zone_decides_nothing():
    """Local times are hours off: an alike entry is named instead of being too old or too new."""
    local = "2027-01-15 20:00:00"
    shifted = entry("1", age=-8 * 3600, created_at=local)
    assert search(page(shifted)).candidates == ("1",)
    assert search(page(entry("1", age=-8 * 3600, created_at=local + "Z"))).complete


def test_twins_are_named():
    """Which of twenty mapped tasks with one prompt is lost cannot be determined: the candidates are named."""
    found = search(page(entry("1"), entry("2")))
    assert (found.generation_id, found.complete, found.candidates) == (None, False, ("1", "2"))


def test_a_complete_list_without_a_fitting_entry_proves_absence():
    """Nothing fits, and everything since the intent was read."""
    assert search(page(entry("2", prompt="a dog"))).complete


@pytest.mark.parametrize(
    "pages",
    [
        [Page((entry("2", prompt="a dog"),), 1, "more", True)],
        [Page((entry("2", prompt="a dog"),), 1, None, False), Page((entry("2", prompt="a dog"),), 1, None, False)],
        [Page(), Page()],
        [Page((), 0, None, False), Page((), 0, None, False)],
    ],
    ids=["further page", "repeats itself", "no list", "empty, and not as documented"],
)
def test_a_list_whose_end_is_unknown_proves_nothing(pages):
    """A gateway that pages otherwise must not lead to a second payment."""
    found = search(*pages)
    assert (found.generation_id, found.complete) == (None, False)


@pytest.mark.parametrize(
    "shown",
    [
        {"model": "another"},
        {"type": "upscale"},
        {"images": ["https://x.example/1.png"]},
        {"prompt": ""},
        {"age": None},
    ],
    ids=["model", "endpoint", "number of images", "no prompt", "no time"],
)
def test_what_an_entry_leaves_open_is_a_candidate(shown):
    """A gateway may show other names: such an entry is neither taken nor proof of absence."""
    found = search(page(entry("1", **shown)))
    assert (found.generation_id, found.complete, found.candidates) == (None, False, ("1",))


@pytest.mark.parametrize("model", ["VIDUQ3-PRO", "q3-pro", None])
def test_spellings_of_one_model(model):
    """The list names models with and without their prefix, in any case, or not at all."""
    assert search(page(entry("1", model=model))).generation_id == "1"


@pytest.mark.parametrize(
    ("images", "found", "candidates"),
    [
        (HOSTED["images"], "1", ()),
        (["https://mine.example/1.png", "https://mine.example/9.png"], None, ()),
        (["https://cdn.vidu.example/a", "https://cdn.vidu.example/b"], "1", ()),
        (None, "1", ()),
        (["https://cdn.vidu.example/a"], None, ("1",)),
    ],
    ids=["the same", "others of our host", "kept elsewhere", "not shown", "another number"],
)
def test_images_are_compared_where_they_can_be(images, found, candidates):
    """Equal addresses are proof, others of the same host exclude, those of the service's own say their number."""
    outcome = search(page(entry("1", images=images, type="img2video")), body=HOSTED)
    assert (outcome.generation_id, outcome.candidates) == (found, candidates)
    assert outcome.complete is (not candidates)


def test_inlined_images_say_their_number():
    """A data URI is stored by the service under an address of its own."""
    body = {**BODY, "images": ["data:image/png;base64,AAAA"]}
    assert search(page(entry("1", images=["https://cdn/x"], type="img2video")), body=body).generation_id == "1"


def test_a_create_without_prompt_and_addresses_is_never_guessed():
    """Another user's job of the same kind would be taken for it."""
    found = search(page(entry("1", prompt="", model="")), body={"model": "", "video_creation_id": "7"})
    assert (found.generation_id, found.candidates) == (None, ("1",))


def test_a_payload_of_the_users_own():
    """Without a marker of ours the user's payload decides where it is shown, and the looks where it is not."""
    body = {**BODY, "payload": "mine"}
    entries = [entry("1", payload="mine"), entry("2", payload="other")]
    assert search(page(*entries), body=body, marker=None).generation_id == "1"
    assert search(page(entry("1")), body=body, marker=None).generation_id == "1"


def test_the_marker_alone():
    """What a record of an older version knows: entries that show no payload leave it open."""
    assert search(page(entry("1", payload=MARKER)), body=None).generation_id == "1"
    assert search(page(entry("1")), body=None).candidates == ("1",)
    assert search(EMPTY, EMPTY, body=None).complete


def test_an_empty_answer_to_the_filter_is_checked_without_it():
    """A service that reads the time otherwise hides everything; the list itself then shows it."""
    found = Search(MARKER, since=NOW - 120, until=NOW - 30, like=Likeness.of(BODY, "/text2video"), now=NOW)
    assert "created_at.from" in parse_qs(found.query)
    found.take(EMPTY)
    assert "created_at.from" not in parse_qs(found.query)
    found.take(page(entry("1")))
    assert found.query is None
    assert found.result().generation_id == "1"


def test_a_refused_filter_is_dropped_once():
    """A 400 for the filter leads to the unfiltered list; a second one is the service's last word."""
    found = Search(MARKER, since=NOW, now=NOW)
    assert found.drop_filter()
    assert not found.drop_filter()
    assert not Search(MARKER, now=NOW).drop_filter()


def test_an_order_older_than_the_list_is_never_proven_absent():
    """The list shows seven days."""
    assert not search(EMPTY, EMPTY, since=8 * 86_400).complete
    assert search(page(entry("2", prompt="a dog", age=9 * 86_400)), since=8 * 86_400).complete


def test_a_likeness_is_stored_without_texts():
    """Prompt, addresses and payload are digests; what was stored is read back, nonsense is not."""
    like = Likeness.of({**HOSTED, "payload": "my secret"}, "/ent/v2/img2video?x=1")
    stored = json.dumps(like.to_json())
    assert not any(text in stored for text in ("cat", "1.png", "secret"))
    assert Likeness.from_json(json.loads(stored)) == like
    assert like.kind == "img2video"
    assert Likeness.from_json([]) is None
    assert Likeness.from_json({"images": [["a"], 7, ["h", "d"]]}).images == (("h", "d"),)


def test_a_prompt_that_the_service_replaces_is_not_compared():
    """With ``is_rec`` the service writes the prompt."""
    assert Likeness.of({**BODY, "is_rec": True}).prompt == ""
    assert Likeness.of({"prompt": " a  cat\n"}).prompt == Likeness.of({"prompt": "a cat"}).prompt


@pytest.mark.parametrize(
    "cut",
    [{"payload": "mine… (70000 characters cut out)"}, {"prompt": "a cat… (70000 characters cut out)"}],
    ids=["payload", "prompt"],
)
def test_what_is_cut_cannot_be_compared(cut):
    """An entry too large to be kept whole may be the one, so nothing proves that there is none."""
    body = {**BODY, "payload": "mine" * 20_000}
    found = search(page(entry("9", **cut)), body=body, marker=None)
    assert found.generation_id == "9" if "payload" in cut else (found.complete, found.candidates) == (False, ("9",))


def test_a_prompt_of_combining_characters():
    """Its normal form would take hours, in which no signal ends the worker; it is compared as it is."""
    prompt, began = "\u0316\u0300" * 100_000, time.thread_time()
    like = Likeness.of({"prompt": prompt, "model": "m"})
    assert like.prompt == Likeness.of({"prompt": prompt}).prompt != Likeness.of({"prompt": prompt + "x"}).prompt
    assert time.thread_time() - began < 1
    assert Likeness.of({"prompt": "e\u0301"}).prompt == Likeness.of({"prompt": "\u00e9"}).prompt
