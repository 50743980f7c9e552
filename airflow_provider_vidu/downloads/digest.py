"""The SHA-256 of a file, computed beside the thread that receives and writes it."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

PIECE_BYTES: Final = 256 * 1024
"""Pieces of this size arrive only if the transfer is faster than the digest; handing smaller ones over would cost more
than it gains."""


class Digest:
    """The SHA-256 of a stream. ``hashlib`` releases the GIL, so a large piece is hashed while the next one arrives."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._thread: ThreadPoolExecutor | None = None
        self._may_start = True
        self._pending: Future[None] | None = None

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; a large piece must stay unchanged until the next call."""
        self._wait()
        if len(data) >= PIECE_BYTES and self._may_start:
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="vidu-sha256")
            try:
                self._pending = self._thread.submit(self._sha256.update, data)
            except RuntimeError:  # no more threads, or the interpreter is shutting down
                self._may_start = False
                self._thread.shutdown(cancel_futures=True)  # the piece is in its queue, and would count twice
            else:
                return
        self._sha256.update(data)

    def hexdigest(self) -> str:
        """Return the digest of everything so far."""
        self.close()
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Wait for the last piece and end the thread."""
        self._wait()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
