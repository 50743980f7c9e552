"""Converts values of DAGs to JSON: lazy sequences, enums, decimals, the numbers of numpy and pandas. Pure."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import MAX_DEPTH, MAX_INTEGER, MIN_INTEGER
from airflow_provider_vidu.exceptions import ViduConfigError

_ADVICE: Final = {
    "timedelta": "Give the number of seconds.",
    **dict.fromkeys(("datetime", "date"), "Give its text (isoformat), or a number."),
    **dict.fromkeys(("set", "frozenset"), "Give a list."),
    "float": "Omit the field instead.",
}


def as_json(value: Any, depth: int = 0) -> Any:
    """Return a value converted to JSON types as far as possible; other values stay.

    Airflow passes the outputs of mapped tasks as lazy sequences, which are not lists. Enums become their values. numpy
    and pandas are not imported: their scalars and arrays are recognized by their attributes.

    :param depth: how deep the value is nested already.
    :raises ViduConfigError: when it is nested deeper than 100 levels, or in itself.
    """
    if depth > MAX_DEPTH:
        raise ViduConfigError("The request is not JSON serializable: it is nested too deeply, or in itself.")
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, enum.Enum):
        return as_json(value.value, depth + 1)
    if isinstance(value, Mapping):
        # By name: the items of Airflow's ParamsDict are Param objects, which hold the values.
        return {_name(name, depth + 1): as_json(value[name], depth + 1) for name in value}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return [as_json(item, depth + 1) for item in value]
    return _scalar(value, depth)


def _name(name: Any, depth: int) -> Any:
    converted = as_json(name, depth)
    return name if isinstance(converted, (list, dict)) else converted  # a tuple stays, and is named by what refuses it


def _scalar(value: Any, depth: int) -> Any:
    for kind in (str, int, float):  # numpy's text is a str, and its double a float
        if isinstance(value, kind):
            return str.__str__(value) if kind is str else kind(value)
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, UUID):
        return str(value)
    if hasattr(value, "dtype") and callable(getattr(value, "tolist", None)):
        converted = value.tolist()
        # numpy's long double, and a mock in a user's unit test, stay as they are.
        return value if hasattr(converted, "dtype") else as_json(converted, depth + 1)
    return value


def unfit(value: Any, where: str = "") -> str | None:
    """Return an error message for the first part of a value that is not JSON, with its path; None if all is.

    :param value: as :func:`plain` returns it.
    :param where: the field that holds it.
    """
    if isinstance(value, dict):
        named = ((item, f"{where}.{name}".removeprefix(".")) for name, item in value.items())
    elif isinstance(value, list):
        named = ((item, f"{where}[{index}]") for index, item in enumerate(value))
    elif isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        return f"{where or 'The value'} is an integer of more than 64 bits, which an XCom cannot hold."
    elif value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return None
    else:
        kind, shown = type(value).__name__, redacted(repr(value), 80)
        message = f"{where or 'The value'} holds {shown} of type {kind}, which JSON cannot represent."
        return f"{message} {_ADVICE.get(kind, '')}".rstrip()
    return next((problem for item, place in named if (problem := unfit(item, place))), None)
