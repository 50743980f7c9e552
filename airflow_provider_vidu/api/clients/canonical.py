"""An answer in a form that aiohttp's own parser reads, which refuses heads that curl accepts. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_vidu.network.framing import AnswerReader, FramingError, Head


def canonical_head(head: Head, length: int | None = None) -> bytes:
    """Return the head in a form that every HTTP client reads.

    :param length: of the body that follows as it is, if all of it has arrived; otherwise :func:`chunk` forwards it.
    """
    lines = [f"HTTP/1.1 {head.status} {head.reason}", *(f"{name}: {value}" for name, value in head.fields.items())]
    if head.has_body and length is None:
        lines.append("transfer-encoding: chunked")
    else:
        lines.append(f"content-length: {length or 0}")
    if not head.keeps:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace")


def chunk(body: bytes) -> bytes:
    """Return a piece of a body as a chunk; an empty piece gives the last chunk."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def canonically(reader: AnswerReader, data: bytes) -> Iterator[bytes]:
    """Take the next bytes of an answer and yield them in canonical form.

    :param data: the next bytes; empty at the end of the connection.
    :raises FramingError: see :meth:`AnswerReader.feed` and :meth:`AnswerReader.end`.
    """
    had_head, had_ended = reader.head is not None, reader.ended and reader.head is not None
    body, failure = b"", None
    try:
        if data:
            body = reader.feed(data)
            failure = reader.failure
        else:
            reader.end()
    except FramingError as error:
        failure = str(error)
    head = reader.head
    if head is not None and not had_head:
        if reader.ended and failure is None:  # nearly every answer: aiohttp takes it in one step
            yield canonical_head(head, len(body)) + body
            return
        yield canonical_head(head)
    if body:
        yield chunk(body)
    if head is not None and reader.ended and not had_ended and head.has_body:
        yield chunk(b"")
    if failure is not None:
        raise FramingError(failure)
