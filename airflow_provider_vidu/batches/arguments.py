"""The arguments of a batch as a DAG's author writes them, and what is wrong with them at parse time. No I/O."""

from __future__ import annotations

import string
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from airflow_provider_vidu.api.endpoints import CONTENT
from airflow_provider_vidu.common.artifacts import ARTIFACTS, Artifact
from airflow_provider_vidu.common.text import redacted, sanitized
from airflow_provider_vidu.defaults import check_size, check_word, checked_count, checked_flag, optional_seconds
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.orders.arguments import NAMES, OnClear
from airflow_provider_vidu.orders.money.budget import checked_budget
from airflow_provider_vidu.stores.paths import checked_destination, is_folder

if TYPE_CHECKING:
    from airflow_provider_vidu.batches.rows import Row
    from airflow_provider_vidu.operators.batch import ViduBatchOperator

OnFailure = Literal["continue", "stop"]
Reuse = Literal["never", "identical"]
RowsFormat = Literal["jsonl", "csv", "parquet"]
FORMATS: Final[tuple[RowsFormat, ...]] = get_args(RowsFormat)

MOST_IN_FLIGHT: Final = 1000
"""The trigger's arguments hold the open ids, and MySQL's column for them ends at 64 KiB."""

DEFAULT_NAMING: Final = "{key}"
NAMING_FIELDS: Final = ("key", "index", "generation_id", "model", "prompt")
_UNIQUE_FIELDS: Final = frozenset({"key", "index", "generation_id"})
OBJECTS: Final = frozenset({"parameters", "body"})
"""The fields of a row that hold objects, or the JSON text of one."""


def check_settings(task: ViduBatchOperator) -> None:
    """Read the arguments that are not rendered, also those that a cluster policy or a subclass has set since.

    :raises ViduConfigError: naming the argument.
    """
    for name in ("deferrable", "cancel_on_kill"):
        setattr(task, name, checked_flag(name, getattr(task, name)))
    task.is_dry_run = checked_flag("dry_run", task.is_dry_run)
    for name in ("timeout", "poll_interval"):
        setattr(task, name, optional_seconds(name, getattr(task, name)))
    checked_budget(task.budget)
    checked_min_success(task.min_success)
    check_naming(task.naming)
    checked_count("max_failures", task.max_failures)
    check_limits(checked_count("max_in_flight", task.max_in_flight), task.max_credits)
    check_size("max_bytes", task.max_bytes)
    words: Mapping[str, tuple[str | None, ...]] = {
        "on_failure": ("continue", "stop"),
        "on_clear": ("resume", "new"),
        "reuse": ("never", "identical"),
        "rows_format": (None, *FORMATS),
        "artifact": (None, *ARTIFACTS),
    }
    for name, known in words.items():
        check_word(name, getattr(task, name), known)


def check_limits(max_in_flight: int, max_credits: object) -> None:
    """Refuse, with a ViduConfigError, limits of a batch that nothing can be ordered within."""
    if not 1 <= max_in_flight <= MOST_IN_FLIGHT:
        raise ViduConfigError(f"max_in_flight must be from 1 to {MOST_IN_FLIGHT:,}, not {max_in_flight}.")
    if max_credits is None:
        return
    if not isinstance(max_credits, (int, float)) or isinstance(max_credits, bool) or not max_credits > 0:
        raise ViduConfigError(f"max_credits must be a number above 0, not {sanitized(max_credits, 40)!r}.")


def checked_min_success(value: Any) -> float | int:
    """Return ``min_success`` unchanged.

    :raises ViduConfigError: unless it is a float from 0 to 1, or a whole number of 0 or more.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, float) and 0 <= value <= 1:
        return value
    raise ViduConfigError(
        f"min_success must be a share from 0.0 to 1.0, such as 0.9, or a whole number of rows, not {value!r}."
    )


def check_naming(template: str) -> str:
    """Return a template for the names of files unchanged.

    :raises ViduConfigError: when it has other fields than those of :data:`NAMING_FIELDS`, or is the same for all rows.
    """
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except (ValueError, TypeError) as error:
        raise ViduConfigError(f"naming is not a template: {redacted(error, 100)}.") from None
    if unknown := names - set(NAMING_FIELDS):
        raise ViduConfigError(f"naming has an unknown field {min(unknown)!r}; known: {', '.join(NAMING_FIELDS)}.")
    if not names & _UNIQUE_FIELDS:
        raise ViduConfigError("naming must contain {key}, {index} or {generation_id}: each row has a file of its own.")
    try:
        template.format(**dict.fromkeys(NAMING_FIELDS, "x"))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ViduConfigError(
            f"naming cannot be filled in, because its fields are text: {redacted(error, 100)}."
        ) from None
    return template


def checked_folder(destination: object) -> str:
    """Return the folder of a batch as text.

    :raises ViduConfigError: when it is not one, or nothing can be stored in it.
    """
    checked = checked_destination(destination)
    if not is_folder(checked):
        raise ViduConfigError(
            f"destination {sanitized(checked, 120)!r} must be a folder, because a batch stores many files: end it with "
            "a slash."
        )
    return checked


def is_empty(value: object) -> bool:
    """Whether a field of a row counts as omitted."""
    if isinstance(value, str):
        return not value.strip()
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # which pandas leaves in a gap
        return True
    return isinstance(value, float) and value != value


class WrittenRows:
    """What the author of a DAG has filled in in rows that the DAG itself holds.

    In a row that comes from a file or from another task, an empty field counts as omitted. Here, one that an upstream
    task without a result has left empty would let another product be paid for.

    :param rows: the argument before templates are rendered.
    """

    def __init__(self, rows: object) -> None:
        listed = rows if isinstance(rows, (list, tuple)) else ()
        self._filled = [{name for name, value in _content(row) if not is_empty(value)} for row in listed]

    def checked(self, rows: list[Row], rendered: object) -> list[Row]:
        """Return the rows; one with a field that was rendered to None has a problem, so that it is not ordered.

        :param rendered: the argument after templates are rendered.
        """
        if not isinstance(rendered, (list, tuple)) or not len(rendered) == len(rows) == len(self._filled):
            return rows
        return [_checked(row, given, names) for row, given, names in zip(rows, rendered, self._filled, strict=True)]


def _checked(row: Row, given: object, filled: Collection[str]) -> Row:
    lost = set(filled) - {name for name, value in _content(given) if value is not None}
    if not lost or row.problem is not None:
        return row
    return replace(
        row,
        problem=ViduConfigError(
            f"{min(lost)} is None: check the XCom or the param that it is templated from. Nothing was submitted."
        ),
    )


def _content(row: object) -> Iterator[tuple[str, Any]]:
    """Yield the fields that a row's product is made of, by their paths."""
    for name, value in row.items() if isinstance(row, Mapping) else ():
        if name in NAMES or name in CONTENT:
            yield name, value
        if name in OBJECTS and isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", value[inner]) for inner in value if inner == "prompt" or inner in CONTENT)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of a batch after its templates are rendered; each has the meaning of the operator's argument.

    ``is_dry`` is whether that, or ``[vidu] dry_run``, makes it a dry run.
    """

    vidu_conn_id: str
    storage_conn_id: str | None
    max_in_flight: int
    max_credits: float | None
    min_success: float | int
    on_failure: OnFailure
    on_clear: OnClear
    naming: str
    timeout: float
    poll_interval: float | None
    max_failures: int
    artifact: Artifact | None
    most: int
    deferrable: bool
    cancel_on_kill: bool
    reuse: Reuse
    is_dry: bool = False
