"""Whether the instances of a mapped task share a name, as far as the DAG shows it: a file's, or a batch's.

Instances often run on different machines, so none can see what another one has written. Instead, their arguments are
compared: as the author wrote them, and in a running instance also those that are mapped over the list of an upstream
task. What cannot be compared is unknown, which the task's log says: values from a mapped upstream task, templates with
a user's own macro or with a part of an index or id. Not detected: different templates that lead to one name, links
among local folders, and two tasks with one destination.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.links import is_task_instance
from airflow_provider_vidu.operators.mapping.groups import OwnReference
from airflow_provider_vidu.operators.mapping.instances import (
    destinations_of,
    expanded_of,
    is_listed,
    is_made_up,
    is_single,
    mapped_task,
    own_argument,
    partial_of,
    rows_in,
)
from airflow_provider_vidu.operators.mapping.templates import (
    is_of_all_iterations,
    is_of_the_run,
    is_same_in,
    keeps_whole,
    names_in,
    rendered_in,
    value_in,
    varies,
)
from airflow_provider_vidu.orders.records import iteration_of, names_of
from airflow_provider_vidu.stores.naming import stem_of
from airflow_provider_vidu.stores.paths import (
    UNRENDERED,
    checked_destination,
    is_folder,
    is_template,
    path_text,
    place_of,
)

if TYPE_CHECKING:
    from airflow_provider_vidu.operators.batch import ViduBatchOperator


_ONE_FOR_ITERATIONS: Final = (
    "Each iteration of this loop has the same destination, so only one of their files remains. Put {{ loop.index }} "
    "into it to keep them all."
)


def is_shared(
    destination: object, mapped: Collection[str] | None = None, *, by_generation: bool = True, environment: Any = None
) -> bool | None:
    """Whether all instances of a mapped task with this destination would write the same file.

    :param destination: as the DAG's author wrote it, before templates are rendered.
    :param mapped: the arguments that are mapped over; None if unknown.
    :param by_generation: whether each instance has a generation of its own.
    :param environment: Jinja's, with the filters of the DAG.
    :return: None if unknown, as for some templates.
    """
    text = path_text(destination)
    if text is None or is_folder(text.strip()):
        return False
    if not is_template(text):
        return True
    return is_same_in(text, mapped, by_generation=by_generation, environment=environment)


def is_shared_in(task: Any, destination: object, context: Any = None) -> bool | None:
    """Whether several instances of a mapped operator would write the same file; None if unknown.

    :param task: the mapped operator (``partial(…).expand(…)``), or the one inside a mapped group.
    :param destination: of one of its instances, as the DAG's author wrote it.
    :param context: of a running instance, to read the lists that the task is mapped over.
    """
    text = path_text(destination)
    if text is None or is_folder(text.strip()):
        return False
    expanded = expanded_of(task, context)
    if is_single(expanded):
        return False
    if is_template(text) and _may_be_data(task, text):
        return _has_equal_data(task, expanded, text)
    shared = _is_shared_in(task, expanded, destination)
    if shared is True:
        return None if is_made_up(task, "destination", text) else True
    is_equal = _has_equal_names(task, expanded, text)
    return is_equal if is_equal is True or shared is None else False


def _is_shared_in(task: Any, expanded: object, destination: object) -> bool | None:
    shared = partial(is_shared, destination, environment=_environment_of(task))
    if isinstance(expanded, Mapping):
        if "destination" in expanded:
            return _of_product(expanded, destination)
        return shared(set(expanded), by_generation=_is_by_generation(expanded, destination))
    written = str(partial_of(task).get("destination"))
    if is_listed(expanded):
        rows = [row for row in expanded if isinstance(row, Mapping)]
        mapped = {name for row in rows for name in row}
        named = [row["destination"] for row in rows if "destination" in row]
        is_whole = len(rows) == len(expanded) and all(path_text(one) is not None for one in named)
        if named and _count(named, destination) < 2:
            return False if is_whole else None
        return shared(mapped if is_whole else None, by_generation=False)
    if expanded is None:
        return shared()
    return shared(by_generation=False) if written == str(destination) else None


def is_same_for_all(task: Any, name: str, written: object) -> bool:
    """Whether an argument certainly has the same value in all instances of a mapped operator, as far as the DAG shows.

    :param task: the mapped operator, or the one inside a mapped group.
    :param name: of the argument.
    :param written: its value in one of the instances, before templates are rendered.
    """
    text, expanded = path_text(written), expanded_of(task)
    if text is None or is_single(expanded) or is_made_up(task, name, text):
        return False
    rows = [expanded] if isinstance(expanded, Mapping) else expanded if is_listed(expanded) else []
    mapped = {each for row in rows if isinstance(row, Mapping) for each in row}
    is_known = expanded is None or bool(rows)
    if name in mapped or (not is_known and str(partial_of(task).get(name)) != str(written)):
        return False
    is_whole = bool(rows) and all(isinstance(row, Mapping) for row in rows)
    return is_of_the_run(text.strip().rstrip("/"), mapped if is_whole else None)


def check_own_file(operator: Any, context: Any, destination: object, written: object) -> None:
    """Refuse an instance of a mapped task if others would write the same file: all would succeed, and one file remain.

    If they may, the task's log says so.

    :param destination: as rendered.
    :param written: as the DAG's author wrote it.
    :raises ViduConfigError: naming the destination.
    """
    if is_folder(checked_destination(destination)):
        return
    if _iterations_share(context, written):
        operator.log.warning(_ONE_FOR_ITERATIONS)
    if (task := mapped_task(operator, context)) is None:
        return
    written = own_argument(task, context, "destination", written)
    if path_text(written) is None:  # a reference to an upstream task
        written = destination
    shared = is_shared_in(task, written)
    if shared is None:
        shared = is_shared_in(task, written, context)
    if shared:
        raise ViduConfigError(one_file_for_all(written))
    if shared is None:
        operator.log.warning(
            "Several instances of this mapped task may have the same destination, and the last one would replace the "
            "files of the others. End it with a slash, or put {{ ti.map_index }} into the name."
        )


def one_file_for_all(destination: object) -> str:
    """Return the error of a mapped task whose instances would write the same file (:func:`is_shared`)."""
    return (
        f"Several instances of this mapped task would write the same file, {sanitized(destination, 120)!r}, and only "
        "the last one would remain. End destination with a slash, so that each file is named after its generation_id, "
        "or give each instance its own destination, by expand_kwargs or with {{ ti.map_index }} in the name."
    )


def batch_name(operator: ViduBatchOperator, context: Any) -> str:
    """Return the name of a task's batch, a plain file name: as given, or of this task instance.

    :raises ViduConfigError: when it was rendered to nothing, or several instances of a mapped task would have it.
    """
    given = operator.batch.strip() if isinstance(operator.batch, str) else operator.batch
    ti = context.get("ti")
    if given not in (None, "", "None"):
        if _have_the_same(operator, context, "batch", "destination"):
            raise ViduConfigError(
                f"Several instances of this mapped task would be the one batch {sanitized(given, 120)!r}, each with "
                "rows of its own. Omit batch, or put {{ ti.map_index }} into it or into destination. Nothing was "
                "ordered."
            )
        if is_template(str(given)):  # the runs of all days would be one batch, and the second would order nothing
            raise ViduConfigError(f"batch {sanitized(given, 120)!r} {UNRENDERED} Nothing was ordered.")
        return stem_of(str(given), None)
    if operator.written["batch"] is not None:  # under another name, everything would be ordered again
        raise ViduConfigError(
            "batch is empty: check the XCom or the param that it is templated from. Nothing was ordered."
        )
    if not is_task_instance(ti):
        return stem_of(operator.task_id, None)
    identity = "\n".join(names_of(ti, iteration_of(context)))  # each iteration of a loop orders its own
    return f"{stem_of(operator.task_id, None)}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"


def warn_of_shared_files(operator: ViduBatchOperator, context: Any) -> None:
    """Log that rows replace the files of others with equal keys: of another instance, or of an earlier iteration."""
    if may_share_files(operator, context):
        operator.log.warning(
            "Several instances of this mapped task have one destination: a row replaces the file of a row with the "
            "same key in another instance. Put {{ ti.map_index }} into destination, or {generation_id} into naming."
        )
    name = path_text(operator.written["batch"])
    is_one_batch = name is not None and is_of_all_iterations(name)  # it orders no row again
    keeps_all = is_one_batch or "generation_id" in operator.naming
    if not keeps_all and _iterations_share(context, operator.written["destination"]):
        operator.log.warning(
            "Each iteration of this loop has the same destination: a row replaces the file of a row with the same key "
            "in an earlier one. Put {{ loop.index }} into destination, or {generation_id} into naming."
        )


def may_share_files(operator: ViduBatchOperator, context: Any) -> bool:
    """Whether rows of several instances of a mapped task replace each other's files if they have equal keys."""
    return "generation_id" not in operator.naming and _have_the_same(operator, context, "destination")


