"""The upload service: an announcement, the bytes, and the address of the result [likely].

``POST /tools/v2/files/uploads`` → ``{id, put_url}``; ``PUT`` the bytes; ``PUT …/{id}/finish`` → ``{uri}``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from airflow_provider_vidu.sandbox.media import pictures


@dataclass
class Upload:
    """One upload; ``size`` in bytes, ``sha256`` and ``etag`` empty until the bytes have arrived."""

    id: str
    size: int = 0
    sha256: str = ""
    etag: str = ""
    is_picture: bool = False
    finished: bool = False

    @property
    def uri(self) -> str:
        """The address that creates accept."""
        return f"ssupload:?id={self.id}"

    def receive(self, data: bytes) -> None:
        """Store the bytes; a later PUT replaces an earlier one until the upload is finished."""
        self.size = len(data)
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.etag = f'"{hashlib.md5(data).hexdigest()}"'
        self.is_picture = pictures.is_picture(data)
