"""One version of a file as it arrives: counts, hashes, checks and writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from airflow_provider_vidu.common.artifacts import Artifact
from airflow_provider_vidu.common.media_types import SNIFF_BYTES, sniffed
from airflow_provider_vidu.downloads.content import BoxWalk, checked_type, text_kind
from airflow_provider_vidu.downloads.decisions import Progress
from airflow_provider_vidu.downloads.digest import Digest
from airflow_provider_vidu.downloads.unpacking import FileUnpacker, unpacker_of
from airflow_provider_vidu.exceptions import ViduDownloadRefusedError
from airflow_provider_vidu.stores.base import AtomicWriter, StoredRecord

OpenWriter = Callable[[str, int | None], AtomicWriter]
"""Takes the content type and the announced size and returns the writer; called again when a transfer starts over."""


class IncomingFile:
    """Takes the bytes of one version of the file; a transfer that starts over creates a new one.

    A file that the server compressed unrequested is unpacked: ``received`` counts the network's bytes, for resuming;
    size, digest and writer refer to the file itself.

    :param open_writer: opens the destination once the first bytes have proven the content type.
    :param artifact: the wanted file; None for a result of any medium.
    :param max_bytes: the largest accepted size.
    :param redact: removes secrets from the first bytes, which an error may quote.
    """

    def __init__(
        self,
        open_writer: OpenWriter,
        artifact: Artifact | None,
        max_bytes: int | None,
        redact: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self.received = 0
        """Bytes from the network."""
        self.size = 0
        """Bytes of the file."""
        self.total: int | None = None
        self.validator: str | None = None
        self.content_type = ""
        self._codings: tuple[str, ...] = ()
        self._open_writer = open_writer
        self._artifact = artifact
        self._max_bytes = max_bytes
        self._redact = redact
        self._declared: str | None = None
        self._path = ""
        self._first: bytearray | None = bytearray()
        """The first bytes from the network; None once it is known whether they are compressed."""
        self._unpacker: FileUnpacker | None = None
        self._head = bytearray()
        """The first bytes of the file, until they prove its type."""
        self._digest = Digest()
        self._boxes = BoxWalk()
        self._writer: AtomicWriter | None = None

    @property
    def progress(self) -> Progress:
        """The progress so far."""
        return Progress(self.received, self.total, self.validator, self._codings)

    @property
    def unpacked(self) -> str | None:
        """The coding from which the file is unpacked, or None."""
        return self._unpacker.name if self._unpacker else None

    def describe(self, declared: str | None, validator: str | None, path: str, codings: Sequence[str] = ()) -> None:
        """Note the first answer's content type, validator, URL path and content codings."""
        self._declared, self.validator, self._path, self._codings = declared, validator, path, tuple(codings)

    def expect(self, total: int | None) -> None:
        """Note the announced size before the body; raises ViduDownloadRefusedError when it is too large."""
        self.total = total
        self._check_size(total)

    def accept(self, data: memoryview) -> None:
        """Take the next bytes, which must stay unchanged until those after them are taken.

        :raises ViduDownloadRefusedError: when they prove another type than is wanted, or are too many.
        :raises ViduDownloadError: when they are compressed and corrupt.
        :raises ViduStorageError: when they cannot be written.
        """
        self.received += len(data)
        self._check_size(self.received)
        if self._first is None:
            self._unpack(data)
            return
        self._first += data
        if len(self._first) >= SNIFF_BYTES:
            self._settle()

    def problem(self, *, surplus: bool) -> str | None:
        """Return what is wrong with the file after the end of its body, or None if it is complete.

        :param surplus: whether more bytes arrived than were announced.
        """
        if self.total is not None and self.received < self.total:
            return f"The transfer ended after {self.received:,} of {self.total:,} bytes."
        if surplus or (self.total is not None and self.received > self.total):
            return f"The server sent more than the {self.total or 0:,} bytes it had announced."
        if self.received == 0:
            return "The server sent an empty body."
        self._settle()
        is_cut = self._boxes.is_cut() if self._unpacker is None else not self._unpacker.is_at_end
        if is_cut and self.total is None:
            return f"The connection ended after {self.received:,} bytes, in the middle of the file."
        if is_cut and self._unpacker is not None:
            return f"The server sent {self.received:,} {self.unpacked}-compressed bytes, but their end is missing."
        return None

    @property
    def shows_its_end(self) -> bool:
        """Whether the file's own structure shows that it is complete."""
        return self._boxes.is_whole() if self._unpacker is None else self._unpacker.is_at_end

    def complete(self) -> None:
        """Write the bytes of a very short file that are still in the buffer."""
        self._settle()
        if self._writer is None:
            self._open()

    def publish(self, source: str) -> StoredRecord:
        """Publish the file and return its record.

        :param source: the URL that it came from, without its query.
        :raises ViduStorageError: when it could not be published.
        """
        assert self._writer is not None
        self._writer.publish()
        return StoredRecord(self._writer.uri, self.size, self._digest.hexdigest(), self.content_type, source)

    def discard(self) -> None:
        """Discard everything, including buffers: they may quote the key, and an error keeps this object alive."""
        self._head = bytearray()
        self._first = None
        self._digest.close()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.discard()

    def _settle(self) -> None:
        """Determine from the first bytes whether the file is compressed, and take them."""
        if self._first is None:
            return
        # A view: what is quoted of this frame shows none of the bytes, which may hold the key.
        first, self._first = memoryview(bytes(self._first)), None
        self._unpacker = unpacker_of(bytes(first[:SNIFF_BYTES]), self._codings)
        self._unpack(first)

    def _unpack(self, data: memoryview) -> None:
        if self._unpacker is None:
            self._keep(data)
            return
        for piece in self._unpacker.unpack(data):
            self._keep(piece)

    def _keep(self, data: memoryview) -> None:
        """Take the next bytes of the file itself."""
        self.size += len(data)
        self._check_size(self.size)
        if self.total is None and self._unpacker is None:
            self._boxes.feed(data)
        if self._writer is not None:
            self._digest.update(data)
            self._writer.write(data)
            return
        self._head += data
        if len(self._head) >= SNIFF_BYTES:
            self._open()

    def _open(self) -> None:
        head = self._redact(bytes(self._head[:SNIFF_BYTES]))
        if self._codings and self._unpacker is None and sniffed(head) is None and text_kind(head) is None:
            raise ViduDownloadRefusedError(
                f"Not stored: the server sent the file {', '.join(self._codings)}-encoded although no encoding was "
                "requested, and this encoding is not supported. Turn it off at the server or the proxy in front of it."
            )
        is_cut = len(self._head) >= SNIFF_BYTES
        self.content_type = checked_type(self._declared, head, self._artifact, self._path, is_cut=is_cut)
        self._writer = self._open_writer(self.content_type, self.total if self._unpacker is None else None)
        self._digest.update(self._head)
        self._writer.write(memoryview(self._head))
        self._head = bytearray()

    def _check_size(self, size: int | None) -> None:
        if self._max_bytes is not None and size is not None and size > self._max_bytes:
            raise ViduDownloadRefusedError(
                f"Not stored: the file has {size:,} bytes or more; max_bytes is {self._max_bytes:,}."
            )
