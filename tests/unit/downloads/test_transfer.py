"""The transfer engine, before it sends anything."""

from __future__ import annotations

import tracemalloc

from airflow_provider_vidu.downloads.transfer import BUFFER_BYTES, Transfer


def test_a_buffer_takes_nothing_from_the_heap():
    """What a thread has freed there stays with its arena: with a MiB for each file, a batch's threads kept 30 MiB."""
    tracemalloc.start()
    try:
        transfer = Transfer("https://x.example/film.mp4", lambda *_: None)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < BUFFER_BYTES / 10
    for buffer in transfer._buffers:
        assert len(buffer) == BUFFER_BYTES
        buffer[:2] = b"ab"
        assert bytes(buffer[:3]) == b"ab\0"
