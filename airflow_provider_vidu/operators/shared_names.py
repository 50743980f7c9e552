"""Whether the instances of a mapped task share a name, as far as the DAG shows it: a file's, or a batch's. No I/O.

Instances often run on different machines, so none can see what another one has written. Instead, the arguments are
compared as the author wrote them. Not detected: destinations that are mapped from an XCom, names from equal values of
an XCom, different templates that render to one name, templates with a user's own macro, and two tasks with one
destination.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.links import is_task_instance
from airflow_provider_vidu.orders.records import iteration_of, names_of
from airflow_provider_vidu.stores.naming import stem_of
from airflow_provider_vidu.stores.paths import checked_destination, is_folder, is_template, path_text

if TYPE_CHECKING:
    from airflow_provider_vidu.operators.batch import ViduBatchOperator

_OF_ONE_INSTANCE: Final = frozenset({"map_index", "rendered_map_index", "xcom_pull", "id", "key"})
"""Fields that differ between task instances; the other fields may be equal."""
_OF_ALL_INSTANCES: Final = frozenset({"dag_id", "task_id", "run_id", "dag_run", "dag", "owner", "operator", "queue"})
_MAY_BE_MAPPED: Final = frozenset({"generation", "generation_id", "video_url", "creation", "artifact"})
"""Arguments of the download that distinguish its instances, if it is unknown which ones are mapped."""
_MAY_BE_EQUAL: Final = frozenset(
    {"status", "provider_status", "progress", "model", "credits", "parameters", "created_at", "completed_at"}
)
"""Fields of a generation that may be equal within a run; prompts usually differ."""
_NEVER_OMITTED: Final = frozenset({"max_credits", "budget", "destination"})
"""Arguments that a row from another task does not omit by holding None."""
_MOST_COMPARED: Final = 5_000
"""Instances whose arguments are compared: expand() makes one for each combination."""
_UNIQUE: Final = re.compile(r"map_index|uuid\d?|random|randint|(?:utc)?now|time|time_ns|token_\w+")
"""Names with a new value at each use, in any position."""
_OF_THE_RUN: Final = re.compile(
    r"ds|ds_nodash|ts|ts_nodash|ts_nodash_with_tz|run_id|dag|dag_run|logical_date|execution_date|data_interval_\w+"
    r"|prev_\w+|next_\w+|yesterday_\w+|tomorrow_\w+|params|var|conn|conf|macros|inlets|outlets|test_mode"
    r"|task_instance_key_str|triggering_asset_events"
)
"""Template variables of Airflow with the same value in all instances of a run."""


def is_shared(destination: object, mapped: Collection[str] | None = None) -> bool | None:
    """Whether all instances of a mapped task with this destination would write the same file.

    :param destination: as the DAG's author wrote it, before templates are rendered.
    :param mapped: the arguments that are mapped over; None if unknown.
    :return: None if unknown, as for some templates.
    """
    text = path_text(destination)
    if text is None or is_folder(text.strip()):
        return False
    if not is_template(text):
        return True
    varies = [_varies(path, mapped) for path in _names(text)]
    if True in varies:
        return False
    return None if None in varies else True


def is_shared_in(task: Any, destination: object) -> bool | None:
    """Whether several instances of a mapped operator would write the same file; None if unknown.

    :param task: the mapped operator (``partial(…).expand(…)``), or the one inside a mapped group.
    :param destination: of one of its instances, as the DAG's author wrote it.
    """
    shared = _is_shared_in(task, destination)
    return True if shared is not True and _names_equal_values(task, destination) else shared


def _is_shared_in(task: Any, destination: object) -> bool | None:
    expanded = _expanded(task)
    if _is_single(expanded):
        return False
    if isinstance(expanded, Mapping):
        mapped = set(expanded)
        return _of_product(expanded, mapped, destination) if "destination" in mapped else is_shared(destination, mapped)
    if isinstance(expanded, Sequence):
        rows = [row for row in expanded if isinstance(row, Mapping)]
        mapped = {name for row in rows for name in row}
        named = [row["destination"] for row in rows if "destination" in row]
        if named and _count(named, destination) < 2:
            return False
        return is_shared(destination, mapped if len(rows) == len(expanded) else None)
    if expanded is not None and str(getattr(task, "partial_kwargs", {}).get("destination")) != str(destination):
        return False  # the destination comes from an XCom
    return is_shared(destination)


def is_same_for_all(task: Any, name: str, written: object) -> bool:
    """Whether an argument certainly has the same value in all instances of a mapped operator, as far as the DAG shows.

    :param task: the mapped operator, or the one inside a mapped group.
    :param name: of the argument.
    :param written: its value in one of the instances, before templates are rendered.
    """
    text, expanded = path_text(written), _expanded(task)
    if text is None or _is_single(expanded):
        return False
    rows = [expanded] if isinstance(expanded, Mapping) else expanded if _is_listed(expanded) else []
    mapped = {each for row in rows if isinstance(row, Mapping) for each in row}
    is_known = expanded is None or bool(rows)
    if name in mapped or (not is_known and str(getattr(task, "partial_kwargs", {}).get(name)) != str(written)):
        return False
    return (
        is_shared(text.strip().rstrip("/"), mapped if rows and all(isinstance(row, Mapping) for row in rows) else None)
        is True
    )


def mapped_to_nothing(operator: Any, context: Any) -> set[str]:
    """Return the arguments that a task is mapped over and that are None in this instance, as an upstream task has it.

    A None that the author has written into the DAG's own list, or into a row of it, is meant.

    :param operator: the instance of the mapped operator.
    :param context: its task's context.
    """
    task = _task_in_dag(operator, context)
    if isinstance(expanded := _expanded(task), Mapping):
        listed = ((name, _is_listed(value) and any(one is None for one in value)) for name, value in expanded.items())
        given = {name for name, is_meant in listed if not is_meant}
    elif expanded is None:
        return set()
    else:
        given = _given_in_row(expanded, getattr(context.get("ti"), "map_index", -1), operator, task, context.get("dag"))
    return {name for name in given if getattr(operator, name, None) is None}


def _given_in_row(expanded: object, index: int, operator: Any, task: Any, dag: Any) -> set[str]:
    """Return the arguments in a row of ``expand_kwargs`` of which None is not meant.

    In a row of the DAG, these are all that the author has filled in. In one that comes from another task, an empty
    field counts as omitted, as in a row of a batch, unless that would remove a limit, or lose the file.
    """
    if _is_listed(expanded) and 0 <= index < len(expanded) and isinstance(row := expanded[index], Mapping):
        return {name for name, value in row.items() if value is not None}
    # What Airflow has made the instance of: the row, the arguments of all instances, and the DAG's defaults.
    known = set(getattr(operator, "_BaseOperator__init_kwargs", {})) - set(getattr(task, "partial_kwargs", {}))
    defaults = getattr(dag, "default_args", None) or {}
    return {name for name in known & _NEVER_OMITTED if name not in defaults or defaults[name] is not None}


def check_mapped(operator: Any, context: Any, names: Collection[str]) -> None:
    """Refuse an instance of a mapped task that an upstream task has given no value for an argument.

    Without it, the task would do something else: spend without its limit, or order another product.

    :param names: of the arguments that matter.
    :raises ViduConfigError: naming the argument.
    """
    if lost := mapped_to_nothing(operator, context).intersection(names):
        raise ViduConfigError(f"{min(lost)} is None: check the XCom that it is mapped over. Nothing was submitted.")


def destinations_of(task: Any) -> list[Any]:
    """Return the destinations of a mapped operator's instances that are written in the DAG."""
    written = getattr(task, "partial_kwargs", {}).get("destination")
    destinations = [] if written is None else [written]
    expanded = _expanded(task)
    if isinstance(expanded, Mapping):
        listed = expanded.get("destination")
        return [*destinations, *listed] if _is_listed(listed) else destinations
    if isinstance(expanded, Sequence):
        destinations += [row["destination"] for row in expanded if isinstance(row, Mapping) and "destination" in row]
    return destinations


