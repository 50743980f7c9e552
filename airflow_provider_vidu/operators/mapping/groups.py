"""A task inside a mapped group, as if the task itself were mapped over what the group's instances get.

A group hands its values to its tasks as placeholders, each of which names a key of what the group is mapped over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, Final

from airflow_provider_vidu.operators.mapping.templates import is_same_in
from airflow_provider_vidu.stores.paths import is_template

MOST_COMPARED: Final = 5_000
"""Instances whose arguments are compared: expand() makes one for each combination."""
_NAMES: Final = frozenset({"destination", "batch"})
"""Arguments of which the template itself is compared, rather than its value."""


class OwnReference:
    """A reference to a generation, by a text that is equal for two instances of a group only if they share it."""

    def __init__(self, identity: str) -> None:
        self._identity = identity

    def __repr__(self) -> str:
        return self._identity

    def resolve(self, context: Any) -> OwnReference:
        """Return the reference itself, where one of Airflow's returns a value: to compare it, none is needed."""
        return self


def mapped_group_of(task: Any) -> Any:
    """Return the mapped group that a task is in; None for a task outside of one, or that is itself mapped."""
    find = getattr(task, "get_closest_mapped_task_group", None)
    return None if find is None or getattr(task, "expand_input", None) is not None else find()


def inputs_of(group: Any) -> Any:
    """Return what a group is mapped over: lists by name, or a list of rows."""
    return getattr(getattr(group, "_expand_input", None), "value", None)


def same_in_group(task: Any, group: Any) -> dict[str, Any]:
    """Return the arguments of a task that are the same in all instances of its group."""
    varied = _varied(task, group)
    return {name: value for name, value in _arguments_of(task).items() if name not in varied}


def expanded_in_group(task: Any, group: Any, inputs: Any) -> Any:
    """Return what a task would be mapped over if it were mapped itself, in the form of ``expand()`` or its rows.

    :param inputs: what the group is mapped over, with the lists of upstream tasks if they could be read.
    :return: a reference, which shows nothing, if the values of the instances cannot be distinguished.
    """
    varied = _varied(task, group)
    if (rows := _rows_of(inputs)) is not None:
        return [
            {name: _filled(value, row, index, group) for name, value in varied.items()}
            for index, row in enumerate(rows)
        ]
    handed = {name: value._key for name, value in varied.items() if is_handed(value)}
    own = {name: _filled(value, {}, 0, group) for name, value in varied.items() if name not in handed}
    is_plain = all(isinstance(value, OwnReference) for value in own.values())
    if not isinstance(inputs, Mapping) or len(set(handed.values())) < len(handed) or not is_plain:
        return OwnReference("the values of the group")
    others = {f"{key} of the group": value for key, value in inputs.items() if key not in handed.values()}
    return {**others, **{name: inputs[key] for name, key in handed.items()}, **own}


def _arguments_of(task: Any) -> dict[str, Any]:
    """Return the arguments of a task as its attributes hold them before templates are rendered."""
    names: Iterable[str] = getattr(task, "_BaseOperator__init_kwargs", ())
    return {name: value for name in names if (value := vars(task).get(name)) is not None}


def _varied(task: Any, group: Any) -> dict[str, Any]:
    """Return the arguments of a task that may differ between the instances of its group."""
    return {
        name: value
        for name, value in _arguments_of(task).items()
        if _varies(value, group) and not (name in _NAMES and isinstance(value, str))
    }


def _rows_of(inputs: Any) -> list[Mapping[str, Any]] | None:
    """Return the values of each instance of a group; None if they are not all known."""
    if isinstance(inputs, Mapping):
        lists = [value for value in inputs.values() if isinstance(value, (list, tuple))]
        if len(lists) < len(inputs) or prod(map(len, lists)) > MOST_COMPARED:
            return None
        return [dict(zip(inputs, values, strict=True)) for values in product(*lists)]
    if isinstance(inputs, (list, tuple)) and all(isinstance(row, Mapping) for row in inputs):
        return list(inputs[:MOST_COMPARED]) if len(inputs) <= MOST_COMPARED else None
    return None


def is_handed(value: object) -> bool:
    """Whether this is Airflow's placeholder (``MappedArgument``) for a value that a group hands to its tasks."""
    return hasattr(value, "_key") and hasattr(value, "_input")


def _upstream_in(value: Any, group: Any) -> Any:
    """Return the task of the same group to which a value refers; None if there is none."""
    if is_handed(value) or not hasattr(value, "iter_references"):
        return None
    groups = ((task, mapped_group_of(task)) for task, _ in value.iter_references())
    return next((task for task, its in groups if its is not None and its.group_id == group.group_id), None)


def _varies(value: Any, group: Any) -> bool:
    """Whether an argument may differ between the instances of a group."""
    if isinstance(value, str):
        return is_template(value) and is_same_in(value) is not True
    if isinstance(value, Mapping):
        return any(_varies(one, group) for one in value.values())
    if isinstance(value, Sequence):
        return any(_varies(one, group) for one in value)
    return is_handed(value) or _upstream_in(value, group) is not None


def _filled(value: Any, row: Mapping[str, Any], index: int, group: Any) -> Any:
    """Return an argument of one instance of a group, with what the group hands in.

    :param row: the group's values for the instance.
    :param index: the instance's.
    """
    if isinstance(value, str):
        return OwnReference(f"{value} {index}") if is_template(value) and is_same_in(value) is False else value
    if isinstance(value, Mapping):
        return {key: _filled(one, row, index, group) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [_filled(one, row, index, group) for one in value]
    if is_handed(value):
        return row.get(value._key, value)
    if (upstream := _upstream_in(value, group)) is None:
        return value
    given = _arguments_of(upstream)
    source = given.get("generation_id", given.get("generation"))
    if source is None:  # it orders a generation of its own
        return OwnReference(f"{value!r} {index}")
    filled = _filled(source, row, index, group)  # it waits for one
    is_unknown = is_handed(filled) or (isinstance(filled, str) and is_template(filled))
    return value if is_unknown else OwnReference(repr(filled))
