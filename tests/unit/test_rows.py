"""Tables as one test: no row is left out, and the one that fails is named."""

from __future__ import annotations

import inspect

import pytest

from tests.rows import each_row


def test_every_row_of_stacked_tables_runs() -> None:
    """Stacked tables run each combination once; what no table fills is left to pytest."""
    seen: list[tuple[int, int, str]] = []

    @each_row("first", [1, 2])
    @each_row(("second", "third"), iter([(3, "a"), pytest.param(4, "b", id="four")]))
    def combined(first: int, second: int, third: str, fixture: str) -> None:
        assert fixture == "f"
        seen.append((first, second, third))

    assert list(inspect.signature(combined).parameters) == ["fixture"]
    combined(fixture="f")
    assert seen == [(1, 3, "a"), (1, 4, "b"), (2, 3, "a"), (2, 4, "b")]


def test_the_row_that_fails_is_named() -> None:
    """By its id, by the function or the list of ids, or by its values."""

    def note(rows: list[object], ids: object = None) -> str:
        @each_row("number", rows, ids=ids)
        def failing(number: int) -> None:
            assert number != 2

        with pytest.raises(AssertionError) as caught:
            failing()
        (found,) = caught.value.__notes__
        return str(found)

    assert note([1, 2]) == "The row of number: 2"
    assert note([1, pytest.param(2, id="two")]) == "The row of number: two"
    assert note([1, 2], ids=["one", "two"]) == "The row of number: two"
    assert note([1, 2], ids=lambda number: f"<{number}>") == "The row of number: <2>"


def test_a_table_that_tests_nothing_is_refused() -> None:
    """A table without rows, and a mark that would have no effect, are errors when the file is imported."""
    with pytest.raises(ValueError, match="without rows"):
        each_row("number", [])
    with pytest.raises(ValueError, match="a mark of its own"):
        each_row("number", [pytest.param(1, marks=pytest.mark.nightly)])
    with pytest.raises(ValueError, match="argument 2"):
        each_row("first, second", [(1,)])
