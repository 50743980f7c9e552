"""What DAGs hand over, as JSON; and what JSON has no form for, by name."""

from __future__ import annotations

import enum
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import MagicMock
from uuid import UUID

import pytest

from airflow_provider_vidu.api.json_values import as_json, unfit
from airflow_provider_vidu.api.messages import ApiRequest
from airflow_provider_vidu.exceptions import ViduConfigError
from tests.rows import each_row

ID = UUID("8267422a-1834-4a76-b3e0-1b958643f38f")


class Model(enum.Enum):
    """A model by name, as a DAG's author may keep them."""

    Q2 = "viduq2"


class Text(str):
    """Text of another type, as numpy has it."""


class TextModel(enum.StrEnum):
    """The same as text."""

    Q2 = "viduq2"


class Seconds(enum.IntEnum):
    """Durations by name."""

    FOUR = 4


class Double(float):
    """As numpy's double: a float with a type and a plain form."""

    dtype = "float64"


class Scalar:
    """As numpy's and pandas' other scalars and arrays: known by what they offer."""

    dtype = "any"

    def __init__(self, value: Any) -> None:
        self.value = value

    def tolist(self) -> Any:
        """Return the plain value."""
        return self.value

    def __bool__(self) -> bool:
        raise ValueError("The truth value of an array is ambiguous.")


@each_row(("value", "expected"), [
    (Model.Q2, "viduq2"), (TextModel.Q2, "viduq2"), (Seconds.FOUR, 4), (Text("a"), "a"), (ID, str(ID)),
    (Decimal(4), 4), (Decimal("4.0"), 4), (Decimal("1.5"), 1.5), (Double(1.5), 1.5), (True, True), (None, None),
    (Scalar(4), 4), (Scalar(True), True), (Scalar([1, Scalar(2)]), [1, 2]),
    (MappingProxyType({Model.Q2: (1, Model.Q2)}), {"viduq2": [1, "viduq2"]}),
])  # fmt: skip
def test_what_has_a_plain_form(value, expected):
    """It is that form, of exactly that type, so that an XCom of it needs no class to be read."""
    found = as_json({"a": [value]})["a"][0]
    assert (found, type(found)) == (expected, type(expected))
    assert json.loads(json.dumps(found)) == expected
    assert unfit(found) is None


@each_row(("value", "message"), [
    ({"duration": timedelta(seconds=4)}, r"duration holds .*of type timedelta, .*Give the number of seconds\."),
    ({"a": [{"at": datetime(2026, 1, 1, tzinfo=UTC)}]}, r"a\[0\]\.at holds .*of type datetime, .*isoformat"),
    ({"a": {1}}, r"a holds \{1\} of type set, which JSON cannot represent. Give a list."),
    ({"a": float("nan")}, "a holds nan of type float"),
    ({"a": Decimal("NaN")}, "a holds Decimal.* of type Decimal"),
    ({"a": b"x"}, "a holds b'x' of type bytes, which JSON cannot represent.$"),
    ({"a": Path("x")}, "a holds .* of type PosixPath"),
    ({"a": [2**64]}, r"a\[0\] is an integer of more than 64 bits"),
    ({"a": -(2**63) - 1}, "a is an integer of more than 64 bits"),
])  # fmt: skip
def test_what_has_none_is_named(value, message):
    """The field that holds it, what it is, and what to give instead."""
    told = unfit(as_json(value))
    assert told is not None
    assert re.search(message, told)


class Params(dict[str, Any]):
    """As Airflow's ParamsDict: its items are not its values."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name).value

    def items(self) -> Any:
        """Return names and Param objects."""
        return super().items()


def test_an_object_is_read_by_its_names():
    """``parameters=dag.params`` holds the values of the params."""
    assert as_json(Params(duration=Scalar(4))) == {"duration": 4}


def test_a_value_within_itself():
    """It is refused in words instead of a RecursionError."""
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ViduConfigError, match="nested too deeply"):
        as_json(value)


def test_a_name_that_is_a_tuple_is_refused_in_words():
    """A native template makes one of the text ``{(1, 2): 3}``: a bare TypeError ended a batch for one of its rows."""
    with pytest.raises(ViduConfigError, match="keys must be str"):
        ApiRequest("POST", "/ent/v2/text2video", as_json({"duration": 4, (1, 2): 3}))


def test_a_mock_stays_what_it_is():
    """It has a dtype and a tolist as everything else; the error about it names its type, and no depth."""
    mock = MagicMock()
    assert as_json(mock) is mock
