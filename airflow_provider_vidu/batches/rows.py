"""The rows of a batch: their keys, their requests and the names of their files. Decisions, no I/O."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.api.endpoints import typed
from airflow_provider_vidu.api.json_values import as_json
from airflow_provider_vidu.batches.arguments import DEFAULT_NAMING, OBJECTS, is_empty
from airflow_provider_vidu.batches.lines import Lines, keys_by_file_name
from airflow_provider_vidu.common.json_size import value_count
from airflow_provider_vidu.common.media_types import without_suffix
from airflow_provider_vidu.common.parsing import MOST_VALUES
from airflow_provider_vidu.common.text import printable, sanitized
from airflow_provider_vidu.common.urls import without_store_signatures
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.orders.arguments import NAMES
from airflow_provider_vidu.orders.request import json_object
from airflow_provider_vidu.stores.naming import stem_of

if TYPE_CHECKING:
    from airflow_provider_vidu.models import Generation

KEY: Final = "key"
NAME: Final = "name"
HIDDEN_FOLDER: Final = ".vidu"
"""The folder beneath a destination that holds the states of its batches."""

MAX_KEY_CHARS: Final = 200
MAX_ROWS: Final = 100_000
_NOTHING: Final[dict[str, Any]] = dict.fromkeys(NAMES)
_OWN: Final = frozenset({KEY, NAME, *NAMES})
"""The fields of a row that are not parameters."""
_CONTENT: Final = frozenset({"prompt", "images", "parameters", "body"})
_FIELD = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.:\[\]-]*")
"""The name of a parameter. A text, or a line of a page, is none."""
_DERIVED_CHARS: Final = 12
_NAMED_DUPLICATES: Final = 10
_INDEX = re.compile(r"__index_level_\d+__|Unnamed: \d+")
"""The index of a table of pandas, in Parquet and read from CSV. As a parameter, the API would refuse every row."""
_VERBATIM = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9 ._-]*[A-Za-z0-9_-])?")
_RESERVED = re.compile(r"(?i)(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")


@dataclass(frozen=True, slots=True)
class Row:
    """One generation of a batch.

    :param key: identifies it in the manifest, over all runs of the task.
    :param index: its place, from 0.
    :param arguments: the arguments of its request, by their names in ``orders.arguments.NAMES``.
    :param name: the stem of its file that the row itself gives.
    :param problem: why the row cannot be ordered, if it was unreadable from the start.
    """

    key: str
    index: int
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    name: str | None = None
    problem: ViduError | None = None


def rows_of(listed: Any, defaults: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a batch.

    A row is an object with the fields ``key``, ``name``, ``prompt``, ``model``, ``images``, ``endpoint``,
    ``parameters`` and ``body``; each other field is a parameter of the request (``duration``). A text alone is a
    prompt. Empty fields count as omitted. A row of another kind becomes a row with a problem.

    :param listed: a list, another iterable of rows, or a table of pandas, Polars or Arrow; an exception in it stands
        for a row that could not be read.
    :param defaults: arguments of rows that omit them; ``parameters`` are merged, and the row's win.
    :raises ViduConfigError: when it is not a list, is too long, or two rows have one key.
    """
    listed = _records(listed)
    try:
        each = None if isinstance(listed, (str, bytes, Mapping)) else iter(listed)
    except TypeError:  # an output that was not rendered raises it, too
        each = None
    if each is None:
        raise ViduConfigError(f"rows must be a list of rows, not {type(listed).__name__}.")
    rows: list[Row] = []
    seen: Counter[str] = Counter()
    values = 0
    for index, given in enumerate(each):
        if index >= MAX_ROWS:
            raise ViduConfigError(f"rows holds more than {MAX_ROWS:,} rows: split them into several batches.")
        values += _values_in_texts(given)
        if values > MOST_VALUES:
            raise ViduConfigError(
                f"The JSON texts of rows hold more than {MOST_VALUES:,} values: split them into several batches."
            )
        rows.append(_row(index, given, defaults, seen))
    _check_keys(rows)
    return rows


def _records(listed: Any) -> Any:
    """Return the rows of a table as a list; another value unchanged.

    A loop over a table of pandas yields the names of its columns, each of which would be a prompt.
    """
    if hasattr(listed, "mock_calls"):  # it has every attribute
        return listed
    if hasattr(listed, "iloc") and hasattr(listed, "columns"):
        return listed.to_dict("records")
    for name in ("to_dicts", "to_pylist"):  # Polars, Arrow
        if callable(convert := getattr(listed, name, None)):
            return convert()
    return listed