def _iterations_share(context: Any, written: object) -> bool:
    """Whether a task in a loop (Airflow 3.4) has the destination of an earlier iteration.

    :param written: the destination as the DAG's author wrote it.
    """
    text = path_text(written)
    return bool(iteration_of(context)) and text is not None and is_of_all_iterations(text)


def _is_by_generation(expanded: Mapping[str, Any], destination: object) -> bool:
    """Whether instances with one generation differ in what else names their files.

    ``expand()`` combines each value of an argument with each of the others': so all but one argument must have a single
    value, or different ones that are in the name.
    """
    text = path_text(destination) or ""
    named = {path[-1] for path in names_in(text) if path[:-1] in (("task",), ("ti", "task"), ("task_instance", "task"))}
    if any(isinstance(expanded.get(name), OwnReference) for name in named):
        return True
    open_ones = 0
    for name, value in expanded.items():
        is_different = is_listed(value) and len(set(map(repr, value))) == len(value)
        open_ones += not (is_different and (len(value) == 1 or name in named))
    return open_ones < 2


def _of_product(expanded: Mapping[str, Any], destination: object) -> bool | None:
    """Whether one value of a mapped destination is combined with several values of the other arguments."""
    listed = expanded["destination"]
    lengths = {len(value) if is_listed(value) else 0 for name, value in expanded.items() if name != "destination"}
    if not is_listed(listed) and lengths <= {1}:
        return None
    others = {name: value for name, value in expanded.items() if name != "destination"}
    shared = is_shared(destination, set(others), by_generation=_is_by_generation(others, destination))
    if lengths <= {1}:
        return shared if _count(listed, destination) > 1 else False
    # expand() makes an instance for each pair; only the run shows how many there are (0).
    return None if shared and max(lengths) < 2 else shared


