"""Values as DAGs hand them over, as JSON: lazy sequences, enums, decimals, the numbers of numpy and pandas. Pure."""

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
    "datetime": "Give its text (isoformat), or a number.",
    "date": "Give its text (isoformat), or a number.",
    "set": "Give a list.",
    "frozenset": "Give a list.",
    "float": "Leave the field out instead.",
}


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value with everything that JSON has a form for in that form; all else stays.

    Airflow hands the outputs of mapped tasks over as lazy sequences, which are no lists. Enums stand for their values.
    numpy and pandas are not imported: their scalars and arrays are known by what they offer.

    :param value: anything.
    :param depth: how deep it is nested already.
    :raises ViduConfigError: when it is nested deeper than 100 levels, or in itself.
    """
    if depth > MAX_DEPTH:
        raise ViduConfigError("The request is nested too deeply, or in itself: it is no JSON.")
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value, depth + 1)
    if isinstance(value, Mapping):
        # By name: the items of Airflow's ParamsDict are Param objects, which hold the values.
        return {plain(name, depth + 1): plain(value[name], depth + 1) for name in value}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return [plain(item, depth + 1) for item in value]
    return _scalar(value, depth)


def _scalar(value: Any, depth: int) -> Any:
    for kind in (str, int, float):  # numpy's text is a str, and its double a float
        if isinstance(value, kind):
            return str.__str__(value) if kind is str else kind(value)
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, UUID):
        return str(value)
    if hasattr(value, "dtype") and callable(getattr(value, "tolist", None)):
        made = value.tolist()
        # numpy's long double, and a mock of a user's unit test, stay what they are.
        return value if hasattr(made, "dtype") else plain(made, depth + 1)
    return value


def unfit(value: Any, where: str = "") -> str | None:
    """Return what JSON has no form for in a value, named by the fields that lead to it, and what to give instead.

    :param value: as :func:`plain` returns it.
    :param where: the field that holds it.
    """
    if isinstance(value, dict):
        named = ((item, f"{where}.{name}".removeprefix(".")) for name, item in value.items())
    elif isinstance(value, list):
        named = ((item, f"{where}[{index}]") for index, item in enumerate(value))
    elif isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        return f"{where or 'The value'} is an integer of more than 64 bits, which Airflow keeps in no XCom."
    elif value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return None
    else:
        kind = type(value).__name__
        message = (
            f"{where or 'The value'} holds {redacted(repr(value), 80)} of type {kind}, which JSON cannot represent."
        )
        return f"{message} {_ADVICE.get(kind, '')}".rstrip()
    return next((told for item, place in named if (told := unfit(item, place))), None)
