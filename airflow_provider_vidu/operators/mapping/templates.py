"""The names that a template uses, and whether each has a different value in each instance of a mapped task."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    r"|task_instance_key_str|triggering_asset_events|loop"
)
"""Template variables of Airflow with the same value in all instances of a run, or of an iteration of its loop."""
_INDICES: Final = (0, 1, 2, 10, 11, 100, 1000)
_ID_SAMPLES: Final = ("947100000000000001", "847100000000000001", "947100009000000001", "947100000000000002")
_TEXT_SAMPLES: Final = ("A cat runs by", "a cat runs by", "B cat runs by", "A dog runs by", "A cat runs on")
"""Values that differ at the beginning, within, at the end or in case: what makes one text of two of them may do so
with others."""
_LONG: Final = 60
"""Characters that another value in the same text may have, of which a slice may leave nothing else."""


def is_same_in(
    template: str, mapped: Collection[str] | None = None, *, by_generation: bool = True, environment: Any = None
) -> bool | None:
    """Whether a template renders to the same text in all instances; None if unknown.

    :param environment: Jinja's, with the filters of the DAG; without them if omitted.
    """
    differ = [
        found if found is not True or _tells_apart(template, path, environment) else None
        for path in names_in(template)
        if (found := varies(path, mapped, by_generation=by_generation)) is not False
    ]
    return False if True in differ else None if differ else True


def is_of_the_run(text: str, mapped: Collection[str] | None = None) -> bool:
    """Whether a text, or all that its template uses, is certainly the same in all instances. It renders nothing.

    :param mapped: the arguments that are mapped over; None if unknown.
    """
    return not is_template(text) or all(varies(path, mapped) is False for path in names_in(text))


def is_of_all_iterations(text: str) -> bool:
    """Whether a text certainly is the same in all iterations of a loop, in each instance of a mapped task."""
    paths = names_in(text) if is_template(text) else ()
    return all(path[0] != "loop" and (path[-1] == "map_index" or varies(path, None) is False) for path in paths)


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
        if first == "key" and len(path) > 2:
            return varies((root, *path[2:]), mapped)
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
    from jinja2 import TemplateError

    try:
        yield from _names(_plain().parse(template))
    except (TemplateError, RecursionError, ValueError):  # a number of 5,000 digits
        yield ("a template of another kind",)


def _names(node: Any) -> Iterator[tuple[str, ...]]:
    from jinja2 import nodes

    path: list[str] = []
    inner = node
    while isinstance(inner, (nodes.Getattr, nodes.Getitem)):
        if isinstance(inner, nodes.Getattr):
            path.append(inner.attr)
        elif isinstance(inner.arg, nodes.Const):
            path.append(str(inner.arg.value))
        else:
            yield from _names(inner.arg)
        inner = inner.node
    if isinstance(inner, nodes.Name):
        yield (inner.name, *reversed(path))
        return
    if isinstance(inner, nodes.Filter) and inner.name == "random":
        yield ("a filter",)
    for child in inner.iter_child_nodes():
        yield from _names(child)


def rendered_in(template: str, rows: Sequence[Mapping[str, Any]], environment: Any) -> list[tuple[str, ...] | None]:
    """Return what the expressions of a template that only use an instance's arguments are rendered to, for each one.

    Two prompts may differ and have one beginning, which ``{{ task.prompt[:20] }}`` takes.

    :param rows: the arguments of each instance.
    :param environment: Jinja's, with the filters of the DAG; None without a DAG.
    :return: None for an instance if an expression also uses something else.
    """
    try:
        parts = [
            (used, part)
            for used, part in _parts(template, environment or _plain())
            if not all(varies(path, None) is False for path in used)
        ]
        return [_rendered(parts, row) for row in rows]
    except Exception:  # noqa: BLE001 - a filter may raise anything, and the task itself will show it
        return [None] * len(rows)


def _rendered(parts: Sequence[tuple[list[tuple[str, ...]], Any]], row: Mapping[str, Any]) -> tuple[str, ...] | None:
    plain = {name: value for name, value in row.items() if not hasattr(value, "resolve")}  # no references
    if any(value_in(path, plain) is None for used, _ in parts for path in used):
        return None
    return tuple(str(part.render(task=plain, ti={"task": plain}, task_instance={"task": plain})) for _, part in parts)


def keeps_whole(template: str, paths: Collection[tuple[str, ...]], environment: Any) -> bool:
    """Whether the values of all these names remain distinguishable in what a template is rendered to."""
    return all(_tells_apart(template, path, environment) for path in paths)


def _tells_apart(template: str, path: tuple[str, ...], environment: Any) -> bool:
    """Whether an expression renders each sample of a name to a text of its own.

    ``{{ ti.map_index // 2 }}`` and ``{{ task.generation_id[:8] }}`` do not.
    """
    from jinja2 import TemplateError

    if path[0] not in ("task", "ti", "task_instance"):
        return True  # a function that makes a new value at each use
    is_id = path[1:2] == ("id",) or _is_id(_of_task(path))
    samples = _INDICES if path[-1] == "map_index" else _ID_SAMPLES if is_id else _TEXT_SAMPLES
    try:
        return any(
            path in used and len({str(part.render(_holding(path, sample))) for sample in samples}) == len(samples)
            for used, part in _parts(template, _lenient(environment))
        )
    except TemplateError:
        return environment is None  # a filter of the DAG's, which most likely keeps different values different
    except Exception:  # noqa: BLE001 - a filter may raise anything for values that are not those of the task
        return False


def _lenient(environment: Any) -> Any:
    """Return the environment with names of other values in place of the values."""
    from jinja2 import Undefined

    class Unseen(Undefined):
        def __str__(self) -> str:
            return f"{self._undefined_name:<{_LONG}}"

        def __getattr__(self, name: str) -> Any:
            return super().__getattr__(name) if name.startswith("__") else self[name]

        def __getitem__(self, key: object) -> Any:
            return Unseen(name=f"{self}[{key!r}]")

        def __call__(self, *args: object, **named: object) -> Any:
            return self[args, named]

    return (environment or _plain()).overlay(undefined=Unseen)


def _plain() -> Any:
    from jinja2 import Environment

    return Environment(autoescape=True)


def _parts(template: str, environment: Any) -> Iterator[tuple[list[tuple[str, ...]], Any]]:
    """Yield the expressions of a template, each with the names in it; one with statements as a whole."""
    from jinja2 import nodes

    body = environment.parse(template).body
    if not all(isinstance(output, nodes.Output) for output in body):
        yield list(names_in(template)), environment.from_string(template)
        return
    for part in (part for output in body for part in output.nodes):
        if used := list(_names(part)):
            lone = nodes.Template([nodes.Output([part])]).set_environment(environment)
            yield used, environment.from_string(lone)


def _holding(path: tuple[str, ...], sample: str | int) -> dict[str, Any]:
    """Return template variables in which a name has a value: ``task.prompt.lower`` is a method of it."""
    fields = path[:2] + tuple(name for name in path[2:] if not hasattr(sample, name))
    value: Any = sample
    for name in reversed(fields):
        value = {name: value}
    found: dict[str, Any] = value
    return found


def _of_task(path: tuple[str, ...]) -> tuple[str, ...]:
    return path[1:] if path[0] in ("ti", "task_instance") else path


def value_in(path: tuple[str, ...], row: Mapping[str, Any]) -> str | None:
    """Return the value that a name in a template has in an instance; None if the DAG does not show it."""
    path = _of_task(path)
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
