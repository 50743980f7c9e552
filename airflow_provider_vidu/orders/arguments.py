"""The arguments of a create as a DAG's author writes them: which are given, and what is wrong with them at parse time.

How they become a request is decided when the task runs, by :mod:`.request`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from airflow_provider_vidu.api.endpoints import check_when_parsed
from airflow_provider_vidu.exceptions import ViduConfigError

OnClear = Literal["new", "resume"]

NAMES: Final = ("prompt", "model", "images", "endpoint", "parameters", "body")

OBJECTS: Final = ("parameters", "body")
WORD_NONE: Final = "None"


def required_arguments(arguments: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the arguments that hold a value before their templates are rendered.

    ``body.prompt`` and ``parameters.subjects[0].name`` stand for fields within them; a trailing ``=None`` marks a field
    that the author set to that word.
    """
    found = {name for name in NAMES if _holds(arguments[name])}
    for name in OBJECTS:
        for where, value in leaves(arguments[name], name):
            # An empty prompt is refused even if the author, or an upstream task, left it empty.
            if where != name and (not is_nothing(value) or (where == f"{name}.prompt" and value == "")):
                found.add(f"{where}={WORD_NONE}" if is_word_none(value) else where)
    return frozenset(found)


def _holds(value: object) -> bool:
    # Only these are checked for emptiness: an array has no truth value, and an XCom none yet.
    return value is not None and not (isinstance(value, (list, tuple, dict)) and not value)


def is_word_none(value: object) -> bool:
    """Whether a value is the word None, to which a template renders None."""
    return isinstance(value, str) and value.strip() == WORD_NONE


def leaves(value: object, where: str) -> Iterator[tuple[str, object]]:
    """Yield the values within an object or a list, each with the path of its field."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, f"{where}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, f"{where}[{index}]")
    else:
        yield where, value


def arguments_of(task: object) -> dict[str, Any]:
    """Return the arguments of a task's request, by their names in :data:`NAMES`, as written or as rendered.

    :param task: an operator that has them as attributes.
    """
    return {name: getattr(task, name) for name in NAMES}


def is_nothing(value: object) -> bool:
    """Whether a value is empty, None or blank."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, (list, tuple, dict)) and not value)


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse at parse time arguments that contradict each other, or that are nothing to submit.

    :param arguments: as written, by their names in :data:`NAMES`.
    :raises ViduConfigError: naming the arguments.
    """
    others = [arguments[name] is not None for name in ("prompt", "images", "parameters")]
    if arguments["body"] is not None and (any(others) or arguments["model"] is not None):
        raise ViduConfigError("body replaces prompt, model, images and parameters: give one or the other.")
    if arguments["body"] is None and not any(others):
        raise ViduConfigError("There is nothing to submit: give prompt, images, parameters or body.")
    check_endpoint(arguments)


def check_endpoint(arguments: Mapping[str, Any]) -> None:
    """Refuse at parse time a request of the official API's structure that fits several endpoints.

    :raises ViduConfigError: naming the choices.
    """
    further = arguments["body"] if arguments["body"] is not None else arguments["parameters"]
    if arguments["endpoint"] is not None or not isinstance(further, Mapping):
        return  # the endpoint is named, or the fields are known only later
    check_when_parsed({**{name: arguments[name] for name in ("prompt", "model", "images")}, **further})
