"""Tables of cheap cases as one test: pytest and pytest-xdist spend about five milliseconds on each test of its own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

_Param = type(pytest.param())


def each_row(
    names: str | Sequence[str], rows: Iterable[Any], ids: Any = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test with each row of a table, as ``pytest.mark.parametrize`` does, but as one test.

    A note below the error names the row that failed. Several tables may be stacked. For tests whose fixtures, if they
    have any, may be shared by all rows.

    :param names: the arguments that a row fills.
    :param rows: the rows; ``pytest.param`` may give one an id.
    :param ids: a function of a value, or a list of ids.
    """
    split = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    is_bare = isinstance(names, str) and len(split) == 1
    given = None if ids is None or callable(ids) else list(ids)
    table: list[tuple[str, dict[str, Any]]] = []
    for number, row in enumerate(rows):
        if isinstance(row, _Param) and row.marks:
            raise ValueError("a row in a loop cannot have a mark of its own")
        values = row.values if isinstance(row, _Param) else (row,) if is_bare else tuple(row)
        label = (isinstance(row, _Param) and row.id) or (given and given[number])
        label = label or ", ".join(str(ids(value)) if callable(ids) else repr(value)[:200] for value in values)
        table.append((label, dict(zip(split, values, strict=True))))
    if not table:
        raise ValueError("a table without rows tests nothing")

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(**others: Any) -> None:
            for label, arguments in table:
                try:
                    test(**arguments, **others)
                except BaseException as error:
                    error.add_note(f"The row of {', '.join(split)}: {label}")
                    raise

        signature = inspect.signature(test)
        left = [one for name, one in signature.parameters.items() if name not in split]
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return run

    return decorate
