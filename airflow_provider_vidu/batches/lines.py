"""The lines of a manifest: one for each row that has ended. They are kept as text, in a third of the memory. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, NamedTuple

from airflow_provider_vidu.api.ids import checked_id
from airflow_provider_vidu.common.media_types import without_suffix
from airflow_provider_vidu.common.values import epoch, mapping, price, strict_int
from airflow_provider_vidu.exceptions import ViduSubmitUnknownError

Line = dict[str, Any]

STORED: Final = "stored"
FAILED: Final = "failed"

_MOST_BYTES: Final = 10**13
"""The largest size of a file in a line: the sum of all must fit into an XCom."""

_MOST_TYPE_CHARS: Final = 100
_MOST_ORDERS: Final = 2**31


def checked_line(line: Any) -> Line:
    """Return a line of the manifest as it was recorded.

    :raises ValueError, ViduConfigError: when it lacks what each line has; the store may have other writers.
    """
    known = mapping(line)
    status, error = known.get("status"), mapping(known.get("error"))
    if not isinstance(known.get("key"), str) or status not in (FAILED, STORED):
        raise ValueError("a line without a key or a status")
    if status == FAILED and not (_is_name(error.get("type")) and isinstance(error.get("message"), str)):
        raise ValueError("a failed line without an error")
    if known.get("generation_id") is not None:
        checked_id(known["generation_id"])
    size = known.get("size", 0)
    if not isinstance(size, int) or not 0 <= size <= _MOST_BYTES or not isinstance(known.get("request", ""), str):
        raise ValueError("a line with a size or a request that is none")
    return dict(known)


def _is_name(kind: Any) -> bool:
    """Whether this may name a class of errors: the summary, which is an XCom, counts them by their names."""
    return isinstance(kind, str) and len(kind) <= _MOST_TYPE_CHARS


@dataclass(frozen=True, slots=True)
class EndedRow:
    """A row that has ended: its line as text, and what is counted over all rows.

    :param text: the line in the manifest, with its end.
    :param is_stored: whether it has a file; otherwise it has failed.
    :param is_retryable: whether it has failed and a retry may help.
    :param is_reused: whether another order has paid for its file.
    :param is_paid: whether it has failed with a generation that is paid for: a clear only stores its file.
    :param is_uncertain: whether it has failed because it is unknown if its generation was created.
    :param credits: what the generation has cost, if that is known.
    :param took: how long it took, in seconds, if that is known.
    :param index: the row's place, as it was recorded.
    """

    text: bytes
    is_stored: bool
    is_retryable: bool
    is_reused: bool
    is_paid: bool
    is_uncertain: bool
    has_id: bool
    credits: float | int | None
    took: float | None
    index: Any

    @classmethod
    def of(cls, line: Line) -> EndedRow:
        """Return what is kept of a line that was checked."""
        is_stored = line["status"] == STORED
        return cls(
            json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n",
            is_stored=is_stored,
            is_retryable=not is_stored and bool(line["error"].get("retryable")),
            is_reused=bool(line.get("reused_from")),
            is_paid=not is_stored and bool(line.get("paid") and line.get("generation_id")),
            is_uncertain=not is_stored and line["error"]["type"] == ViduSubmitUnknownError.__name__,
            has_id=bool(line.get("generation_id")),
            credits=price(line.get("credits")),
            took=epoch(line.get("took")),
            index=line.get("index"),
        )

    @property
    def line(self) -> Line:
        """The line, decoded."""
        decoded: Line = json.loads(self.text)
        return decoded


class Cost(NamedTuple):
    """What orders of rows have cost.

    :param generations: how many generations the batch itself has ordered.
    :param priced: of how many of them the price is known.
    :param uncertain: how many creates may have been paid for, which nothing can find out.
    """

    generations: int = 0
    priced: int = 0
    credits: float | int = 0
    uncertain: int = 0

    def plus(self, row: EndedRow) -> Cost:
        """Return the same with the order that a row has ended with."""
        has_own, known = row.has_id and not row.is_reused, None if row.is_reused else row.credits
        return Cost(
            self.generations + has_own,
            self.priced + (has_own and known is not None),
            self.credits + (known or 0),
            self.uncertain + row.is_uncertain,
        )

    @classmethod
    def sum(cls, each: Iterable[Cost]) -> Cost:
        """Add up costs."""
        return cls(*map(sum, zip(*each, strict=True)))

    def to_json(self, key: str) -> dict[str, Any]:
        """Return what a snapshot holds of a row."""
        return {"key": key, **self._asdict()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Cost:
        """Read what a snapshot holds of a row; anything that is not a number counts as 0."""
        counts = {name: strict_int(stored.get(name)) for name in ("generations", "priced", "uncertain")}
        known = {name: count for name, count in counts.items() if count is not None and 0 < count <= _MOST_ORDERS}
        return cls(**known, credits=max(price(stored.get("credits")) or 0, 0))


class Sums(NamedTuple):
    """What rows that have ended have cost, and how they have ended.

    :param stored: how many have a file.
    :param dearest: the highest price of a generation.
    :param has_free: whether a file has cost nothing.
    """

    cost: Cost = Cost()
    stored: int = 0
    dearest: float | int = 0
    has_free: bool = False

    def plus(self, row: EndedRow) -> Sums:
        """Return the same with one more row."""
        own = None if row.is_reused else row.credits
        return Sums(
            self.cost.plus(row),
            self.stored + row.is_stored,
            max(self.dearest, own or 0),
            self.has_free or (row.is_stored and own == 0),
        )


class Lines(MutableMapping[str, Line]):
    """Lines by their rows' keys, in the order in which the rows have ended; each look decodes one.

    :param ended: the rows; they are not copied.
    """

    def __init__(self, ended: dict[str, EndedRow] | None = None) -> None:
        self._ended: dict[str, EndedRow] = {} if ended is None else ended
        self._sums: Sums | None = None

    @property
    def sums(self) -> Sums:
        """What all of them have cost; each create looks at it, and is not slower the more rows have ended."""
        if self._sums is None:
            self._sums = reduce(Sums.plus, self._ended.values(), Sums())
        return self._sums

    @property
    def ended(self) -> dict[str, EndedRow]:
        """The same without decoding."""
        return self._ended

    def copy(self) -> Lines:
        """Return a copy. Like that of a dictionary, it is atomic: another thread may be adding lines."""
        return Lines(dict(self._ended))

    def __getitem__(self, key: str) -> Line:
        return self._ended[key].line

    def __setitem__(self, key: str, line: Line) -> None:
        row, is_new = EndedRow.of(line), key not in self._ended
        self._ended[key] = row
        # Between two creates a row ends: to add all up again took a batch of 100,000 rows a quarter of an hour.
        self._sums = self._sums.plus(row) if is_new and self._sums is not None else None

    def __delitem__(self, key: str) -> None:
        del self._ended[key]
        self._sums = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._ended)

    def __len__(self) -> int:
        return len(self._ended)

    def __contains__(self, key: object) -> bool:
        return key in self._ended


def keys_by_file_name(lines: Lines, folder: str, kind: str) -> dict[str, str]:
    """Return the keys of the rows that have a file, by its name in lower case and without its extension.

    :param folder: the URI of the files' folder, with a slash at its end.
    :param kind: what follows the names, before the extensions; it is omitted.
    """
    found: dict[str, str] = {}
    for key, row in lines.ended.items():
        uri = row.line.get("uri") if row.is_stored else None
        if isinstance(uri, str) and uri.startswith(folder):
            found[without_suffix(uri.removeprefix(folder)).removesuffix(kind).casefold()] = key
    return found