def _values_in_texts(given: object) -> int:
    """Return how many values the JSON texts of a row hold, which are kept as objects."""
    if not isinstance(given, Mapping):
        return 0
    texts = (value for name, value in given.items() if str(name).strip() in OBJECTS and isinstance(value, str))
    return sum(value_count(text.encode("utf-8", "replace"), 0) for text in texts)


def _row(index: int, given: object, defaults: Mapping[str, Any], seen: Counter[str]) -> Row:
    derived = f"row-{index + 1}"
    try:
        if isinstance(given, ViduError):
            raise given
        fields = _fields(given)
        derived = _derived_key(fields, seen)
        key = _given_key(fields.pop(KEY, None)) or derived
        name = fields.pop(NAME, None)
    except ViduError as error:
        return Row(derived, index, problem=error)
    try:
        return Row(key, index, _arguments(fields, defaults), _stem(name))
    except ViduError as error:
        return Row(key, index, problem=error)


def _fields(given: object) -> dict[str, Any]:
    # Lazy sequences of Airflow, arrays and enums: the key is derived from the content, which they do not show.
    given = as_json(given)
    if isinstance(given, str):
        given = {"prompt": given}
    if not isinstance(given, Mapping):
        raise ViduConfigError(f"A row must be an object or a prompt, not {type(given).__name__}.")
    if wrong := [name for name in given if not isinstance(name, str) or not name.strip()]:
        raise ViduConfigError(f"A row has a field without a name: {sanitized(wrong[0], 40)!r}.")
    fields = {name.strip(): value for name, value in given.items() if not _INDEX.fullmatch(name.strip())}
    if wrong := [name for name in fields if name not in _OWN and name.lower() in _OWN]:
        raise ViduConfigError(
            f"A row has the field {wrong[0]!r}. Write it in lower case: otherwise it is an unknown parameter, and "
            "the row would be ordered without it."
        )
    if not _CONTENT & fields.keys() and not all(map(_FIELD.fullmatch, fields)):  # not quoted, like no line of a file
        raise ViduConfigError(
            "A row has neither prompt, images, parameters nor body, and a field whose name no request has: it would be "
            "ordered without what the row says. The first line of a CSV file must name its columns, such as prompt."
        )
    filled = {name: value for name, value in fields.items() if not is_empty(value)}
    if fields and not filled:  # a blank line of a table, or an empty prompt: the defaults alone would be paid for
        raise ViduConfigError("The row is empty.")
    return filled


def _derived_key(fields: Mapping[str, Any], seen: Counter[str]) -> str:
    """Return a key of the row's content; equal rows are numbered.

    So it does not change when other rows are inserted, or addresses are signed again: no row is ordered again.
    """
    # Parsed first: names of different types cannot be sorted.
    content = json.loads(json.dumps(fields, default=str, skipkeys=True))
    text = without_store_signatures(json.dumps(content, sort_keys=True))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    key = digest.hexdigest()[:_DERIVED_CHARS]
    seen[key] += 1
    return key if seen[key] == 1 else f"{key}-{seen[key]}"


def _whole(value: object) -> object:
    """Return a whole number as an integer: pandas makes floats of a column with gaps."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _given_key(value: object) -> str | None:
    value = _whole(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ViduConfigError(f"The key of a row must be text or a whole number, not {type(value).__name__}.")
    key = str(value).strip()
    if len(key) > MAX_KEY_CHARS:
        raise ViduConfigError(f"The key of a row has {len(key)} characters; at most {MAX_KEY_CHARS} are accepted.")
    return printable(key, MAX_KEY_CHARS)


def _arguments(fields: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's arguments; fields without a name of their own are parameters."""
    own: dict[str, Any] = {name: fields.pop(name) for name in NAMES if name in fields}
    parameters = {**_object("parameters", own.pop("parameters", None)), **typed(fields)}
    if own.get("body") is not None:
        own["body"] = _object("body", own["body"])
        if parameters or any(name in own for name in ("prompt", "model", "images")):
            raise ViduConfigError("body replaces all other fields of a request: give one or the other.")
        return {**_NOTHING, "endpoint": defaults.get("endpoint"), **own}
    merged = {**_object("parameters", defaults.get("parameters")), **parameters}
    kept: dict[str, Any] = {name: defaults.get(name) for name in ("prompt", "model", "images", "endpoint")}
    return {**_NOTHING, **kept, **own, "parameters": merged or None}


