"""As much of Google Cloud Storage's JSON API as publishing needs, over a real socket.

No emulator on PyPI cancels resumable uploads or knows ``ifGenerationMatch`` (gcp-storage-emulator 2026.7), and both
are what publishing stands on. This one holds to Google's manual: chunks are multiples of 256 KiB but for the last
one; an unfinished upload answers 308 with the range it has; a condition is checked when an upload begins and again
when it is completed; a cancelled upload answers 499; a complete one answers with its object, however often it is
asked. Cancelling a complete upload is not described there: it answers 499 and leaves the object, as Google's own
storage-testbench does.
"""

from __future__ import annotations

import base64
import email
import itertools
import json
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.loopback import Exchange, Loopback

CHUNK = 256 * 1024


@dataclass
class Stored:
    """An object as it lies in its bucket."""

    bucket: str
    name: str
    data: bytes
    content_type: str
    generation: int
    disposition: str = ""
    updated: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))

    def resource(self) -> dict[str, Any]:
        """Return what the API tells of it."""
        return {
            "kind": "storage#object",
            "bucket": self.bucket,
            "name": self.name,
            "size": str(len(self.data)),
            "contentType": self.content_type,
            **({"contentDisposition": self.disposition} if self.disposition else {}),
            "generation": str(self.generation),
            "metageneration": "1",
            "updated": self.updated,
            "timeCreated": self.updated,
        }


@dataclass
class Upload:
    """A resumable upload."""

    bucket: str
    name: str
    content_type: str
    only_new: bool
    disposition: str = ""
    received: bytearray = field(default_factory=bytearray)
    result: Stored | None = None


