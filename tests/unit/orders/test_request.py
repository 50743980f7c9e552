"""What an operator's rendered arguments make of a request, and what is not paid for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task_group

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.orders.arguments import NAMES, required_arguments
from airflow_provider_vidu.orders.request import (
    check_product,
    completed,
    facts_of_create,
    further_fields,
    request_of,
    text_argument,
)
from airflow_provider_vidu.stores.paths import checked_destination
from tests.rows import each_row
from tests.versions import AIRFLOW

if AIRFLOW >= (3, 0):
    from airflow.providers.standard.operators.empty import EmptyOperator
else:
    from airflow.operators.empty import EmptyOperator

PICTURE = "https://example.com/a.png"


class Array:
    """As numpy has it: it cannot be asked whether it is empty."""

    def __eq__(self, other: object) -> Any:
        raise ValueError("The truth value of an array is ambiguous.")

    __hash__ = None  # type: ignore[assignment]


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


def test_the_text_of_an_object_is_that_object():
    """A template with the filter tojson makes one; the wait of an off-peak request is known from it, too."""
    given = arguments(prompt="x", parameters=' {"duration": 4, "off_peak": true}\n')
    assert request_of(given, ()) == {"prompt": "x", "duration": 4, "off_peak": True}
    assert further_fields(given) == {"duration": 4, "off_peak": True}
    assert request_of(arguments(body='{"a": [1]}'), ()) == {"a": [1]}
    assert further_fields(arguments(parameters="nonsense")) == {}


@each_row(("name", "before", "after", "where"), [
    ("body", {"prompt": "{{ x }}"}, {"prompt": "None"}, "body.prompt is the word None"),
    ("body", {"prompt": "{{ x }}"}, {"prompt": None}, "body.prompt is None"),
    ("body", {"prompt": "{{ x }}"}, {"prompt": " "}, "body.prompt is empty"),
    ("parameters", {"prompt": "{{ x }}"}, {"prompt": ""}, "parameters.prompt is empty"),
    ("parameters", {"seed": "{{ x }}"}, {"seed": "None"}, "parameters.seed is the word None"),
    ("parameters", {"images": "{{ x }}"}, {"images": None}, "parameters.images is None"),
    ("body", {"images": [PICTURE], "template": "{{ x }}"}, {"images": [PICTURE], "template": None}, "body.template is"),
    ("body", {"prompt": "a", "images": "{{ x }}"}, {"prompt": "a", "images": None}, "body.images is None"),
    ("body", {"text": "a", "audio_url": "{{ x }}"}, {"text": "a", "audio_url": None}, "body.audio_url is None"),
    ("parameters", {"subjects": [{"name": "{{ x }}"}]}, {"subjects": [{"name": "None"}]}, r"subjects\[0\].name is"),
])  # fmt: skip
def test_a_template_within_the_request_that_renders_to_nothing(name, before, after, where):
    """A prompt in ``body``, or any field, is not paid for as the word None; what the author writes so is sent."""
    with pytest.raises(ViduConfigError, match=f"{where}.*Nothing was submitted"):
        request_of(arguments(**{name: after}), required_arguments(arguments(**{name: before})))
    literal = {"style": "None", "subjects": [{"name": "None"}]}
    assert request_of(arguments(**{name: literal}), required_arguments(arguments(**{name: literal}))) == literal


@pytest.mark.fault(
    "from Airflow", "a number in parameters has rendered to nothing", outcome="refused", says="seed is the word None"
)
@pytest.mark.parametrize("name", ["parameters", "body"])
def test_a_number_that_is_the_word_none(name):
    """No number and no flag has that value, even if the author wrote it; another field that has it excuses none."""
    for fields in ({"seed": "None"}, {"style": "None", "seed": " None "}, {"subjects": [{"seed": "None"}]}):
        with pytest.raises(ViduConfigError, match="seed is the word None"):
            request_of(arguments(**{name: fields}), required_arguments(arguments(**{name: fields})))
    before, after = {"style": "None", "voice_id": "{{ x }}"}, {"style": "None", "voice_id": "None"}
    with pytest.raises(ViduConfigError, match="voice_id is the word None"):
        request_of(arguments(**{name: after}), required_arguments(arguments(**{name: before})))


@pytest.mark.parametrize("nothing", [None, "", " ", [], {}], ids=repr)
def test_a_field_that_has_rendered_to_nothing_is_not_sent(nothing):
    """An endpoint that does not take it would refuse the request; what the author wrote into a body stays."""
    before = {"a": 1, "style": "{{ x }}", "subjects": [{"name": "n"}], "settings": {"voice_id": "{{ x }}", "b": 2}}
    after = {"a": 1, "style": nothing, "subjects": [{"name": "n"}], "settings": {"voice_id": nothing, "b": 2}}
    wanted = {"a": 1, "subjects": [{"name": "n"}], "settings": {"b": 2}}
    for name in ("parameters", "body"):
        assert request_of(arguments(**{name: after}), required_arguments(arguments(**{name: before}))) == wanted
    written = arguments(body={"a": nothing})
    assert request_of(written, required_arguments(written)) == {"a": nothing}
    before, after = {"text": "{{ x }}", "audio_url": "{{ y }}"}, {"text": "t", "audio_url": nothing}
    if nothing is not None:  # one of two; None is what an upstream task without a result leaves
        assert request_of(arguments(body=after), required_arguments(arguments(body=before))) == {"text": "t"}
    written = arguments(parameters={"images": nothing, "a": 0, "b": False})
    assert request_of(written, required_arguments(written)) == {"a": 0, "b": False}


def test_what_held_something_before_rendering():
    """An argument that was left out, or an empty list or object, need not hold anything afterwards."""
    assert required_arguments(arguments(prompt="{{ x }}", images=[], parameters={})) == {"prompt"}
    assert required_arguments(arguments(images=Array())) == {"images"}
    assert request_of(arguments(prompt="x", images=[], parameters={}), {"prompt"}) == {"prompt": "x"}


@each_row("name", NAMES)
@each_row("nothing", [None, "None", "", "  ", [], {}], ids=repr)
def test_a_template_that_renders_to_nothing_is_not_paid_for(name, nothing):
    """The error names the argument and where to look."""
    given = arguments(**{"prompt": "x", name: nothing}) if name != "body" else arguments(body=nothing)
    with pytest.raises(ViduConfigError, match=rf"{name} is .*check the XCom or the param .*Nothing was submitted"):
        request_of(given, {name})


@each_row(("wrong", "message"), [
    ({"prompt": ["a", "b"]}, "prompt must be text, not list"),
    ({"model": {"a": 1}}, "model must be text, not dict"),
    ({"parameters": "{'duration': 4}"}, "parameters is not valid JSON: .*tojson"),
    ({"parameters": [1]}, "parameters must be a JSON object, not list"),
    ({"parameters": {5: 1, "x": 2}}, "parameters must be a JSON object: the name 5 is not text"),
    ({"body": "x"}, "body must be a JSON object, not str"),
    ({"images": 5}, "images must be an address, a path or a list of them, not int"),
    ({"images": {"a": PICTURE}}, "images must be an address, a path or a list of them, not dict"),
    ({"images": [None]}, r"images\[0\] holds None: it must be an address or a path"),
    ({"images": [PICTURE, {"url": PICTURE}]}, r"images\[1\] holds .*: it must be an address or a path"),
    ({"images": ["None"]}, r"images\[0\] holds the word None: it must be an address or a path"),
    ({"prompt": "x", "parameters": {"prompt": "y"}}, "prompt is given twice"),
])  # fmt: skip
def test_arguments_of_the_wrong_kind(wrong, message):
    """Each is named, and nothing else is."""
    with pytest.raises(ViduConfigError, match=message):
        request_of(arguments(**wrong), ())


@pytest.mark.parametrize("wrong", [True, ["x"], b"x"])
def test_text_is_text(wrong):
    """Anything but text and numbers is refused by name."""
    assert [text_argument("endpoint", value) for value in (None, "/x", 5)] == [None, "/x", "5"]
    with pytest.raises(ViduConfigError, match="endpoint must be text"):
        text_argument("endpoint", wrong)


@pytest.mark.parametrize("name", ["prompt", "model", "endpoint"])
def test_a_fraction_is_not_written_out(name):
    """The text of 3.1 may have been 3.10; the error says what to change."""
    with pytest.raises(ViduConfigError, match=rf"{name} is the number 3\.1, not text.*Make the param or the XCom"):
        text_argument(name, 3.1)


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
            "subjects": [{}], "start_image": PICTURE, "style": "x" * 2000,
        },
    )  # fmt: skip
    found, parameters = completed(QUERIED, ordered, facts_of_create(CREATED, None, ordered))
    assert (found.prompt, found.model, found.created_at) == ("p", "2", CREATED.created_at)
    assert parameters == {"duration": 4, "seed": 42, "bgm": True}
    body = arguments(body={"prompt": "q", "model": "m", "seed": 5})
    found, parameters = completed(QUERIED, body, facts_of_create(CREATED, None, body))
    assert (found.prompt, found.model, parameters) == ("q", "m", {"seed": 5})


@each_row(
    "answer",
    [
        {"seed": 42},
        {"seed": "42"},
        {"code": "success", "data": {"task_id": "7", "state": "created", "seed": 42}},
        {"code": "success", "data": '{"id": "7", "state": "created", "seed": 42}'},
        {"status": "success", "data": {"task_id": "7", "status": "QUEUED", "data": {"seed": 42}}},
    ],
)
def test_the_seed_that_the_service_chose_is_found_in_an_envelope(answer):
    """Only the create's answer has it, and a gateway may wrap that."""
    facts = facts_of_create(CREATED.model_copy(update={"raw": answer}), None, arguments(prompt="p"))
    assert facts["seed"] == 42