def check_own_file(operator: Any, context: Any, destination: object, written: object) -> bool:
    """Refuse an instance of a mapped task if others would write the same file: all would succeed, and one file remain.

    :param destination: as rendered.
    :param written: as the DAG's author wrote it.
    :return: whether the DAG shows that none would.
    :raises ViduConfigError: naming the destination.
    """
    if not _is_mapped(context.get("ti")) or is_folder(checked_destination(destination)):
        return True
    shared = is_shared_in(_task_in_dag(operator, context), written)
    if shared:
        raise ViduConfigError(one_file_for_all(written))
    return shared is False


def one_file_for_all(destination: object) -> str:
    """Return the error of a mapped task whose instances would write the same file (:func:`is_shared`)."""
    return (
        f"Several instances of this mapped task would write the same file, {sanitized(destination, 120)!r}, and only "
        "the last one would remain. End destination with a slash, so that each file is named after its generation_id, "
        "or give each instance its own destination, by expand_kwargs or with {{ ti.map_index }} in the name."
    )


def batch_name(operator: ViduBatchOperator, context: Any) -> str:
    """Return the name of a task's batch, a plain file name: as given, or of this task instance.

    :raises ViduConfigError: when it was rendered to nothing, or would be the same for all instances of a mapped task.
    """
    given = operator.batch.strip() if isinstance(operator.batch, str) else operator.batch
    ti = context.get("ti")
    if given not in (None, "", "None"):
        if _is_mapped(ti) and _is_same(operator, context, "batch", "destination"):
            raise ViduConfigError(
                f"All instances of this mapped task would be the one batch {sanitized(given, 120)!r}, each with rows "
                "of its own. Omit batch, or put {{ ti.map_index }} into it or into destination. Nothing was ordered."
            )
        return stem_of(str(given), None)
    if operator.written["batch"] is not None:  # under another name, everything would be ordered again
        raise ViduConfigError(
            "batch is empty: check the XCom or the param that it is templated from. Nothing was ordered."
        )
    if not is_task_instance(ti):
        return stem_of(operator.task_id, None)
    identity = "\n".join(names_of(ti, iteration_of(context)))  # each iteration of a loop orders its own
    return f"{stem_of(operator.task_id, None)}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"


