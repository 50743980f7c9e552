"""The arguments of a mapped task's instances: which the DAG or an upstream task gives to each of them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice, product
from types import UnionType
from typing import Any, Final, TypeGuard

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.defaults import DEFAULT_CONN_ID
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.operators.mapping.groups import (
    MOST_COMPARED,
    OwnReference,
    expanded_in_group,
    inputs_of,
    mapped_group_of,
    same_in_group,
)
from airflow_provider_vidu.orders.arguments import NAMES
from airflow_provider_vidu.stores.paths import path_text
from airflow_provider_vidu.tasks.mapped import defaults_of, makes_own

log = logging.getLogger(__name__)

_CONNECTIONS: Final = frozenset({"storage_conn_id", "vidu_conn_id"})

_NEVER_OMITTED: Final = frozenset({"max_credits", "budget", "destination"})
"""Arguments that a row from another task does not omit by holding None."""


def mapped_to_nothing(operator: Any, context: Any) -> set[str]:
    """Return the arguments that a task is mapped over and that are None in this instance, as an upstream task has it.

    A None that the author has written into the DAG's own list, or into a row of it, is meant.

    :param operator: the instance of the mapped operator.
    :param context: its task's context.
    """
    task = task_in_dag(operator, context)
    if isinstance(expanded := expanded_of(task), Mapping):
        listed = ((name, is_listed(value) and any(one is None for one in value)) for name, value in expanded.items())
        given = {name for name, is_meant in listed if not is_meant}
    elif expanded is None:
        return set()
    else:
        given = _given_in_row(expanded, operator, task, context)
    return {name for name in given if getattr(operator, name, None) is None}


def _given_in_row(expanded: Any, operator: Any, task: Any, context: Any) -> set[str]:
    """Return the arguments in a row of ``expand_kwargs`` of which None is not meant.

    In a row of the DAG, these are all that the author has filled in. In one that comes from another task, an empty
    field counts as omitted, as in a row of a batch, unless that would remove a limit, or lose the file.
    """
    index = map_index_of(context)
    is_in_list = is_listed(expanded) and 0 <= index < len(expanded)
    if is_in_list and isinstance(row := expanded[index], Mapping):
        return {name for name, value in row.items() if value is not None}
    # What Airflow has made the instance of: the row, the arguments of all instances, and the DAG's defaults.
    passed = getattr(operator, "_BaseOperator__init_kwargs", {})
    known = (set(passed) & _NEVER_OMITTED) - set(partial_of(task))
    if mapped_group_of(task) is not None:  # which hands in a placeholder; a None is the author's
        known = {name for name in known if passed[name] is not None}
    elif makes_own(task):  # and passes on a None of its own for what it names, unless it is that of an unknown field
        found = _resolved(expanded[index] if is_in_list else expanded, context, Mapping if is_in_list else Sequence)
        row = found[index] if isinstance(found, Sequence) and 0 <= index < len(found) else found
        empty = {name for name, value in row.items() if value is None} if isinstance(row, Mapping) else known
        known = known if empty - known - set(NAMES) else known & empty
    defaults = getattr(context.get("dag"), "default_args", None) or {}
    return {name for name in known if name not in defaults or defaults[name] is not None}


def check_mapped(operator: Any, context: Any, names: Collection[str]) -> None:
    """Refuse an instance of a mapped task that an upstream task has given no value for an argument.

    Without it, the task would do something else: spend without its limit, or order another product.

    :param names: of the arguments that matter.
    :raises ViduConfigError: naming the argument.
    """
    if lost := mapped_to_nothing(operator, context).intersection(names):
        raise ViduConfigError(f"{min(lost)} is None: check the XCom that it is mapped over. Nothing was submitted.")


def destinations_of(task: Any) -> list[Any]:
    """Return the destinations, as the DAG has them, of the instances of a mapped task, or of one in a mapped group."""
    written = partial_of(task).get("destination")
    destinations = [] if written is None else [written]
    expanded = expanded_of(task)
    if isinstance(expanded, Mapping):
        listed = expanded.get("destination")
        return [*destinations, *listed] if is_listed(listed) else destinations
    if isinstance(expanded, Sequence):
        destinations += [row["destination"] for row in expanded if isinstance(row, Mapping) and "destination" in row]
    return destinations


def rows_in(task: Any, expanded: object) -> tuple[list[dict[str, Any]], bool]:
    """Return the arguments of each instance as far as they are known, and whether they are all known."""
    rows: Iterator[Mapping[str, Any]] = iter(())
    is_whole = False
    if isinstance(expanded, Mapping):
        listed = {name: value for name, value in expanded.items() if is_listed(value)}
        rows = (dict(zip(listed, values, strict=True)) for values in product(*listed.values()))
        is_whole = len(listed) == len(expanded)
    elif is_listed(expanded):
        rows = (row for row in expanded if isinstance(row, Mapping))
        is_whole = all(isinstance(row, Mapping) for row in expanded)
    partial = partial_of(task)
    compared = [{**partial, **row} for row in islice(rows, MOST_COMPARED)]
    return compared, is_whole and next(rows, None) is None


def expanded_of(task: Any, context: Any = None) -> Any:
    """Return what a task is mapped over, or one in a mapped group by its group; None if it is neither.

    :param context: of a running instance, to read the list of an upstream task instead of the reference to it.
    """
    group = mapped_group_of(task)
    value = getattr(getattr(task, "expand_input", None), "value", None) if group is None else inputs_of(group)
    if context is not None and value is not None:
        is_of_lists = isinstance(value, Mapping)
        value = (
            {name: _resolved(one, context) for name, one in value.items()} if is_of_lists else _resolved(value, context)
        )
    return value if group is None else expanded_in_group(task, group, value)


def partial_of(task: Any) -> Mapping[str, Any]:
    """Return the arguments that all instances of a mapped task have, or of one in a mapped group."""
    group = mapped_group_of(task)
    return getattr(task, "partial_kwargs", {}) if group is None else same_in_group(task, group)


def arguments_of_all(task: Any) -> dict[str, Any]:
    """Return the arguments that all instances of a mapped operator certainly have, with the defaults of DAG and group.

    Airflow adds the defaults when it makes an instance. In place of a connection that may differ is a reference.
    """
    partial, expanded = task.partial_kwargs, task.expand_input.value
    rows = [expanded] if isinstance(expanded, Mapping) else expanded
    if is_listed(rows):
        varied = {name for row in rows if isinstance(row, Mapping) for name in row}
        known = {name: value for name, value in {**defaults_of(task), **partial}.items() if name not in varied}
    else:  # of an upstream task: they may hold anything
        varied, known = {*_CONNECTIONS} - set(partial), dict(partial)
    if makes_own(task):
        varied.update(_CONNECTIONS)
    own = dict.fromkeys(varied & _CONNECTIONS, OwnReference("the connection of each instance"))
    return {"vidu_conn_id": DEFAULT_CONN_ID, **known, **own}


def is_made_up(task: Any, name: str, text: str) -> bool:
    """Whether a user's subclass may have made an argument of others, so that each instance has its own.

    :param text: the argument of one of the instances, as it was passed to the operator.
    """
    if not makes_own(task):
        return False
    own = inspect.signature(task.operator_class.__init__).parameters.get(name)
    known = [partial_of(task).get(name), defaults_of(task).get(name), None if own is None else own.default]
    return text not in map(path_text, [*known, *(row.get(name) for row in rows_in(task, expanded_of(task))[0])])


def own_argument(task: Any, context: Any, name: str, written: object) -> object:
    """Return an argument of the running instance as the DAG or an upstream task has it, if a group hands it in.

    :param written: as it was passed to the operator: its text, or else the group's placeholder for it.
    """
    if path_text(written) is not None or mapped_group_of(task) is None:
        return written
    expanded, index = expanded_of(task, context), map_index_of(context)
    return expanded[index].get(name, written) if is_listed(expanded) and 0 <= index < len(expanded) else written


def _resolved(value: Any, context: Any, kind: type | UnionType = list | tuple) -> Any:
    """Return the list behind an XCom; the reference itself if an upstream task has one value per instance.

    :param kind: of which it must be, to be returned.
    """
    if is_listed(value) or not hasattr(value, "resolve"):
        return value
    try:
        found = value.resolve(context)
    except Exception as error:  # noqa: BLE001 - the deployment's own XCom back end reads it, and may raise anything
        log.debug("Could not compare the names of the instances: %s", redacted(error))
        return value
    return found if isinstance(found, kind) else value


def is_single(expanded: object) -> bool:
    """Whether the DAG shows that there is only one instance."""
    if isinstance(expanded, Mapping):
        return all(is_listed(value) and len(value) == 1 for value in expanded.values())
    return isinstance(expanded, Sequence) and len(expanded) == 1


def is_listed(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether these are values of which each makes an instance, not a reference to an upstream task."""
    return isinstance(value, (list, tuple))


def map_index_of(context: Any) -> Any:
    """Return which instance of a mapped task, or of one in a mapped group, is running; -1 for none."""
    return getattr(context.get("ti"), "map_index", -1)


def task_in_dag(operator: Any, context: Any) -> Any:
    """Return the task as its DAG holds it, mapped or not; None without a DAG, as in a user's unit test."""
    tasks = getattr(context.get("dag"), "task_dict", None)
    return tasks.get(operator.task_id) if isinstance(tasks, Mapping) else None


def mapped_task(operator: Any, context: Any) -> Any:
    """Return the task in its DAG if the running instance is one of several of it; None otherwise, or without a DAG."""
    index = map_index_of(context)
    return task_in_dag(operator, context) if isinstance(index, int) and index >= 0 else None
