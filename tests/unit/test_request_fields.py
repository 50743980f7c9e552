"""What an operator's rendered arguments make of a request, and what is not paid for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.request_fields import NAMES, completed, facts_of_create, held, request_of, text

PICTURE = "https://example.com/a.png"


def arguments(**some: Any) -> dict[str, Any]:
    """Return all arguments, those that are not given as None."""
    return {**dict.fromkeys(NAMES), **some}


def test_the_fields_of_the_request():
    """What is given goes into the body, what is left out does not."""
    assert request_of(arguments(prompt="x", images=[PICTURE], parameters={"duration": 4}), ()) == {
        "prompt": "x", "images": [PICTURE], "duration": 4,
    }  # fmt: skip
    assert request_of(arguments(body={"a": None}), ()) == {"a": None}
    assert request_of(arguments(prompt=1984), ()) == {"prompt": "1984"}  # a native template makes numbers of digits


def test_what_held_something_before_rendering():
    """An argument that was left out, or an empty list, need not hold anything afterwards."""
    assert held(arguments(prompt="{{ x }}", images=[], parameters={})) == {"prompt", "parameters"}
    assert request_of(arguments(prompt="x", images=[]), {"prompt"}) == {"prompt": "x"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("nothing", [None, "None", "", "  ", [], {}], ids=repr)
def test_a_template_that_renders_to_nothing_is_not_paid_for(name, nothing):
    """The error names the argument and where to look."""
    given = arguments(**{"prompt": "x", name: nothing}) if name != "body" else arguments(body=nothing)
    with pytest.raises(ViduConfigError, match=rf"{name} is .*Check the XCom or the param. Nothing was submitted"):
        request_of(given, {name})


@pytest.mark.parametrize(("wrong", "message"), [
    ({"prompt": ["a", "b"]}, "prompt must be text, not list"),
    ({"model": {"a": 1}}, "model must be text, not dict"),
    ({"parameters": [1]}, "parameters must be a JSON object, not list"),
    ({"parameters": {5: 1, "x": 2}}, "parameters must be a JSON object: the name 5 is no text"),
    ({"body": "x"}, "body must be a JSON object, not str"),
    ({"images": 5}, "images must be an address, a path or a list of them, not int"),
    ({"images": {"a": PICTURE}}, "images must be an address, a path or a list of them, not dict"),
    ({"images": [None]}, r"images\[0\] holds None: it must be an address or a path"),
    ({"images": [PICTURE, {"url": PICTURE}]}, r"images\[1\] holds .*: it must be an address or a path"),
    ({"images": ["None"]}, r"images\[0\] holds the word None: it must be an address or a path"),
    ({"prompt": "x", "parameters": {"prompt": "y"}}, "prompt is given twice"),
])  # fmt: skip
def test_arguments_of_the_wrong_kind(wrong, message):
    """Each is named, and nothing else is told of."""
    with pytest.raises(ViduConfigError, match=message):
        request_of(arguments(**wrong), ())


@pytest.mark.parametrize("wrong", [True, ["x"], b"x"])
def test_text_is_text(wrong):
    """Anything but text and numbers is refused by name."""
    assert (text("endpoint", None), text("endpoint", "/x"), text("endpoint", 5)) == (None, "/x", "5")
    with pytest.raises(ViduConfigError, match="endpoint must be text"):
        text("endpoint", wrong)


@pytest.mark.parametrize("name", ["prompt", "model", "endpoint"])
def test_text_that_native_rendering_may_have_changed(name):
    """Of 3.1 nobody knows whether it was 3.10; the error says what to write."""
    with pytest.raises(ViduConfigError, match=rf"{name} is the number 3\.1.*quotation marks of its own"):
        text(name, 3.1)


QUERIED = Generation(id="7", status=GenerationStatus.SUCCEEDED)
CREATED = Generation(
    id="7", status=GenerationStatus.WAITING, created_at=datetime(2026, 11, 25, tzinfo=UTC), raw={"seed": 42}
)


def test_what_the_order_knows():
    """Prompt, model, parameters, seed and time are in the result, and nothing that holds files or tokens."""
    ordered = arguments(
        prompt="p", model=2, images=[PICTURE],
        parameters={
            "duration": "4", "seed": 0, "bgm": True, "payload": "mine", "callback_url": "https://h/?token=1",
            "subjects": [{}], "start_image": PICTURE, "style": "x" * 2000, 5: 6,
        },
    )  # fmt: skip
    found, parameters = completed(QUERIED, ordered, facts_of_create(CREATED, None))
    assert (found.prompt, found.model, found.created_at) == ("p", "2", CREATED.created_at)
    assert parameters == {"duration": 4, "seed": 42, "bgm": True}
    body = arguments(body={"prompt": "q", "model": "m", "seed": 5})
    found, parameters = completed(QUERIED, body, facts_of_create(CREATED, None))
    assert (found.prompt, found.model, parameters) == ("q", "m", {"seed": 5})


def test_what_the_service_says_wins():
    """The order only fills what an answer lacks; without a time in the answer that of the order will do."""
    told = QUERIED.model_copy(update={"prompt": "theirs", "model": "theirs", "created_at": CREATED.created_at})
    assert completed(told, arguments(prompt="ours", model="ours"), {"created_at": "2020-01-01"}) == (told, {})
    facts = facts_of_create(QUERIED, CREATED.created_at.timestamp())
    assert completed(QUERIED, arguments(prompt="p"), facts)[0].created_at == CREATED.created_at
    assert completed(QUERIED, arguments(prompt="p"), {})[0].created_at is None
