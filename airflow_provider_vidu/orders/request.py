"""Builds a create's request from an operator's rendered arguments, and checks it before it is paid for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.api.dialects.levels import seed_of
from airflow_provider_vidu.api.endpoints import CONTENT, FLAGS, MEDIA_FIELDS, NUMBERS, typed
from airflow_provider_vidu.api.json_values import as_json
from airflow_provider_vidu.common.artifacts import BESIDE_THE_RESULT, Artifact, family_of
from airflow_provider_vidu.common.text import placeholder_problem
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.orders.arguments import NAMES, OBJECTS, WORD_NONE, is_nothing, is_word_none, leaves
from airflow_provider_vidu.orders.media.fields import as_list, read_json
from airflow_provider_vidu.orders.upstream import filled

if TYPE_CHECKING:
    from airflow_provider_vidu.models import Generation

MAX_PARAMETER_CHARS: Final = 1000
"""Longer values are not repeated as parameters of a result."""


def endpoint_of(arguments: Mapping[str, Any]) -> str | None:
    """Return the endpoint that rendered arguments name, or None; raises ViduConfigError when it is not text."""
    endpoint = text_argument("endpoint", arguments.get("endpoint"))
    return endpoint and endpoint.strip()


def request_of(arguments: Mapping[str, Any], expected: Collection[str]) -> dict[str, Any]:
    """Return the body of a create. Files in its media fields are not read yet (see :mod:`.media`).

    :param arguments: the rendered arguments, by their names in :data:`.arguments.NAMES`.
    :param expected: which of them must hold a value: an empty one, rendered by a template, would be paid for.
    :raises ViduConfigError: naming the argument that is wrong, or empty.
    """
    arguments = {name: as_json(arguments[name]) for name in NAMES}
    arguments["images"] = as_list("images", arguments["images"])
    for name in NAMES:
        if name in expected:
            _check_present(name, arguments[name])
        _check_filled_in(name, arguments[name])
    further = _further(arguments, expected)
    if arguments["body"] is not None:
        return further
    fields: dict[str, Any] = {name: text_argument(name, arguments[name]) for name in ("model", "prompt")}
    if images := arguments["images"]:
        fields["images"] = images
    fields = {name: value for name, value in fields.items() if value is not None}
    if twice := fields.keys() & further.keys():
        raise ViduConfigError(f"{', '.join(sorted(twice))} is given twice: as an argument and in parameters.")
    return {**fields, **further}


def further_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields in ``body``, or else in ``parameters``; none if they are not an object."""
    try:
        name, fields = _object_in({**arguments, **{name: as_json(arguments[name]) for name in OBJECTS}})
    except ViduConfigError:
        return {}
    return _without_nothing(fields, name, ())