@dataclass
class Answer:
    """A status, a body, headers."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """A request, read to its end."""

    method: str
    path: str
    query: dict[str, str]
    headers: Any
    body: bytes

    @property
    def upload_range(self) -> str:
        """What part of an upload it carries."""
        return self.headers.get("Content-Range", "")


class GoogleStorage(Loopback):
    """The service, with one account that may do everything and one that may do nothing.

    :ivar instead: takes a request; returns what is sent instead of the answer, or None. Falsy: nothing is replaced.
    :ivar after: whether the service does what it was asked all the same.
    """

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, Stored]] = {}
        self.uploads: dict[str, Upload] = {}
        self.instead: Callable[[Asked], Answer | None] | None = None
        self.after = False
        self._tokens = {"owner@here.example": "owner-token", "stranger@here.example": "stranger-token"}
        self._generations = itertools.count(1_700_000_000_000_001)
        self._lock = threading.Lock()
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        super().__init__()

    def serve(self, exchange: Exchange) -> None:
        """Answer a request of the client."""
        parts = urlsplit(exchange.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        body = exchange.rfile.read(int(exchange.headers.get("Content-Length", 0)))
        answer = self.answer(Asked(exchange.command, parts.path, query, exchange.headers, body))
        exchange.send_response(answer.status, "Whatever")
        for name, value in answer.headers.items():
            exchange.send_header(name, value)
        if answer.status != 204:
            exchange.send_header("Content-Length", str(len(answer.body)))
        exchange.end_headers()
        exchange.wfile.write(answer.body)

    def account(self, name: str = "owner") -> dict[str, str]:
        """Return a service account's key file."""
        return {
            "type": "service_account",
            "project_id": "clips",
            "private_key_id": "1",
            "private_key": self._key.decode(),
            "client_email": f"{name}@here.example",
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }

    def put(
        self, bucket: str, name: str, data: bytes, content_type: str = "video/mp4", disposition: str = ""
    ) -> Stored:
        """Store an object."""
        made = Stored(bucket, name, data, content_type, next(self._generations), disposition)
        self.buckets[bucket][name] = made
        return made

    # -- requests -------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Answer:
        """Do what is asked, unless a test has something else in mind."""
        instead = self.instead(asked) if self.instead else None
        if instead is not None and not self.after:
            return instead
        with self._lock:
            answer = self._done(asked)
        return answer if instead is None else instead

    def _done(self, asked: Asked) -> Answer:
        if asked.path == "/token":
            return self._token(asked)
        who = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        if who not in self._tokens.values():
            return _error(401, "Anonymous caller does not have storage.objects access to the bucket.")
        if who != self._tokens["owner@here.example"]:
            return _error(403, "stranger@here.example does not have storage.objects access to the bucket.")
        found = re.fullmatch(r"(/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", asked.path)
        if found is None:
            return _error(404, "Not Found")
        kind, bucket, name = found[1], unquote(found[2]), unquote(found[3] or "")
        if "upload_id" in asked.query:
            return self._continued(asked, asked.query["upload_id"])
        if bucket not in self.buckets:
            return _error(404, "The specified bucket does not exist.")
        if kind == "/upload":
            return self._begun(asked, bucket)
        if name:
            return self._object(asked, bucket, name)
        return self._listed(asked, bucket) if asked.path.endswith("/o") else _json({"name": bucket})

    def _token(self, asked: Asked) -> Answer:
        assertion = parse_qs(asked.body.decode())["assertion"][0]
        payload = assertion.split(".")[1]
        issuer = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["iss"]
        if issuer not in self._tokens:
            return _json({"error": "invalid_grant", "error_description": "Invalid grant: account not found"}, 400)
        return _json({"access_token": self._tokens[issuer], "expires_in": 3600, "token_type": "Bearer"})

    def _listed(self, asked: Asked, bucket: str) -> Answer:
        prefix, delimiter = asked.query.get("prefix", ""), asked.query.get("delimiter", "")
        items, prefixes = [], set()
        for name, stored in sorted(self.buckets[bucket].items()):
            if not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                items.append(stored.resource())
        return _json({"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

    def _object(self, asked: Asked, bucket: str, name: str) -> Answer:
        stored = self.buckets[bucket].get(name)
        if stored is None:
            return _error(404, f"No such object: {bucket}/{name}")
        if asked.method == "DELETE":
            del self.buckets[bucket][name]
            return Answer(204)
        if asked.query.get("alt") != "media" and not asked.path.startswith("/download"):
            return _json(stored.resource())
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("Range", ""))
        headers = {"Content-Type": stored.content_type}
        if span is None:
            return Answer(200, stored.data, headers)
        start, end = int(span[1]), min(int(span[2] or len(stored.data)), len(stored.data) - 1)
        if start >= len(stored.data):
            return _error(416, "The requested range cannot be satisfied.")
        headers["Content-Range"] = f"bytes {start}-{end}/{len(stored.data)}"
        return Answer(206, stored.data[start : end + 1], headers)

    def _begun(self, asked: Asked, bucket: str) -> Answer:
        only_new = asked.query.get("ifGenerationMatch") == "0"
        if asked.query.get("uploadType") == "multipart":
            head = f"Content-Type: {asked.headers['Content-Type']}\r\n\r\n".encode()
            described, media = email.message_from_bytes(head + asked.body).get_payload()
            name = json.loads(described.get_payload())["name"]
            if only_new and name in self.buckets[bucket]:
                return _condition_not_met()
            return _json(self.put(bucket, name, media.get_payload(decode=True), media.get_content_type()).resource())
        name = asked.query.get("name") or json.loads(asked.body)["name"]
        if only_new and name in self.buckets[bucket]:
            return _condition_not_met()
        upload_id = secrets.token_urlsafe(24)
        content_type = asked.headers.get("X-Upload-Content-Type", "application/octet-stream")
        disposition = json.loads(asked.body or b"{}").get("contentDisposition", "")
        self.uploads[upload_id] = Upload(bucket, name, content_type, only_new, disposition)
        # The session's address repeats the conditions.
        condition = "&ifGenerationMatch=0" if only_new else ""
        address = f"{self.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable{condition}&upload_id={upload_id}"
        return Answer(200, headers={"Location": address})

    def _continued(self, asked: Asked, upload_id: str) -> Answer:
        upload = self.uploads.get(upload_id)
        if upload is None:
            return _error(404, "Upload session not found.")
        if asked.method == "DELETE":
            if upload.result is None:
                del self.uploads[upload_id]
            return Answer(499)
        if upload.result is not None:
            return _json(upload.result.resource())
        if "ifGenerationMatch" in asked.query and not upload.only_new:
            return _error(400, "Unexpected condition")
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", asked.upload_range)
        if found is None:
            return _error(400, f"Bad Content-Range: {asked.upload_range!r}")
        start, end, total = found[1], found[2], found[3]
        if start is not None:
            if int(start) != len(upload.received) or int(end) - int(start) + 1 != len(asked.body):
                return _error(400, "The chunk does not begin where the last one ended.")
            if total == "*" and len(asked.body) % CHUNK:
                return _error(400, "Chunks must be multiples of 256 KiB.")
            upload.received += asked.body
        if total != "*" and int(total) == len(upload.received):
            if upload.only_new and upload.name in self.buckets[upload.bucket]:
                return _condition_not_met()
            upload.result = self.put(
                upload.bucket, upload.name, bytes(upload.received), upload.content_type, upload.disposition
            )
            return _json(upload.result.resource())
        headers = {"Range": f"bytes=0-{len(upload.received) - 1}"} if upload.received else {}
        return Answer(308, headers=headers)


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=UTF-8"})


def _error(status: int, message: str) -> Answer:
    return _json({"error": {"code": status, "message": message, "errors": [{"message": message}]}}, status)


def _condition_not_met() -> Answer:
    return _error(412, "At least one of the pre-conditions you specified did not hold.")
