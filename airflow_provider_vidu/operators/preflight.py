"""Checks of the downloads downstream of a generation, before the generation is paid for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.defaults import DEFAULT_CONN_ID
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduStorageError
from airflow_provider_vidu.operators.download import ViduDownloadOperator
from airflow_provider_vidu.operators.mapping.groups import is_handed
from airflow_provider_vidu.operators.mapping.instances import arguments_of_all, destinations_of
from airflow_provider_vidu.operators.mapping.shared_names import is_shared_in, one_file_for_all
from airflow_provider_vidu.stores.paths import checked_destination, is_template, local_path
from airflow_provider_vidu.tasks.mapped import makes_own, runs_own
from airflow_provider_vidu.tasks.masking import SignedURLOperator

_ELSEWHERE: Final = ("queue", "executor", "executor_config", "run_as_user")
"""Where a task runs: another worker may have what this one lacks."""

_MOST_CHECKED: Final = 100
"""How many destinations of a mapped download are checked at most."""

_AFTER_FAILURES: Final = frozenset({"all_failed", "one_failed", "all_skipped"})
"""The trigger rules of tasks that do not run if all goes well."""


def check_downstream(operator: Any, log: Any, *, rehearses: bool, index: object = -1) -> None:
    """Check the destinations of all downloads downstream of a task, as far as that is possible here at no cost.

    To be called in a worker, before the order. It detects: no file system for the scheme of a destination, an Airflow
    connection that does not exist, a destination outside of ``[vidu] destination_roots``, a local folder that this user
    cannot write to, a mapped download whose instances would write one file, a destination that is wrong in every run,
    settings that no download can use, a Vidu connection that is missing or wrong, and, with ``rehearses``, a store that
    refuses an upload, or the look for a file that ``overwrite`` needs, or that holds a file which must stay. The
    download itself checks the rest, which needs a rendered template or another worker. For a download that may be
    skipped (after a branch, another package's task, or the user's own code in a subclass or ``pre_execute``), or mapped
    and of a subclass that makes a destination of its own, there is a warning instead of an error, and its store is not
    contacted.

    :param operator: the task that is about to order a generation; one without a DAG has no downloads.
    :param log: gets a line for each download that would fail if it ran.
    :param rehearses: whether to ask stores, and to begin and abort an upload, once for each bucket or server.
    :param index: the map index of the running task: in a mapped group, the files of the other instances may be there.
    :raises ViduConfigError: when a download is certain to run and to fail; nothing has been ordered then.
    :raises ViduStorageError: when a store refuses the upload or cannot be reached, or a local destination's mount is
        missing or does not answer: a retry orders.
    """
    rehearsed: set[tuple[str, str]] = set()
    for task, is_sure in _downloads(operator):
        kind: type[ViduError] = ViduConfigError
        try:
            problem = _problem_of(operator, task, index, rehearsed if rehearses and is_sure else None)
        except ViduStorageError as error:  # a mount that may be back at the next try
            kind, problem = ViduStorageError, error.reason
        except Exception as error:  # noqa: BLE001 - a check that fails must not stop an order
            log.warning("Could not check the destination of the download %r: %s", task.task_id, redacted(error))
            continue
        if problem and is_sure:
            raise kind(
                f"Nothing was ordered: the download {task.task_id!r} downstream of this task would fail. {problem}"
            )
        if problem:
            shown = "The download %r downstream of this task will fail if it runs as the DAG shows it. %s"
            log.warning(shown, task.task_id, problem)


def _downloads(operator: Any) -> Iterator[tuple[Any, bool]]:
    """Yield the downloads downstream of a task, and whether each certainly runs if it succeeds, as the DAG has it."""
    has_dag = getattr(operator, "has_dag", None)
    if has_dag is None or not has_dag():  # in a unit test, or inside another task: nothing is downstream
        return
    for task_id, is_sure in _behind(operator).items():
        task = operator.dag.task_dict[task_id]
        if _is_a(task, ViduDownloadOperator):
            is_as_shown = not makes_own(task, "destination") and not runs_own(task, _kind(task))
            yield task, is_sure and is_as_shown


def _behind(operator: Any) -> dict[str, bool]:
    """Return the ids of all downstream tasks, and whether each of them runs whenever the task succeeds.

    A task is visited at most twice: when it is reached, and when it proves to be sure.
    """
    tasks = operator.dag.task_dict
    # These have run, so they skip nothing any more, unless they choose what runs after them (as a branch does).
    upstream = operator.get_flat_relative_ids(upstream=True)
    done = {
        task_id for task_id in upstream if "SkipMixin" not in (kind.__name__ for kind in _kind(tasks[task_id]).__mro__)
    }
    sure: dict[str, bool] = {}
    left = deque(operator.downstream_task_ids)
    while left:
        task_id = left.popleft()
        task = tasks[task_id]
        is_sure = getattr(task.trigger_rule, "value", task.trigger_rule) not in _AFTER_FAILURES and all(
            above == operator.task_id or above in done or (sure.get(above, False) and _is_plain(tasks[above]))
            for above in task.upstream_task_ids
        )
        if not sure.get(task_id) and sure.get(task_id) != is_sure:
            sure[task_id] = is_sure
            left.extend(task.downstream_task_ids)
    return sure


def _is_plain(task: Any) -> bool:
    """Whether a task never skips itself or what follows it."""
    is_empty = getattr(task, "inherits_from_empty_operator", False) is True
    return (is_empty or _is_a(task, SignedURLOperator)) and not runs_own(task, _kind(task))  # the latter are ours


def _is_a(task: Any, kind: type) -> bool:
    return issubclass(_kind(task), kind)


def _kind(task: Any) -> type:
    """Return the class of a task, also of a mapped one."""
    kind = getattr(task, "operator_class", None)
    return kind if isinstance(kind, type) else type(task)


def _problem_of(operator: Any, task: Any, index: object, rehearsed: set[tuple[str, str]] | None) -> str | None:
    """Return the problem with the destination of a download, as far as it is visible here.

    :param index: as for :func:`check_downstream`.
    :param rehearsed: the servers, each with its connection, where an upload was begun; None if none is to be.
    """
    arguments = getattr(task, "partial_kwargs", None)
    given = vars(task) if arguments is None else arguments_of_all(task)
    group = task.get_closest_mapped_task_group()
    is_mapped = arguments is not None or group is not None
    shares = group is not None and group is operator.get_closest_mapped_task_group()
    here = all((getattr(operator, name, None) or None) == (getattr(task, name, None) or None) for name in _ELSEWHERE)
    if here and (problem := _connection_problem(operator, task, given)):
        return problem
    written = (destinations_of(task) if is_mapped else []) or [given.get("destination")]
    for position, destination in enumerate(written[:_MOST_CHECKED]):
        if not isinstance(destination, str) and not hasattr(destination, "parts"):
            continue  # an XCom
        if is_mapped and not _may_be_folder(destination) and is_shared_in(task, destination):
            return one_file_for_all(destination)
        is_final = is_handed(given.get("destination")) or not is_template(str(destination))
        is_others = shares and position != index  # that instance may have stored its file by now
        row = {**given, "overwrite": "skip"} if is_others and given.get("overwrite") == "error" else given
        if problem := _problem(destination, row, here=here, is_final=is_final, rehearsed=rehearsed):
            return problem
    return None


def _connection_problem(operator: Any, task: Any, given: Mapping[str, Any]) -> str | None:
    """Return the problem with the Vidu connection of a download that needs one, if it is not this task's own."""
    from airflow_provider_vidu.hooks import ViduHook

    conn_id = _final(given.get("vidu_conn_id"))
    mapped = getattr(getattr(task, "expand_input", None), "value", {})  # rows may hold URLs, which need no connection
    is_by_id = isinstance(mapped, Mapping) and "video_url" not in mapped and given.get("video_url") is None
    may_keep = given.get("overwrite") == "skip"  # then nothing may be fetched
    if conn_id in (None, getattr(operator, "vidu_conn_id", DEFAULT_CONN_ID)) or not is_by_id or may_keep:
        return None
    try:
        ViduHook(str(conn_id)).config.access()
    except ViduConfigError as error:
        return error.reason
    return None


