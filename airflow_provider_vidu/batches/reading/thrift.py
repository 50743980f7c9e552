"""Reads structs of Thrift's compact protocol, which describe the contents of Parquet files, within limits. No I/O.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Lists = Mapping[int, Any]
"""What the lists in a struct hold, by the numbers of their fields: :data:`INTEGERS`, :data:`TEXTS`, or structs, as what
their lists hold. For a field with a struct, what its lists hold."""
INTEGERS: Final = frozenset({4, 5, 6})
TEXTS: Final = frozenset({8})
_STRUCTS: Final = frozenset({12})
_NO_LISTS: Final[Lists] = {}
_DEEPEST: Final = 20
_LONGEST_INTEGER: Final = 10  # bytes
_LAST_FIELD: Final = 0x7FFF
_DAMAGED: Final = "its metadata is damaged"


class CompactReader:
    """Reads structs from bytes.

    No other reader may find another meaning: two fields of one number, field numbers that it would cut to 16 bits,
    lists of another kind than it expects, and kinds that Parquet does not use are errors. Integers are returned uncut.

    :param most_bytes: how many bytes all structs together may take, where a text counts as one.
    """

    def __init__(self, content: bytes, most_bytes: int) -> None:
        self._content = content
        self._left = most_bytes
        self.position = 0
        """Where the next struct begins."""

    def struct(self, lists: Lists = _NO_LISTS, depth: int = 0) -> dict[int, Any]:
        """Return the values of the next struct, by the numbers of their fields; texts are bytes.

        :param lists: what its lists must hold.
        :raises ValueError: when it is damaged, too deep or too long.
        """
        if depth > _DEEPEST:
            raise ValueError("its metadata is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while (kind := (head := self._byte()) & 15) != 0:
            number = number + (head >> 4) if head >> 4 else self._integer()
            if number in fields or not 0 <= number <= _LAST_FIELD:
                raise ValueError(_DAMAGED)
            held = lists.get(number)
            if kind == 9:
                fields[number] = self._list(held, depth)
            else:
                fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, held, depth)
        return fields

    def _list(self, held: Any, depth: int) -> list[Any]:
        head = self._byte()
        kind, length = head & 15, head >> 4 if head >> 4 < 15 else self._unsigned()
        # Readers do not look at the kind if they know the field.
        if held is not None and kind not in (_STRUCTS if isinstance(held, Mapping) else held):
            raise ValueError(_DAMAGED)
        return [self._value(kind, held, depth) for _ in range(length)]

    def _value(self, kind: int, held: Any, depth: int) -> Any:
        if kind in INTEGERS:
            return self._integer()
        if kind == 8:
            return self._bytes(self._unsigned())
        if kind == 12:
            return self.struct(held if isinstance(held, Mapping) else _NO_LISTS, depth + 1)
        if kind in (1, 2, 3):  # in a list, a boolean takes a byte
            return self._byte()
        if kind == 7:
            return self._bytes(8)
        raise ValueError(_DAMAGED)

    def _integer(self) -> int:
        number = self._unsigned()
        return number >> 1 ^ -(number & 1)

    def _unsigned(self) -> int:
        number = 0
        for place in range(_LONGEST_INTEGER):
            byte = self._byte()
            number |= (byte & 127) << 7 * place
            if byte < 128:
                return number
        raise ValueError(_DAMAGED)

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, length: int) -> bytes:
        end = self.position + length
        self._left -= 1
        if self._left < 0:
            raise ValueError("it has too much metadata")
        if end > len(self._content):
            raise ValueError(_DAMAGED)
        taken = self._content[self.position : end]
        self.position = end
        return taken
