"""Small files that hold states: read whole, written whole or not at all."""

from __future__ import annotations

from typing import Final

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduConfigError, ViduStorageError
from airflow_provider_vidu.stores.base import StoredFile
from airflow_provider_vidu.stores.schemes import is_forbidden, scheme_of, state_advice

MOST_BYTES: Final = 256 * 1024 * 1024
"""The largest file that is read. Others may write to the store; the state of 100,000 rows takes about 80 MiB."""


def write_file(file: StoredFile, content: bytes, content_type: str) -> None:
    """Store a small file, whole or not at all; an earlier one of that name is replaced.

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
    _write(file, content, content_type, replace=False)


def _write(file: StoredFile, content: bytes, content_type: str, *, replace: bool) -> None:
    writer = file.writer(len(content), replace=replace, content_type=content_type)
    try:
        writer.write(memoryview(content))
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
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        if error.__cause__ is not None and is_forbidden(error.__cause__):
            # Not "there is none": what is paid for would be ordered again.
            raise ViduStorageError(f"{error.reason} {state_advice(scheme_of(file.uri))}") from error.__cause__
        raise