def test_arguments_of_another_rendering_say_nothing():
    """A prompt that differs with each try, or with each leg of it, is not passed off as that of the generation."""
    first, again = arguments(prompt="take 1", model="m"), arguments(prompt="take 2", model="m")
    for facts in (facts_of_create(CREATED, None, first), facts_of_create(CREATED, None, None)):
        found, parameters = completed(QUERIED, again, facts)
        assert (found.prompt, found.model, found.created_at) == (None, None, CREATED.created_at)
        assert parameters == {"seed": 42}
    assert completed(QUERIED, first, facts_of_create(CREATED, None, first))[0].prompt == "take 1"


def test_what_the_service_says_wins():
    """The order only fills what an answer lacks; without a time in the answer that of the order will do."""
    told = QUERIED.model_copy(update={"prompt": "theirs", "model": "theirs", "created_at": CREATED.created_at})
    assert completed(told, arguments(prompt="ours", model="ours"), {"created_at": "2020-01-01"}) == (told, {})
    facts = facts_of_create(QUERIED, CREATED.created_at.timestamp(), arguments(prompt="p"))
    assert completed(QUERIED, arguments(prompt="p"), facts)[0].created_at == CREATED.created_at
    assert completed(QUERIED, arguments(prompt="p"), {})[0].created_at is None


