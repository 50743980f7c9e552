"""Small files that hold states: read whole, written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduConfigError, ViduStorageError
from airflow_provider_vidu.stores.base import DestinationExistsError, StoredFile, of_store
from airflow_provider_vidu.stores.schemes import is_forbidden, scheme_of, state_advice

MOST_BYTES: Final = 256 * 1024 * 1024
"""The largest file that is read. Others may write to the store; the state of 100,000 rows takes about 80 MiB."""
MOST_AHEAD_SECONDS: Final = 3600.0
"""A time in a file that is so far ahead proves nothing: no worker's clock is."""
_MOST_CREATES: Final = 3
"""How often a file is created that seems to be there, but is not."""
_WRITTEN_PIECES: Final = 256
"""How many pieces are written at once: each write is a call of the system."""


def write_file(file: StoredFile, content: bytes | Sequence[bytes], content_type: str) -> None:
    """Store a small file, whole or not at all; an earlier one of that name is replaced.

    :param content: also in pieces, of which no copy is made as a whole.
    :raises ViduStorageError: when it could not be written.
    """
    _write(file, content, content_type, replace=True)


def create_file(file: StoredFile, content: bytes, content_type: str) -> None:
    """Store a small file, whole or not at all, unless there is one of that name.

    Of two processes that do so at the same time one succeeds, if the store can refuse to replace a file: a local disk,
    S3 and its likes with conditional writes, Google and Azure. Elsewhere the name is only checked right before.

    :raises DestinationExistsError: when there is one.
    :raises ViduStorageError: when it could not be written.
    """
    for _ in range(_MOST_CREATES):
        try:
            return _write(file, content, content_type, replace=False)
        except DestinationExistsError:
            if is_there(file):  # else it has been removed meanwhile, or the store refuses every conditional write
                raise
    raise ViduStorageError(
        f"The store answers that {sanitized(file.uri, 300)} exists already, but has no such file: it, or a policy, "
        "refuses conditional writes. Allow them (If-None-Match on S3), or use another destination. Nothing was written."
    )


def _write(file: StoredFile, content: bytes | Sequence[bytes], content_type: str, *, replace: bool) -> None:
    pieces = [content] if isinstance(content, bytes) else content
    writer = file.writer(sum(map(len, pieces)), replace=replace, content_type=content_type)
    try:
        for start in range(0, len(pieces), _WRITTEN_PIECES):
            writer.write(memoryview(b"".join(pieces[start : start + _WRITTEN_PIECES])))
        writer.publish()
    except BaseException:  # nothing half-written may remain
        writer.discard()
        raise


def content_of(file: StoredFile, most: int = MOST_BYTES) -> bytes | None:
    """Return the content of a small file; None if there is none.

    :param most: its largest size, in bytes.
    :raises ViduStorageError: when its store cannot be reached.
    :raises ViduConfigError: when it is larger.
    """
    content = bytearray()
    try:
        for piece in file.read():
            content += piece
            if len(content) > most:
                raise ViduConfigError(f"{sanitized(file.uri, 300)} is larger than {most:,} bytes.")
        return bytes(content)
    except ViduStorageError as error:
        _check_missing(file, error)
        return None


def is_there(file: StoredFile) -> bool:
    """Whether there is a small file; at most its beginning is read. Raises ViduStorageError without an answer."""
    try:
        next(file.read(), b"")
    except ViduStorageError as error:
        _check_missing(file, error)
        return False
    return True


def _check_missing(file: StoredFile, error: ViduStorageError) -> None:
    """Return if an error says that there is no file, and raise it otherwise."""
    cause = error.__cause__
    reported = of_store(cause, file.uri) if isinstance(cause, Exception) else None
    if isinstance(reported, FileNotFoundError):
        return
    if reported is not None and is_forbidden(reported):
        # Not "there is none": what is paid for would be ordered again.
        raise ViduStorageError(f"{error.reason} {state_advice(scheme_of(file.uri))}") from cause
    raise error