def _object(name: str, value: object) -> dict[str, Any]:
    return {} if value is None or (isinstance(value, str) and not value.strip()) else json_object(name, value)


def _check_keys(rows: Sequence[Row]) -> None:
    if twice := [key for key, count in Counter(row.key for row in rows).items() if count > 1]:
        raise ViduConfigError(
            f"Several rows have the same key: {_some(twice)}. Nothing was ordered. Give each row a key of its own."
        )


def stem(row: Row, naming: str, generation: Generation | None) -> str:
    """Return the name of a row's file within the destination, without its extension.

    :param generation: None before there is one; another text stands for ``{generation_id}`` then.
    :raises ViduConfigError: when a part of the name is empty, or not usable.
    """
    if row.name is not None:
        return row.name
    body = row.arguments.get("body") or {}
    model, prompt = (str(row.arguments.get(name) or body.get(name) or "") for name in ("model", "prompt"))
    known = {
        "key": row.key,
        "index": f"{row.index:05d}",
        "generation_id": generation.id if generation is not None else "id",
        "model": model,
        "prompt": prompt[:60],
    }
    # A value never makes a folder; a slash in the template does. The other sign leads to a name with a hash.
    values = {name: value.replace("/", "|") for name, value in known.items()}
    return _joined(naming.format(**values))


def check_names(rows: Sequence[Row], naming: str) -> list[Row]:
    """Refuse rows that would write the same file, as far as that is known before they are ordered.

    :return: the rows; one whose file can have no name has a problem, so that it is not ordered.
    :raises ViduConfigError: naming the files.
    """
    counts: Counter[str] = Counter()
    checked: list[Row] = []
    for row in rows:
        try:
            name = None if row.problem is not None else stem(row, naming, None).casefold()
        except ViduConfigError as error:
            name, row = None, replace(row, problem=error)
        checked.append(row)
        if name is not None and (row.name or "generation_id" not in naming):
            counts[name] += 1
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ViduConfigError(f"Several rows have the same file name: {_some(twice)}. Nothing was ordered.")
    return checked


def names_beside(rows: Mapping[str, Row], naming: str, lines: Lines, folder: str, kind: str) -> dict[str, str]:
    """Return the names of files, by their rows' keys, that differ because another row's file has the row's name.

    Rows that were inserted or moved shift ``{index}``, so that a file that is paid for would be replaced. A ``name`` of
    a row replaces the file of one that is no longer among the rows: that is how an edited row keeps its file's name.

    :param rows: all rows of the task, by their keys.
    :param folder: the URI of the files' folder, with a slash at its end.
    :param kind: what follows the names of all files, before their extensions.
    """
    left = [row for row in rows.values() if row.key not in lines and row.problem is None]
    if naming == DEFAULT_NAMING or "generation_id" in naming:  # no other row's, whatever rows are added
        left = [row for row in left if row.name is not None]
    taken = keys_by_file_name(lines, folder, kind) if left else {}
    found: dict[str, str] = {}
    for row in left:
        name = stem(row, naming, None)
        owner = taken.get(name.casefold(), row.key)
        if owner != row.key and (row.name is None or owner in rows):
            digest = hashlib.sha256(row.key.encode("utf-8", "surrogatepass")).hexdigest()
            found[row.key] = f"{name}-{digest[:_DERIVED_CHARS]}"
    return found


def _stem(name: object) -> str | None:
    name = _whole(name)
    if name is None:
        return None
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        raise ViduConfigError(f"The name of a row's file must be text, not {type(name).__name__}.")
    return _joined(without_suffix(str(name).strip()))


def _joined(path: str) -> str:
    segments = [segment.strip() for segment in path.split("/")]
    if any(segment in ("", ".", "..", HIDDEN_FOLDER) for segment in segments):
        raise ViduConfigError(
            f"The file name {sanitized(path, 100)!r} is not usable: it must not be empty, and its folders must not be "
            f"empty, '.', '..' or {HIDDEN_FOLDER!r}."
        )
    return "/".join(map(_segment, segments))


def _segment(text: str) -> str:
    """Return a part of a name that every file system takes: unchanged, or cleaned and with a hash of the original."""
    is_safe = _VERBATIM.fullmatch(text) and len(text) <= 120 and not _RESERVED.fullmatch(text)
    return text if is_safe else stem_of(text, None)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_DUPLICATES
    return ", ".join(map(repr, names[:_NAMED_DUPLICATES])) + (f" and {more} more" if more > 0 else "")
