"""What distinguishes a clip on its card, from whatever stands in the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_vidu.ui.clips.cards import card_facts, in_order, label_key
from airflow_provider_vidu.ui.clips.facts import Clip, TaskFacts, with_result
from airflow_provider_vidu.ui.clips.xcoms import (
    MAX_PARAMETERS,
    MAX_PROMPT_CHARS,
    fields_in,
    parameters_in,
    prompt_start,
)
from tests.rows import each_row

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def clip(**known) -> Clip:
    """Return a clip of one task."""
    return Clip("g", [TaskFacts("d", "r", "t", -1, "g", **{"announced_at": NOW, **known})])


@pytest.mark.parametrize(
    ("holder", "shown"),
    [
        ({"seed": 3, "resolution": "720p", "bgm": False}, {"seed": 3, "resolution": "720p", "bgm": False}),
        ({"images": ["x"], "payload": "m", "prompt": "p", "model": "m"}, {}),
        ({"style": "https://x.example/y", "mood": "x" * 61, "x" * 61: 1, "nan": float("nan")}, {}),
        ("text", {}),
        (None, {}),
    ],
)
def test_the_parameters_of_a_request(holder, shown):
    """Short plain values are parameters; prompts, media, markers, addresses and what is not a number are not."""
    assert parameters_in(holder) == shown
    assert len(parameters_in({str(number): number for number in range(99)})) == MAX_PARAMETERS


def test_the_seed_that_the_service_chose():
    """A seed of 0 lets the service choose: the card shows its choice, from the result or from the note."""
    noted = clip(watch={"seed": 4711}, fields=fields_in({"parameters": {"seed": 0, "duration": 4}}))
    assert card_facts(noted, None)["parameters"] == {"seed": 4711, "duration": 4}
    result = {"id": "g", "status": "succeeded", "parameters": {"seed": 12}}
    task = with_result(TaskFacts("d", "r", "t", -1, "g"), result, NOW)
    assert card_facts(Clip("g", [task]), task.generation)["parameters"] == {"seed": 12}


def test_no_beginning_looks_like_the_whole_prompt():
    """A cut prompt ends with an ellipsis, no matter where it was cut."""
    cut = "Truncated. You can change this behaviour in [core]max_templated_field_length. 'A kite ..."
    assert fields_in({"prompt": cut})["prompt"] == "A kite …"
    assert prompt_start("x" * MAX_PROMPT_CHARS) == "x" * MAX_PROMPT_CHARS
    assert str(prompt_start("x" * (MAX_PROMPT_CHARS + 1))).endswith("x…")
    assert prompt_start(None) is None


@each_row("price", ["much", None, -5, [1], 10**12, float("nan"), True])
def test_a_price_is_a_number(price):
    """What a note holds instead of a price is none."""
    assert clip(watch={"credits": price}).credits is None


@each_row(
    "labels",
    [
        ["1", "2", "10", "100"],
        ["scene 1", "scene 2", "scene 10", "scene 10b"],
        ["2 kites", "10 kites", "12 boats", "kites 9", "kites 10"],
        ["2026-01-02", "2026-01-10", "", "take", "take 0"],
    ],
)
def test_a_number_in_a_label_counts_as_one(labels):
    """At its beginning and at its end; they were sorted as text: 1, 10, 100, 2."""
    assert sorted(sorted(labels, reverse=True), key=label_key) == labels
    clips = [clip(label=label) for label in reversed(labels) if label]
    assert [each.main.label for each in in_order(clips, "label")] == [label for label in labels if label]


def test_what_is_unknown_comes_last():
    """In each order; clips that are equal stay in the order of their scenes."""
    clips = [
        clip(watch={"credits": price}, label=label, state=state, announced_at=NOW + timedelta(seconds=second))
        for price, label, state, second in [(None, None, None, 0), (40, "b", "failed", 1), (80, "a", None, 2)]
    ]
    first, second, third = clips
    assert in_order(clips, "scene") == clips
    assert in_order(clips, "newest") == in_order(clips, "cost") == in_order(clips, "label") == [third, second, first]
    assert in_order(clips, "state") == [second, first, third]