def _object_in(arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    name = "parameters" if arguments["body"] is None else "body"
    return name, {} if arguments[name] is None else json_object(name, arguments[name])


def _further(arguments: Mapping[str, Any], expected: Collection[str]) -> dict[str, Any]:
    name, fields = _object_in(arguments)
    if f"{name}.prompt" in expected:
        _check_present(f"{name}.prompt", fields.get("prompt"))
    for field in sorted(CONTENT):
        # Of an upstream task without a result, as of the word None; a template may render one of two to empty text.
        if f"{name}.{field}" in expected and fields.get(field) is None:
            _check_present(f"{name}.{field}", None)
    for where, value in leaves(fields, name):
        # Of a field that is documented as a number or a flag, the word None is not a value.
        is_text = where.rpartition(".")[2] not in NUMBERS | FLAGS
        if is_word_none(value) and not (is_text and f"{where}={WORD_NONE}" in expected):
            _check_present(where, WORD_NONE)
    return _without_nothing(fields, name, expected)


def _without_nothing(fields: dict[str, Any], where: str, expected: Collection[str]) -> dict[str, Any]:
    """Return fields without those that rendered to nothing: an endpoint that does not take them refuses the request.

    The API refuses surplus fields (``FieldUnwanted``) even if they are empty. In ``parameters``, fields that the author
    left empty are omitted, too; ``body`` is the whole request, so there they are sent as written.

    :param expected: the fields that held a value before rendering, see :func:`.arguments.required_arguments`.
    """
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        path = f"{where}.{name}"
        if is_nothing(value) and (where == "parameters" or path in expected):
            continue
        kept[name] = _without_nothing(value, path, expected) if isinstance(value, dict) and value else value
    return kept


def facts_of_create(
    generation: Generation, ordered_at: float | None, arguments: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the facts that a later process cannot retrieve, as plain JSON: later answers of ``ent-v2`` omit them.

    :param generation: the answer to the create, or to a later query.
    :param ordered_at: when the order was recorded, in epoch seconds, in case the answer has no time.
    :param arguments: the rendered arguments of the generation; None if it was submitted with other, unknown ones.
    """
    at = generation.created_at
    if at is None and ordered_at:
        at = datetime.fromtimestamp(ordered_at, UTC)
    facts = {
        "created_at": at.isoformat() if at else None,
        "credits": generation.credits,
        "seed": seed_of(generation.raw),
        "asked": "others" if arguments is None else _terms_digest(arguments),
    }
    return {name: value for name, value in facts.items() if value}


def completed(
    generation: Generation, arguments: Mapping[str, Any], facts: Mapping[str, Any]
) -> tuple[Generation, dict[str, Any]]:
    """Return a generation completed with its order's facts that the service does not repeat, and its parameters.

    The parameters are the other plain fields of the request. Media, ``payload`` and ``callback_url`` are omitted: they
    may hold whole files, or tokens. If the arguments are not those of the order (``{{ ti.try_number }}`` may render
    differently each time), they do not describe the generation, and nothing is filled in.

    :param facts: the return value of :func:`facts_of_create`, possibly from an earlier process.
    """
    is_same = facts.get("asked") in (None, _terms_digest(arguments))  # earlier versions did not record it
    fields, parameters = _terms(arguments) if is_same else ({}, {})
    if facts.get("seed") and not parameters.get("seed"):  # None, or 0, lets the service choose
        parameters["seed"] = facts["seed"]
    known = {name: facts.get(name) for name in ("created_at", "credits")}
    return filled(generation, {**fields, **known}), parameters


def terms_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return model and parameters of a request as a result repeats them."""
    fields, parameters = _terms(arguments)
    return {"model": fields.get("model"), "parameters": parameters}


def _terms(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of a request that a result repeats, and those of them that are parameters."""
    fields = {name: as_json(arguments[name]) for name in ("prompt", "model") if arguments[name] is not None}
    fields |= further_fields(arguments)
    return fields, typed({name: value for name, value in fields.items() if _is_parameter(name, value)})


def _terms_digest(arguments: Mapping[str, Any]) -> str:
    fields, parameters = _terms(arguments)
    terms = [str(fields.get("prompt")), str(fields.get("model")), parameters]
    return hashlib.sha256(json.dumps(terms, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _is_parameter(name: object, value: object) -> bool:
    if name in {"prompt", "model", "payload", "callback_url", *MEDIA_FIELDS}:
        return False
    return isinstance(name, str) and isinstance(value, (str, int, float)) and len(str(value)) <= MAX_PARAMETER_CHARS


def text_argument(name: str, value: object) -> str | None:
    """Return an argument that is text, or a member of an enum of texts; a whole number becomes its digits.

    :raises ViduConfigError: when it is of another type. A fraction is refused, because its original text is lost:
        ``3.10`` and ``3.1`` are the same number.
    """
    value = as_json(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        raise ViduConfigError(
            f"{name} is the number {value!r}, not text, and its original text (such as 3.10) is lost. Make the param "
            "or the XCom that it comes from a text. Nothing was submitted."
        )
    raise ViduConfigError(f"{name} must be text, not {type(value).__name__}.")


def _check_present(name: str, value: object) -> None:
    word = value.strip() if isinstance(value, str) else value
    if word is None or word in ("None", "", [], (), {}):
        content = "the word None" if word == "None" else "None" if word is None else "empty"
        raise ViduConfigError(
            f"{name} is {content}: check the XCom or the param that it is templated from. Nothing was submitted."
        )


def _check_filled_in(name: str, value: object) -> None:
    for where, text in leaves(value, name):
        if isinstance(text, str) and (problem := placeholder_problem(text)):
            raise ViduConfigError(f"{where} {problem} Nothing was submitted.")


def json_object(name: str, value: object) -> dict[str, Any]:
    """Return an argument that holds a JSON object, or the text of one.

    :raises ViduConfigError: when it does not.
    """
    if isinstance(value, str) and value.strip().startswith("{"):
        value = read_json(name, value, "object")
    if not isinstance(value, Mapping):
        raise ViduConfigError(f"{name} must be a JSON object, not {type(value).__name__}.")
    if wrong := [key for key in value if not isinstance(key, str)]:
        raise ViduConfigError(f"{name} must be a JSON object: the name {wrong[0]!r} is not text.")
    return dict(value)


def check_product(medium: str | None, artifact: Artifact | None) -> None:
    """Refuse, before it is paid for, a product whose file could not be kept.

    A picture may be kept as a ``video``: animated results come as GIF or WebP. Whether a product has other files beside
    its result, only its answer shows.

    :param medium: of the product's result; ``none`` if it has no file, None if it is unknown.
    :raises ViduConfigError: naming the argument.
    """
    family = family_of(artifact)
    if medium == "none":
        raise ViduConfigError(
            "This product has no file to store: use ViduGenerateOperator without destination. Nothing was submitted."
        )
    if medium is None or family is None or artifact in BESIDE_THE_RESULT or family == medium:
        return
    if (family, medium) != ("video", "image"):
        raise ViduConfigError(
            f"artifact {artifact!r} cannot be kept of this product, whose result is of another medium ({medium}). Omit "
            "artifact to keep it. Nothing was submitted."
        )