def may_share_files(operator: ViduBatchOperator, context: Any) -> bool:
    """Whether rows of several instances of a mapped task replace each other's files if they have equal keys."""
    if not _is_mapped(context.get("ti")) or "generation_id" in operator.naming:
        return False
    written = operator.written["destination"]
    listed = destinations_of(_task_in_dag(operator, context))
    is_repeated = _count(listed, written) > 1 and is_shared((path_text(written) or "").strip().rstrip("/")) is True
    return is_repeated or _is_same(operator, context, "destination")


def _of_product(expanded: Mapping[str, Any], mapped: set[str], destination: object) -> bool | None:
    """Whether one value of a mapped destination is combined with several values of the other arguments."""
    listed = expanded["destination"]
    lengths = {len(value) if _is_listed(value) else 0 for name, value in expanded.items() if name != "destination"}
    if not _is_listed(listed) and lengths <= {1}:
        return False
    others = mapped - {"destination"}
    if lengths <= {1}:
        return is_shared(destination, others) if _count(listed, destination) > 1 else False
    shared = is_shared(destination, others)
    # expand() makes an instance for each pair; only the run shows how many there are (0).
    return None if shared and max(lengths) < 2 else shared


def _names_equal_values(task: Any, destination: object) -> bool:
    """Whether a template takes a file's name from mapped arguments that are equal in two instances.

    An example is one prompt with two seeds, and the prompt as the name. Only what the DAG itself holds is compared.
    """
    text = path_text(destination)
    if text is None or not is_template(text) or is_folder(text.strip()):
        return False
    used = [path for path in _names(text) if _varies(path, None) is not False]
    same = [row for row in _rows_in(task) if str(row.get("destination")).strip() == str(destination).strip()]
    names = [tuple(_value_of(path, row) for path in used) for row in same]
    known = [values for values in names if values and None not in values]
    return len(known) > len(set(known))