def _may_be_data(task: Any, text: str) -> bool:
    """Whether a destination may come from an upstream task: then it is data, whatever it looks like.

    Airflow renders no such value, and an expression in one may have no end (``9 ** (9 ** 9)``).
    """
    if text in map(path_text, destinations_of(task)):
        return False
    expanded = expanded_of(task)
    rows = expanded if is_listed(expanded) else [] if expanded is None else [expanded]
    return any(not isinstance(row, Mapping) or "destination" in row for row in [partial_of(task), *rows])


def _has_equal_data(task: Any, expanded: object, text: str) -> bool | None:
    """Whether a destination from an upstream task is that of two instances; None if some cannot be compared."""
    rows, is_whole = rows_in(task, expanded)
    count = _count([row.get("destination") for row in rows], text)
    return True if count > 1 else False if count and is_whole else None


def _has_equal_names(task: Any, expanded: object, template: str) -> bool | None:
    """Whether a template names the files of two instances after equal arguments; None if some cannot be compared.

    An example is one prompt with two seeds, and the prompt as the name.
    """
    if not is_template(template):
        return None
    used = [path for path in names_in(template) if varies(path, None) is not False]
    rows, is_whole = rows_in(task, expanded)
    place = place_of(template)
    same = [row for row in rows if place_of(row.get("destination")) == place]
    names = [tuple(value_in(path, row) for path in used) for row in same]
    environment = _environment_of(task)
    is_whole_name = keeps_whole(template, used, environment)
    rendered = [
        found or (values if is_whole_name else None)
        for found, values in zip(rendered_in(template, same, environment), names, strict=True)
        if values and None not in values
    ]
    known = [name for name in rendered if name]
    if len(known) > len(set(known)):
        return True
    return False if known and is_whole and len(known) == len(same) else None


def _environment_of(task: Any) -> Any:
    has_dag = getattr(task, "has_dag", None)
    return task.dag.get_template_env() if has_dag is not None and has_dag() else None


def _have_the_same(operator: ViduBatchOperator, context: Any, *names: str) -> bool:
    """Whether another instance of a mapped task has the same arguments, of which none depends on the instance."""
    if (task := mapped_task(operator, context)) is None:
        return False
    own = {name: own_argument(task, context, name, operator.written[name]) for name in names}
    if all(is_same_for_all(task, name, value) for name, value in own.items()):
        return True

    def texts(arguments: Mapping[str, Any]) -> list[str]:
        given = ((name, path_text(arguments.get(name)) or "") for name in names)
        return [(place_of(text) if name == "destination" else text.strip()).rstrip("/") for name, text in given]

    written = texts(own)
    rows, _ = rows_in(task, expanded_of(task, context))
    same = sum(texts(row) == written for row in rows)
    return same > 1 and all(map(is_of_the_run, written))


def _count(listed: Sequence[Any], destination: object) -> int:
    place = place_of(destination)
    return sum(place_of(one) == place for one in listed)
