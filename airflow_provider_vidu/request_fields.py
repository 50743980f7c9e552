"""The request that an operator's arguments make, once their templates are rendered: checked before it is paid for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.media_fields import as_list, plain
from airflow_provider_vidu.upstream import filled

if TYPE_CHECKING:
    from airflow_provider_vidu.models import Generation

NAMES: Final = ("prompt", "model", "images", "endpoint", "parameters", "body")

MAX_TOLD_CHARS: Final = 1000
"""What is longer is no parameter that anybody looks up in a result."""


def held(arguments: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the arguments that hold something before their templates are rendered."""
    return frozenset(name for name in NAMES if arguments[name] is not None and arguments[name] not in ([], ()))


def check_endpoint(arguments: Mapping[str, Any]) -> None:
    """Refuse, while the DAG is parsed, a request of the official API's structure that fits several endpoints.

    :param arguments: the arguments by their names in :data:`NAMES`, before their templates are rendered.
    :raises ViduConfigError: naming the choices.
    """
    further = arguments["body"] if arguments["body"] is not None else arguments["parameters"]
    if arguments["endpoint"] is not None or not isinstance(further, Mapping):
        return  # it is named, or known only later
    from airflow_provider_vidu.dialects.endpoints import check_when_parsed

    check_when_parsed({**{name: arguments[name] for name in ("prompt", "model", "images")}, **further})


def request_of(arguments: Mapping[str, Any], expected: Collection[str]) -> dict[str, Any]:
    """Return the body of a create. What its media fields name is not read yet (see :mod:`.media_inputs`).

    :param arguments: the rendered arguments, by their names in :data:`NAMES`.
    :param expected: which of them must hold something: a template that renders to nothing would be paid for.
    :raises ViduConfigError: naming the argument that is wrong, or came from nothing.
    """
    arguments = {name: plain(arguments[name]) for name in NAMES}
    arguments["images"] = as_list("images", arguments["images"])
    for name in NAMES:
        if name in expected:
            _check_present(name, arguments[name])
    if arguments["body"] is not None:
        return _mapping("body", arguments["body"])
    parameters = {} if arguments["parameters"] is None else _mapping("parameters", arguments["parameters"])
    fields: dict[str, Any] = {name: text(name, arguments[name]) for name in ("model", "prompt")}
    if images := arguments["images"]:
        fields["images"] = images
    fields = {name: value for name, value in fields.items() if value is not None}
    if twice := fields.keys() & parameters.keys():
        raise ViduConfigError(f"{', '.join(sorted(twice))} is given twice: as an argument and in parameters.")
    return {**fields, **parameters}


def facts_of_create(generation: Generation, ordered_at: float | None) -> dict[str, Any]:
    """Return what only the answer to a create says, as plain JSON: later answers of ``ent-v2`` lack it.

    :param generation: as the create, or a later query, has answered.
    :param ordered_at: when the order was recorded, in epoch seconds, if the answer holds no time.
    """
    at = generation.created_at
    if at is None and ordered_at:
        at = datetime.fromtimestamp(ordered_at, UTC)
    seed = generation.raw.get("seed")
    facts = {"created_at": at.isoformat() if at else None, "seed": seed if isinstance(seed, int) else None}
    return {name: value for name, value in facts.items() if value}


def completed(
    generation: Generation, arguments: Mapping[str, Any], facts: Mapping[str, Any]
) -> tuple[Generation, dict[str, Any]]:
    """Return a generation with what its order knows and the service does not say again, and its parameters.

    The parameters are the other plain fields of the request. Media, ``payload`` and ``callback_url`` are left out:
    they may hold whole files, or tokens.

    :param generation: what the service says; that wins.
    :param arguments: the rendered arguments, by their names in :data:`NAMES`.
    :param facts: what :func:`facts_of_create` returned, maybe in an earlier process.
    """
    from airflow_provider_vidu.dialects.endpoints import typed

    further = arguments["parameters"] if arguments["body"] is None else arguments["body"]
    fields = {name: arguments[name] for name in ("prompt", "model") if arguments[name] is not None}
    fields |= further if isinstance(further, Mapping) else {}
    parameters = typed({name: value for name, value in fields.items() if _is_parameter(name, value)})
    if facts.get("seed") and not parameters.get("seed"):  # none, or 0, lets the service choose
        parameters["seed"] = facts["seed"]
    return filled(generation, {**fields, "created_at": facts.get("created_at")}), parameters


def _is_parameter(name: object, value: object) -> bool:
    from airflow_provider_vidu.dialects.endpoints import MEDIA_FIELDS

    if name in {"prompt", "model", "payload", "callback_url", *MEDIA_FIELDS}:
        return False
    return isinstance(name, str) and isinstance(value, (str, int, float)) and len(str(value)) <= MAX_TOLD_CHARS


def text(name: str, value: object) -> str | None:
    """Return an argument that is text; a whole number is one that a native template has made of text.

    :raises ViduConfigError: when it is of another type. A fraction is refused, because the text that a native
        template has made it of is gone: ``3.10`` and ``3.1`` are the same number.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        raise ViduConfigError(
            f"{name} is the number {value!r}, not text: render_template_as_native_obj has read its text as a number, "
            "and may have changed it. Put the template into quotation marks of its own (\"'{{ params.x }}'\"), or turn "
            "native rendering off. Nothing was submitted."
        )
    raise ViduConfigError(f"{name} must be text, not {type(value).__name__}.")


def _check_present(name: str, value: object) -> None:
    word = value.strip() if isinstance(value, str) else value
    if word is None or word in ("None", "", [], (), {}):
        told = "the word None" if word == "None" else "None" if word is None else "empty"
        raise ViduConfigError(
            f"{name} is {told}: what it was to be rendered from held nothing. Check the XCom or the param. "
            "Nothing was submitted."
        )


def _mapping(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ViduConfigError(f"{name} must be a JSON object, not {type(value).__name__}.")
    if wrong := [key for key in value if not isinstance(key, str)]:
        raise ViduConfigError(f"{name} must be a JSON object: the name {wrong[0]!r} is no text.")
    return dict(value)