@each_row(
    ("medium", "artifact", "problem"),
    [
        ("none", None, "has no file"),
        ("none", "cover", "has no file"),
        ("audio", "video", "of another medium"),
        ("audio", "image", "of another medium"),
        ("video", "audio", "of another medium"),
        ("video", "image", "of another medium"),
        ("image", "audio", "of another medium"),
        ("image", "video", None),  # animated
        ("video", "video", None),
        ("audio", None, None),
        ("audio", "cover", None),
        ("video", "speech", None),
        (None, "video", None),
    ],
)
def test_what_could_not_be_kept_is_refused(medium, artifact, problem):
    """As far as the product shows it; the bytes decide the rest."""
    if problem is None:
        check_product(medium, artifact)
        return
    with pytest.raises(ViduConfigError, match=problem):
        check_product(medium, artifact)


@each_row("field", ["prompt", "images", "parameters", "body"])
def test_the_placeholder_of_a_value_is_not_paid_for(field):
    """An f-string in a mapped task group held it, and each instance ordered, and paid for, its representation."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        above = EmptyOperator(task_id="above").output
        texts = [f"a film of {above.map(str)}", f"a film of {above.zip(above)}"]

        @task_group
        def films(p):
            texts.append(f"a film of {p}")
            EmptyOperator(task_id="t")

        films.expand(p=["a", "b"])
        films.expand_kwargs([{"p": "a"}])
    assert len(texts) == 4
    for text in texts:
        value = {"prompt": text, "images": [text], "parameters": {"a": [{"b": text}]}, "body": {"prompt": text}}
        with pytest.raises(ViduConfigError, match=f"^{field}.* holds Airflow's placeholder"):
            request_of({**dict.fromkeys(NAMES), field: value[field]}, ())
        with pytest.raises(ViduConfigError, match="placeholder"):
            checked_destination(f"s3://bucket/{text}/")


@pytest.mark.parametrize("text", ["a lazy sequence", "XComArg", "MappedArgument", "a map(per)"])
def test_a_text_about_airflow_is_no_placeholder(text):
    """It is a prompt like any other."""
    assert request_of({**dict.fromkeys(NAMES), "prompt": text}, ())["prompt"] == text