def _may_be_folder(destination: object) -> bool:
    """Whether a destination ends with a template, which may render to a slash; the download sees what it does."""
    return str(destination).strip().endswith(("}}", "%}"))


def _problem(
    destination: Any, given: Mapping[str, Any], *, here: bool, is_final: bool, rehearsed: set[tuple[str, str]] | None
) -> str | None:
    """Return the problem with a destination, as far as it is visible here.

    :param given: the other arguments of the download, as the DAG's author wrote them.
    :param here: whether the download runs on a worker like this one.
    :param is_final: whether Airflow renders nothing in it.
    :param rehearsed: as for :func:`_problem_of`; with None, no store is asked.
    """
    from airflow_provider_vidu.network.download_url import deployment_hosts, most_bytes
    from airflow_provider_vidu.stores.base import DestinationExistsError
    from airflow_provider_vidu.stores.destination import Destination, missing_file_system, options_of
    from airflow_provider_vidu.stores.roots import check_destination
    from airflow_provider_vidu.stores.schemes import scheme_of

    try:
        text = checked_destination(destination) if is_final else str(destination)
    except ViduConfigError as error:
        return error.reason
    if not here:
        return None
    written, artifact = given.get("storage_conn_id"), given.get("artifact")
    conn_id = _final(written)
    if is_final or not is_template(scheme_of(text)):  # what begins with a template may render to any store
        if missing := missing_file_system(text, conn_id):
            return missing.reason
        if unknown := unknown_connection(text, conn_id):
            return unknown
    try:
        most_bytes()
        deployment_hosts()
        if not is_final:
            return None
        check_destination(text)
        is_local = local_path(text) is not None
        if not is_local and (rehearsed is None or (written and not conn_id)):
            return None
        place = Destination(text, conn_id, options_of(destination))
        if place.keeps(given.get("overwrite", "replace"), artifact):
            return None
        if is_local or rehearsed is None:
            return place.obstacle()
        if (server := ("/".join(text.split("/", 3)[:3]), str(written))) not in rehearsed:
            place.rehearse(artifact)
            rehearsed.add(server)
    except (ViduConfigError, DestinationExistsError) as error:
        return error.reason
    return None


def unknown_connection(text: str, conn_id: str | None) -> str | None:
    """Return the problem if a destination names an Airflow connection that does not exist.

    Google's and Azure's file systems fail without it. Amazon's falls back to the worker's own credentials.
    """
    from airflow_provider_vidu.stores.destination import is_missing_connection, shown_connection
    from airflow_provider_vidu.stores.places import split_connection
    from airflow_provider_vidu.stores.schemes import STORES, scheme_of

    named = conn_id or split_connection(text)[0]
    store = STORES.get(scheme_of(text))
    if not named or is_template(named) or store is None or not store.needs_connection:
        return None
    if is_missing_connection(named):
        shown = shown_connection(named)
        return f"There is no Airflow connection {shown!r} for its destination {redacted(text, 120)!r}."
    return None


def _final(conn_id: object) -> str | None:
    """Return a connection id that no template changes; None if there is none."""
    return conn_id if isinstance(conn_id, str) and not is_template(conn_id) and conn_id.strip() else None
