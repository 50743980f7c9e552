"""Sending a stored file to the player: ranges, validators, constant memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from airflow_provider_vidu.common import ranges
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.stores.base import MIB
from airflow_provider_vidu.ui.playing.preview import Preview
from airflow_provider_vidu.ui.threads import Reads

MAX_HELD_BYTES: Final = 64 * MIB
"""What the transfers under way hold of their files together, about: a player that is paused reads nothing for hours."""
MIN_PIECE: Final = 64 * 1024
TURN_SECONDS: Final = 60.0
"""How long a transfer that has begun waits for its next piece's turn."""
MAX_NAME_CHARS: Final = 150
MAX_TAGS_CHARS: Final = 1_000
"""What is read of the entity tags that a browser has; it sends the one that it was given."""


class FileResponse(StreamingResponse):
    """A part of a stored file; it is closed however the transfer ends.

    The more transfers are under way, the smaller are their pieces: a thousand readers who take nothing would
    otherwise hold gigabytes.
    """

    _under_way = 0

    def __init__(self, preview: Preview, part: ranges.Part, headers: dict[str, str], reads: Reads) -> None:
        super().__init__(self._pieces(preview, part, reads), status_code=part.status, headers=headers)
        self._preview = preview

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it."""
        FileResponse._under_way += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            FileResponse._under_way -= 1
            self._preview.close()

    @staticmethod
    async def _pieces(preview: Preview, part: ranges.Part, reads: Reads) -> AsyncIterator[bytes]:
        position = part.start
        while position < part.stop:
            most = min(preview.piece, part.stop - position, piece_size(FileResponse._under_way))
            data = await reads.run(preview.place, preview.read, position, most, turn=TURN_SECONDS)
            if not data:
                # The file has become shorter: break off, so that the player does not take it for whole.
                raise RuntimeError("The stored file has changed while it was sent.")
            position += len(data)
            yield data


def piece_size(transfers: int) -> int:
    """Return how many bytes each of so many transfers may hold."""
    return max(MAX_HELD_BYTES // max(transfers, 1), MIN_PIECE)


def file_response(request: Request, preview: Preview, reads: Reads, attached_as: str | None = None) -> Response:
    """Answer a GET or HEAD with the requested part of the file; the file is closed with the response.

    :param reads: the threads that read it.
    :param attached_as: the name under which a browser is to keep the file; None lets it play.
    """
    try:
        response = _answer(request, preview, reads)
        if attached_as is not None:
            response.headers["Content-Disposition"] = attachment(attached_as)
    except BaseException:  # in every case the file is closed
        preview.close()
        raise
    if not isinstance(response, FileResponse):
        preview.close()
    return response


def attachment(name: str) -> str:
    """Return the header value that has a browser keep a file under its name (RFC 6266), whatever characters it has."""
    name = sanitized(name, MAX_NAME_CHARS).strip(". ") or "clip"
    plain = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_. ") else "_" for sign in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _answer(request: Request, preview: Preview, reads: Reads) -> Response:
    # RFC 9110, 14.2: Range is defined for GET alone.
    wanted = request.headers.get("range") if request.method == "GET" else None
    part = ranges.decide(wanted, request.headers.get("if-range"), size=preview.size, etag=preview.etag, modified="")
    headers = {
        "Content-Type": preview.content_type,
        "Content-Length": str(part.stop - part.start),
        "Accept-Ranges": "bytes",
        "ETag": preview.etag,
        # Airflow compresses every answer without a Content-Encoding: a range of that would be useless.
        "Content-Encoding": "identity",
        "Cache-Control": "private, no-cache",
    }
    if (content_range := part.content_range(preview.size)) is not None:
        headers["Content-Range"] = content_range
    if part.status == 416 or request.method == "HEAD":
        return Response(status_code=part.status, headers=headers)
    if _is_known(request, preview):
        # As of the full answer: the browser adopts these headers, and no-store would drop the file from its cache.
        kept = {name: headers[name] for name in ("ETag", "Cache-Control", "Content-Encoding")}
        return Response(status_code=304, headers=kept)
    return FileResponse(preview, part, headers, reads)


def _is_known(request: Request, preview: Preview) -> bool:
    listed = request.headers.get("if-none-match", "")[:MAX_TAGS_CHARS]
    return preview.etag in [tag.strip().removeprefix("W/") for tag in listed.split(",")]
