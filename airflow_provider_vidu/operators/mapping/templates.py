"""The names that a template uses, and whether each has a different value in each instance of a mapped task."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from airflow_provider_vidu.stores.paths import is_template

_OF_ONE_INSTANCE: Final = frozenset({"map_index", "id", "key"})
"""Fields that differ between task instances; the other fields may be equal."""
_OF_ALL_INSTANCES: Final = frozenset({"dag_id", "task_id", "run_id", "dag_run", "dag", "owner", "operator", "queue"})
_OF_ONE_GENERATION: Final = frozenset({"generation", "generation_id", "video_url"})
"""Arguments of the download that differ between its instances, if they are mapped; the others may be equal."""
_IDS: Final = frozenset({"generation_id", "id", "task_id", "video_url"})
"""Fields of a generation that no other one has; two may have one prompt."""
_UNIQUE: Final = re.compile(r"map_index|uuid\d?|random|randint|(?:utc)?now|time|time_ns|token_\w+")
"""Names with a new value at each use, in any position."""
_OF_THE_RUN: Final = re.compile(
    r"ds|ds_nodash|ts|ts_nodash|ts_nodash_with_tz|run_id|dag|dag_run|logical_date|execution_date|data_interval_\w+"
    r"|prev_\w+|next_\w+|yesterday_\w+|tomorrow_\w+|params|var|conn|conf|macros|inlets|outlets|test_mode"
    r"|task_instance_key_str|triggering_asset_events"
)
"""Template variables of Airflow with the same value in all instances of a run."""


def is_same_in(template: str, mapped: Collection[str] | None = None, *, by_generation: bool = True) -> bool | None:
    """Whether a template renders to the same text in all instances; None if unknown. Parameters of :func:`varies`."""
    differ = [varies(path, mapped, by_generation=by_generation) for path in names_in(template)]
    return False if True in differ else None if None in differ else True


def varies(path: tuple[str, ...], mapped: Collection[str] | None, *, by_generation: bool = True) -> bool | None:
    """Whether a name in a template has a different value in each instance; None if unknown.

    :param mapped: the arguments that are mapped over; None if unknown.
    :param by_generation: whether each instance has a generation of its own, so that an id distinguishes them.
    """
    root, first = path[0], path[1] if len(path) > 1 else ""
    if root != "macros" and _OF_THE_RUN.fullmatch(root):
        return False
    if any(map(_UNIQUE.fullmatch, path)):
        return True
    if root in ("ti", "task_instance"):
        if first == "task":
            return varies(path[1:], mapped, by_generation=by_generation)
        return True if first in _OF_ONE_INSTANCE else False if first in _OF_ALL_INSTANCES else None
    if root == "task":
        if first in _OF_ALL_INSTANCES or (mapped is not None and first and first not in mapped):
            return False
        return True if by_generation and _is_id(path) else None
    return False if root == "macros" else None


def _is_id(path: tuple[str, ...]) -> bool:
    """Whether a name that begins with ``task`` identifies a generation."""
    return (
        path[1:2] != ()
        and path[1] in _OF_ONE_GENERATION
        and (path[1] != "generation" or path[2:3] == () or path[2] in _IDS)
    )


def names_in(template: str) -> Iterator[tuple[str, ...]]:
    """Yield the names in a template, each with the attributes taken of it: ``("ti", "map_index")``."""
    from jinja2 import Environment, TemplateError

    try:
        yield from _names(Environment(autoescape=True).parse(template))
    except TemplateError:
        yield ("a template of another kind",)


def _names(node: Any) -> Iterator[tuple[str, ...]]:
    from jinja2 import nodes

    path: list[str] = []
    inner = node
    while isinstance(inner, (nodes.Getattr, nodes.Getitem)):
        if isinstance(inner, nodes.Getattr):
            path.insert(0, inner.attr)
        elif isinstance(inner.arg, nodes.Const):
            path.insert(0, str(inner.arg.value))
        else:
            yield from _names(inner.arg)
        inner = inner.node
    if isinstance(inner, nodes.Name):
        yield (inner.name, *path)
        return
    if isinstance(inner, nodes.Filter) and inner.name == "random":
        yield ("a filter",)
    for child in inner.iter_child_nodes():
        yield from _names(child)


def rendered_in(template: str, row: Mapping[str, Any], environment: Any) -> tuple[str, ...] | None:
    """Return what the expressions of a template that only use an instance's arguments are rendered to.

    Two prompts may differ and have one beginning, which ``{{ task.prompt[:20] }}`` takes.

    :param row: the instance's arguments.
    :param environment: Jinja's, with the filters of the DAG.
    :return: None if an expression also uses something else, or the template has statements.
    """
    from jinja2 import nodes

    plain = {name: value for name, value in row.items() if not hasattr(value, "resolve")}  # no references
    parts: list[str] = []
    try:
        for output in environment.parse(template).body:
            if not isinstance(output, nodes.Output):
                return None
            for part in output.nodes:
                used = list(_names(part))
                if all(varies(path, None) is False for path in used):
                    continue  # the same in all instances
                if None in (value_in(path, plain) for path in used):
                    return None
                lone = environment.from_string(nodes.Template([nodes.Output([part])]).set_environment(environment))
                parts.append(str(lone.render(task=plain, ti={"task": plain}, task_instance={"task": plain})))
    except Exception:  # noqa: BLE001 - a filter may raise anything, and the task itself will show it
        return None
    return tuple(parts)


def value_in(path: tuple[str, ...], row: Mapping[str, Any]) -> str | None:
    """Return the value that a name in a template has in an instance; None if the DAG does not show it."""
    path = path[1:] if path[0] in ("ti", "task_instance") else path
    root, *rest = path or ("",)
    if root != "task" or not rest or rest[0] not in row:
        return None
    value = row[rest.pop(0)]
    while rest and isinstance(value, Mapping) and rest[0] in value:
        value = value[rest.pop(0)]
    if hasattr(value, "resolve"):  # a reference to an upstream task, whose generation no other one has
        return repr(value) if _is_id(path) else None
    is_plain = isinstance(value, (str, int, float, Mapping, list, tuple))
    return repr(value) if is_plain and not is_template(repr(value)) else None
