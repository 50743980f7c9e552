"""The state machine, the clock, ranges and signatures: decisions without a socket."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.common import ranges
from airflow_provider_vidu.sandbox import routing
from airflow_provider_vidu.sandbox.messages.calls import ENT, NATIVE
from airflow_provider_vidu.sandbox.world import generations, signing
from airflow_provider_vidu.sandbox.world.clock import Clock
from airflow_provider_vidu.sandbox.world.generations import Generation
from tests.rows import each_row


def words(dialect, prompt="", **spec) -> list[generations.State | None]:
    """Return the status words at whole seconds 0..23 of a generation with queue 4 and duration 16."""
    stages = generations.default_script(dialect, prompt, queue=4, duration=16)
    generation = Generation("x", dialect, 100.0, stages, **spec)
    return [generation.state_at(100.0 + second) for second in range(24)]


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (NATIVE, ["pending", "queued", "processing", "completed"]),
        (ENT, ["created", "queueing", "processing", "success"]),
    ],
)
def test_a_generation_goes_through_the_words_of_its_dialect(dialect, expected) -> None:
    """The words come in order, and progress only grows, from 0 to 100."""
    states = words(dialect)
    assert list(dict.fromkeys(state.word for state in states)) == expected
    progress = [state.progress for state in states]
    assert progress == sorted(progress)
    assert (progress[0], progress[12], progress[19], progress[20]) == (0, 50, 93, 100)


def test_the_final_state_tells_when_it_was_reached() -> None:
    """finished_at is the time of the last stage, however late one asks."""
    assert words(NATIVE)[23].finished_at == 120.0
    assert words(NATIVE)[19].finished_at is None


def test_a_prompt_can_ask_for_failure() -> None:
    """[fail] ends in the word for failure."""
    assert words(ENT, "[fail]")[23].failed


def test_a_prompt_can_ask_for_slowness() -> None:
    """[slow] takes ten times as long."""
    assert words(NATIVE, "a [slow] cat")[23].waiting


def test_a_prompt_can_ask_for_an_unknown_word() -> None:
    """[unknown-state] passes through an unknown word and still succeeds."""
    states = words(NATIVE, "[unknown-state]")
    assert generations.UNKNOWN_WORD in {state.word for state in states}
    assert states[23].succeeded


def test_a_generation_may_be_unknown_at_first() -> None:
    """Before the first stage there is no state: the grace after a create."""
    generation = Generation("x", NATIVE, 100.0, generations.script_from([["pending", 2]]))
    assert generation.state_at(101.0) is None
    assert generation.state_at(102.0).word == "pending"


@each_row("states", [[], ["pending"], [["a", "b"]], [[1, 2]], [["a", 5], ["b", 1]], [["a", True]]])
def test_a_script_that_makes_no_sense_is_refused(states) -> None:
    """Anything but rising pairs of word and seconds is an error."""
    with pytest.raises(ValueError, match=r"state|seconds"):
        generations.script_from(states)


def test_a_preset_names_the_field_it_does_not_know() -> None:
    """A misspelt field is an error rather than silently ignored."""
    with pytest.raises(ValueError, match="'stats'"):
        generations.preset({"id": "x", "stats": []}, now=0, queue=1, duration=1)


@each_row("dialect", ["vidu", "", None, ["ent-v2"]])
def test_a_preset_names_the_dialects_it_knows(dialect) -> None:
    """Anything but the name of a dialect is an error that lists the names."""
    with pytest.raises(ValueError, match="one of vidu-native, ent-v2, not"):
        generations.preset({"id": "x", "dialect": dialect}, now=0, queue=1, duration=1)


def test_the_clock_runs_at_its_speed_and_jumps() -> None:
    """Sandbox time is real time times the speed, plus the jumps, without a leap when the speed changes."""
    real = [0.0]
    clock = Clock(10, source=lambda: real[0], start=1000)
    real[0] = 2.0
    assert clock.now() == 1020
    clock.set_speed(1)
    clock.advance(5)
    real[0] = 3.0
    assert clock.now() == 1026
    with pytest.raises(ValueError, match="0 or more"):
        clock.advance(-1)


def test_sandbox_times_have_their_place_on_the_wall() -> None:
    """Whatever the speed: in order, never in the future, and what a jump skips happened when it jumped."""
    real = [0.0]
    clock = Clock(10, source=lambda: real[0], start=1000)
    assert clock.wall_of(900) == 900
    real[0] = 2.0
    assert (clock.wall_of(1000), clock.wall_of(1010), clock.wall_of(1020), clock.wall_now()) == (1000, 1001, 1002, 1002)
    clock.advance(500)
    assert [clock.wall_of(moment) for moment in (1020, 1021, 1300, 1520)] == [1002] * 4
    clock.set_speed(0)
    real[0] = 5.0
    assert (clock.wall_of(1520), clock.wall_now()) == (1002, 1005)
    clock.advance(10)
    assert (clock.wall_of(1525), clock.wall_of(1530)) == (1005, 1005)
    clock.set_speed(100)
    real[0] = 6.0
    assert (clock.now(), clock.wall_of(1580), clock.wall_of(1630)) == (1630, 1005.5, 1006)


@each_row(
    ("header", "expected"),
    [
        (None, (200, 0, 10)),
        ("bytes=0-0", (206, 0, 1)),
        ("bytes=3-", (206, 3, 10)),
        ("bytes=3-99", (206, 3, 10)),
        ("bytes=-4", (206, 6, 10)),
        ("bytes=-99", (206, 0, 10)),
        ("bytes=10-", (416, 0, 0)),
        ("bytes=-0", (416, 0, 0)),
        ("bytes=5-3", (200, 0, 10)),
        ("bytes=-", (200, 0, 10)),
        ("bytes=0-1,4-5", (200, 0, 10)),
        ("lines=0-1", (200, 0, 10)),
    ],
)
def test_ranges_are_read_as_the_standard_says(header, expected) -> None:
    """Single ranges are honoured, unsatisfiable ones refused, all others ignored."""
    part = ranges.decide(header, None, size=10, etag='"e"', modified="then")
    assert (part.status, part.start, part.stop) == expected


@pytest.mark.parametrize(
    ("if_range", "etag", "status"),
    [('"e"', '"e"', 206), ('"f"', '"e"', 200), ('W/"e"', 'W/"e"', 200), ("then", '"e"', 206), ("now", '"e"', 200)],
)
def test_if_range_needs_a_strong_match(if_range, etag, status) -> None:
    """A part is only sent when the validator is exactly and strongly the same."""
    assert ranges.decide("bytes=1-2", if_range, size=10, etag=etag, modified="then").status == status


def test_a_signature_covers_every_byte_of_path_and_query() -> None:
    """Re-quoting, re-ordering or touching anything breaks it; time runs out."""
    signer = signing.Signer(b"secret")
    path, _, query = signer.sign("/files/ab.mp4", 1000).partition("?")
    assert all(part in query for part in ("filename=video.mp4", ";", "~", "%2F", "%7E"))
    assert signer.problem(path, query, 1000) is None
    assert signer.problem(path, query, 1001) == "AccessDenied"
    for bad in (query.replace("%7E", "~"), query.replace(";", "%3B"), query.replace("%2F", "/"), query + "&a=b"):
        assert signer.problem(path, bad, 0) == "SignatureDoesNotMatch"
    assert signer.problem("/files/ac.mp4", query, 0) == "SignatureDoesNotMatch"
    assert signer.problem(path, "", 0) == "AccessDenied"
    assert signer.sign(path, 1000) != f"{path}?{query}"


@each_row("prefix", ["", "/vidu", "/a/b"])
@each_row("raw_id", ["grok:1", "a%3Ab", "8%5E%5Evidu-2.0", "a%2Fb", "%C3%BC"])
def test_ids_are_found_in_the_raw_path(prefix, raw_id) -> None:
    """Percent escapes survive routing and are decoded once."""
    found = routing.route("GET", f"{prefix}/vidu-native/video/generations/{raw_id}")
    decoded = {"a%3Ab": "a:b", "8%5E%5Evidu-2.0": "8^^vidu-2.0", "a%2Fb": "a/b", "%C3%BC": "ü"}.get(raw_id, raw_id)
    assert (found.kind, found.dialect, found.id) == ("query", NATIVE, decoded)


@each_row(
    ("path", "kind"),
    [
        ("/ent/v2/text2video", "create"),
        ("/vidu/ent/v2/start-end2video", "create"),
        ("/ent/v2/tasks/1/creations", "query"),
        ("/vidu/ent/v2/task/1/creations", "query"),
        ("/ent/v2/tasks/1/cancel", "cancel"),
        ("/ent/v2/tasks", "list"),
        ("/ent/v2/credits", "credits"),
        ("/vidu-native/video/generations", "create"),
        ("/vidu-native/video/generations/1/cancel", "other"),
        ("/ent/v2/one-click/mv", "create"),
        ("/ent/v2/one-click/mv/1", "query"),
        ("/ent/v2/one-click/mv/1/edit", "create"),
        ("/ent/v2/ad-one-click/1", "query"),
        ("/ent/v2/ad-one-click/compose", "create"),
        ("/ent/v2/subjects", "subject"),
        ("/tools/v2/files/uploads", "upload"),
        ("/tools/v2/files/uploads/1/finish", "upload"),
        ("/v1/video/create", "create"),
        ("/v1/video/query", "query"),
        ("/v1/video/generations/a", "query"),
        ("/v1/videos", "create"),
        ("/v1/videos/a/content", "content"),
        ("/ent/v2/nonsense", "other"),
        ("/_sandbox/ledger", "control"),
    ],
)
def test_paths_lead_where_they_should(path, kind) -> None:
    """Every path of both dialects, also under a reseller's prefix, has its kind."""
    assert routing.route("GET", path).kind == kind
