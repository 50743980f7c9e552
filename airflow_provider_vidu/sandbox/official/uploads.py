"""The upload service: an announcement, the bytes, and the address that stands for them [likely].

``POST /tools/v2/files/uploads`` → ``{id, put_url}``; ``PUT`` the bytes; ``PUT …/{id}/finish`` → ``{uri}``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from airflow_provider_vidu.sandbox.official.fields import Refused, is_picture

#: Largest upload, in bytes: "All images are limited to 50MB" (platform.vidu.com/docs/image-to-video). Megabytes are
#: decimal throughout the sandbox: the vendor does not say which kind it counts, and this is the stricter reading.
MAX_UPLOAD = 50_000_000


@dataclass
class Upload:
    """One upload: what arrived (``size`` in bytes; ``sha256`` and ``etag`` are empty before it did)."""

    id: str
    size: int = 0
    sha256: str = ""
    etag: str = ""
    is_picture: bool = False
    finished: bool = False

    @property
    def uri(self) -> str:
        """The address that creates take."""
        return f"ssupload:?id={self.id}"

    def receive(self, data: bytes) -> None:
        """Take the bytes; a later PUT replaces an earlier one until the upload is finished."""
        self.size = len(data)
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.etag = f'"{hashlib.md5(data).hexdigest()}"'
        self.is_picture = is_picture(data)

    def finish(self, etag: object) -> None:
        """End the upload; :class:`Refused` when nothing has arrived or ``etag`` is that of other bytes."""
        if not isinstance(etag, str) or not etag:
            raise Refused("FieldLacking", "field etag is lacking")
        if not self.etag or etag.strip('"') != self.etag.strip('"'):
            raise Refused("FieldInvalid", "field etag is not that of the uploaded bytes")
        self.finished = True
