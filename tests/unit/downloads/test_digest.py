"""The digest of a file that arrives faster than it can be hashed."""

from __future__ import annotations

import hashlib
import threading
from unittest.mock import Mock

from airflow_provider_vidu.downloads.digest import PIECE_BYTES, Digest
from tests.rows import each_row


@each_row("pieces", [[3, 5], [PIECE_BYTES], [PIECE_BYTES, 1, PIECE_BYTES * 2, PIECE_BYTES - 1], [1, PIECE_BYTES] * 3])
def test_the_pieces_are_hashed_in_order(pieces):
    """Whichever thread takes them."""
    taken, whole = Digest(), b""
    for number, size in enumerate(pieces):
        piece = bytes([number + 1]) * size
        taken.update(memoryview(piece))
        whole += piece
    assert taken.hexdigest() == hashlib.sha256(whole).hexdigest()


def test_a_piece_may_change_when_the_next_one_is_taken():
    """The transfer receives into two buffers in turn: the first is free again once the second is handed over."""
    buffers, whole, taken = [bytearray(PIECE_BYTES), bytearray(PIECE_BYTES)], b"", Digest()
    for number in range(20):
        buffers[0][:] = bytes([number]) * PIECE_BYTES
        whole += buffers[0]
        taken.update(memoryview(buffers[0]))
        buffers.reverse()
    assert taken.hexdigest() == hashlib.sha256(whole).hexdigest()


def test_small_pieces_need_no_thread_and_the_end_leaves_none():
    """A batch stores a thousand small files."""
    before = threading.active_count()
    taken = Digest()
    for _ in range(8):
        taken.update(bytes(PIECE_BYTES - 1))
    assert threading.active_count() == before
    taken.update(bytes(PIECE_BYTES))
    assert threading.active_count() == before + 1
    taken.hexdigest()
    assert threading.active_count() == before
    taken.update(bytes(PIECE_BYTES))
    taken.close()
    assert threading.active_count() == before


def test_a_process_without_room_for_a_thread_hashes_by_itself(monkeypatch):
    """A worker may be near its limit of threads, and later below it again; no piece counts twice."""
    taken = Digest()
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        taken.update(bytes(PIECE_BYTES))
    taken.update(bytes(PIECE_BYTES))
    assert taken.hexdigest() == hashlib.sha256(bytes(2 * PIECE_BYTES)).hexdigest()
