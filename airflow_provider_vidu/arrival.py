"""One version of a file as it arrives: counted, hashed, looked at, and handed to the sink."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from airflow_provider_vidu.artifacts import Artifact
from airflow_provider_vidu.bodies import real_codings
from airflow_provider_vidu.content import SNIFF_BYTES, BoxWalk, judged
from airflow_provider_vidu.exceptions import ViduDownloadRefusedError
from airflow_provider_vidu.storage import Sink
from airflow_provider_vidu.text import one_line
from airflow_provider_vidu.transfer_policy import Progress

OpenSink = Callable[[str, int | None], Sink]
"""Takes the content type and the announced size; returns a sink. Called anew when a transfer starts over."""


class Arrival:
    """Takes the bytes of one version of the file; a transfer that starts over makes a new one.

    :param open_sink: opens the destination as soon as the first bytes have shown what they are.
    :param artifact: what is wanted; None for a result of any medium.
    :param max_bytes: the largest file that is accepted.
    :param scrub: takes secrets out of what an error may quote of the beginning.
    """

    def __init__(
        self,
        open_sink: OpenSink,
        artifact: Artifact | None,
        max_bytes: int | None,
        scrub: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self.received = 0
        self.total: int | None = None
        self.validator: str | None = None
        self.content_type = ""
        self._open_sink = open_sink
        self._artifact = artifact
        self._max_bytes = max_bytes
        self._scrub = scrub
        self._declared: str | None = None
        self._path = ""
        self._head = bytearray()
        self._digest = hashlib.sha256()
        self._boxes = BoxWalk()
        self._sink: Sink | None = None

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        return Progress(self.received, self.total, self.validator)

    @property
    def sha256(self) -> str:
        """The digest of what has come, in hex."""
        return self._digest.hexdigest()

    def describe(self, declared: str | None, validator: str | None, path: str) -> None:
        """Note what the first answer says: content type, validator, and the URL's path."""
        self._declared, self.validator, self._path = declared, validator, path

    def expect(self, total: int | None, encoding: str) -> None:
        """Note the announced size before the body comes.

        :raises ViduDownloadRefusedError: when it is too large, or the body is encoded: counting and
            hashing would be about other bytes than the file's. We asked for identity.
        """
        self.total = total
        self._check_size(total)
        if real_codings(encoding):
            raise ViduDownloadRefusedError(
                f"Not stored: the server sent the file {one_line(encoding, 40)}-encoded although it was asked not to."
            )

    def accept(self, data: memoryview) -> None:
        """Take the next bytes.

        :raises ViduDownloadRefusedError: when they show something else than what is wanted, or are too many.
        :raises ViduStorageError: when they cannot be written.
        """
        self.received += len(data)
        self._check_size(self.received)
        if self.total is None:
            self._boxes.feed(data)
        if self._sink is not None:
            self._digest.update(data)
            self._sink.write(data)
            return
        self._head += data
        if len(self._head) >= SNIFF_BYTES:
            self._open()

    def problem(self, *, surplus: bool) -> str | None:
        """Return what is wrong with the file now that its body has ended, or None when it is whole.

        :param surplus: whether more came than was announced.
        """
        if self.total is not None and self.received < self.total:
            return f"The transfer ended after {self.received:,} of {self.total:,} bytes."
        if surplus or (self.total is not None and self.received > self.total):
            return f"The server sent more than the {self.total or 0:,} bytes it had announced."
        if self.received == 0:
            return "The server sent an empty body."
        if self.total is None and self._boxes.is_cut():
            return f"The connection ended after {self.received:,} bytes, in the middle of the file."
        return None

    @property
    def shows_its_end(self) -> bool:
        """Whether the file's own structure tells that its end has come."""
        return self._boxes.is_whole()

    def complete(self) -> None:
        """Write what a very short file still has in the buffer."""
        if self._sink is None:
            self._open()

    def publish(self) -> None:
        """Publish the file.

        :raises ViduStorageError: when that fails; nothing has been published then.
        """
        assert self._sink is not None
        self._sink.publish()

    def discard(self) -> None:
        """Throw everything away, also what was not stored: it may quote the key, and an error keeps this object."""
        self._head = bytearray()
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.discard()

    def _open(self) -> None:
        head = self._scrub(bytes(self._head[:SNIFF_BYTES]))
        self.content_type = judged(self._declared, head, self._artifact, self._path)
        self._sink = self._open_sink(self.content_type, self.total)
        self._digest.update(self._head)
        self._sink.write(memoryview(self._head))
        self._head = bytearray()

    def _check_size(self, size: int | None) -> None:
        if self._max_bytes is not None and size is not None and size > self._max_bytes:
            raise ViduDownloadRefusedError(
                f"Not stored: the file has {size:,} bytes or more; max_bytes is {self._max_bytes:,}."
            )