def _rows_in(task: Any) -> list[dict[str, Any]]:
    """Return the arguments of each instance, without those that come from another task."""
    expanded = _expanded(task)
    rows: Iterator[Mapping[str, Any]] = iter(())
    if isinstance(expanded, Mapping):
        listed = {name: value for name, value in expanded.items() if _is_listed(value)}
        rows = (dict(zip(listed, values, strict=True)) for values in product(*listed.values()))
    elif _is_listed(expanded):
        rows = (row for row in expanded if isinstance(row, Mapping))
    return [{**getattr(task, "partial_kwargs", {}), **row} for row in islice(rows, _MOST_COMPARED)]


def _value_of(path: tuple[str, ...], row: Mapping[str, Any]) -> str | None:
    """Return the value that a name in a template has in an instance; None if the DAG does not show it."""
    root, *rest = path[1:] if path[0] in ("ti", "task_instance") else path
    if root != "task" or not rest or rest[0] not in row:
        return None
    value = row[rest.pop(0)]
    while rest and isinstance(value, Mapping) and rest[0] in value:
        value = value[rest.pop(0)]
    is_plain = isinstance(value, (str, int, float, Mapping, list, tuple))
    return repr(value) if is_plain and not is_template(repr(value)) else None


def _expanded(task: Any) -> Any:
    return getattr(getattr(task, "expand_input", None), "value", None)


def _is_single(expanded: object) -> bool:
    """Whether the DAG shows that there is only one instance."""
    if isinstance(expanded, Mapping):
        return all(_is_listed(value) and len(value) == 1 for value in expanded.values())
    return isinstance(expanded, Sequence) and len(expanded) == 1


def _is_listed(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (list, tuple))


def _count(listed: Sequence[Any], destination: object) -> int:
    return sum(str(one).strip() == str(destination).strip() for one in listed)


def _varies(path: tuple[str, ...], mapped: Collection[str] | None) -> bool | None:
    """Whether a name in a template has a different value in each instance; None if unknown."""
    root, first = path[0], path[1] if len(path) > 1 else ""
    if root != "macros" and _OF_THE_RUN.fullmatch(root):
        return False
    if any(map(_UNIQUE.fullmatch, path)):
        return True
    if root in ("ti", "task_instance"):
        if first == "task":
            return _varies(path[1:], mapped)
        return True if first in _OF_ONE_INSTANCE else False if first in _OF_ALL_INSTANCES else None
    if root == "task":
        if first in _OF_ALL_INSTANCES or (mapped is not None and first and first not in mapped):
            return False
        if first == "generation" and len(path) > 2 and path[2] in _MAY_BE_EQUAL:
            return None
        return True if first in (_MAY_BE_MAPPED if mapped is None else mapped) else None
    return False if root == "macros" else None


def _names(template: str) -> Iterator[tuple[str, ...]]:
    """Yield the names in a template, each with the attributes taken of it: ``("ti", "map_index")``."""
    from jinja2 import Environment, TemplateError, nodes

    def walk(node: Any) -> Iterator[tuple[str, ...]]:
        path: list[str] = []
        inner = node
        while isinstance(inner, (nodes.Getattr, nodes.Getitem)):
            if isinstance(inner, nodes.Getattr):
                path.insert(0, inner.attr)
            elif isinstance(inner.arg, nodes.Const):
                path.insert(0, str(inner.arg.value))
            else:
                yield from walk(inner.arg)
            inner = inner.node
        if isinstance(inner, nodes.Name):
            yield (inner.name, *path)
            return
        if isinstance(inner, nodes.Filter) and inner.name == "random":
            yield ("a filter",)
        for child in inner.iter_child_nodes():
            yield from walk(child)

    try:
        yield from walk(Environment(autoescape=True).parse(template))
    except TemplateError:
        yield ("a template of another kind",)


def _task_in_dag(operator: Any, context: Any) -> Any:
    """Return the task as its DAG holds it, mapped or not; None without a DAG, as in a user's unit test."""
    tasks = getattr(context.get("dag"), "task_dict", None)
    return tasks.get(operator.task_id) if isinstance(tasks, Mapping) else None


def _is_mapped(ti: Any) -> bool:
    index = getattr(ti, "map_index", -1)
    return isinstance(index, int) and index >= 0


def _is_same(operator: ViduBatchOperator, context: Any, *names: str) -> bool:
    task = _task_in_dag(operator, context)
    return all(is_same_for_all(task, name, operator.written[name]) for name in names)
