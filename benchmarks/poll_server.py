"""The service that all contestants poll: HTTPS, keep-alive, "still processing" for ever, and a record.

A bare ``asyncio.Protocol`` that writes prepared answers, so that on its own core it keeps up with
every client here. Run as ``python -m benchmarks.poll_server FOLDER``: it leaves its CA in ``FOLDER/ca.pem``,
prints ``{"port": …}`` and serves until it is terminated.

* ``/vidu-native/video/generations/ID``: 200, a generation that is processing. The time in it is new in each
  answer, so that no client gains by recognising the last one.
* ``/ent/v2/tasks/ID/creations``: 200, the same in the official API's form.
* ``/ent/v2/tasks?task_ids=ID&task_ids=…``: 200, a documented entry for each; that is one request and a poll of each ID.
* ``/api/v2/accounts/A/runs/ID/``: 200, a dbt Cloud run that is running.
* ``/absent/ID``: 404, what an HTTP sensor takes for "not yet".
* ``/bench/stats``: polls and connections so far and how many polls fell into which 10 ms; with ``?reset``
  it forgets them afterwards. Neither this request nor its connection is counted.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import trustme

HOST = "127.0.0.1"
STEP = 0.01
END = b"\r\n\r\n"


class Record:
    """What has been seen since the last reset."""

    def __init__(self) -> None:
        self.polls = 0
        self.requests = 0
        self.opened = 0
        self.open_now = 0
        self.most_open = 0
        self.bins: Counter[int] = Counter()

    def as_json(self) -> dict[str, Any]:
        return {
            "polls": self.polls,
            "requests": self.requests,
            "opened": self.opened,
            "open_now": self.open_now,
            "most_open": self.most_open,
            "bins": sorted(self.bins.items()),
            "cpu": time.process_time(),
            "now": time.monotonic(),
        }

    def reset(self) -> None:
        self.polls = self.requests = self.opened = 0
        self.most_open = self.open_now
        self.bins.clear()


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._buffer = b""
        self._counted = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._counted:
            self._record.open_now -= 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while END in self._buffer:
            head, _, self._buffer = self._buffer.partition(END)
            self._answer(head.split(b" ", 2)[1])

    def _answer(self, path: bytes) -> None:
        if path.startswith(b"/bench/stats"):
            self._send(b"200 OK", json.dumps(self._record.as_json()).encode())
            if path.endswith(b"?reset"):
                self._record.reset()
            return
        ids = path.split(b"task_ids=")[1:] if path.startswith(b"/ent/v2/tasks?") else [path]
        self._count(len(ids))
        if path.startswith(b"/vidu-native/"):
            self._send(b"200 OK", _generation(path.rpartition(b"/")[2]))
        elif path.startswith(b"/ent/v2/tasks?"):
            entries = b",".join(_entry(name.partition(b"&")[0]) for name in ids)
            self._send(b"200 OK", b'{"tasks":[%b],"next_page_token":""}' % entries)
        elif path.startswith(b"/ent/v2/"):
            self._send(b"200 OK", _entry(path.split(b"/")[4]))
        elif path.startswith(b"/api/v2/"):
            self._send(b"200 OK", _dbt_run(path.rstrip(b"/").rpartition(b"/")[2]))
        else:
            self._send(b"404 Not Found", b'{"error": "not there yet"}')

    def _count(self, polls: int) -> None:
        record = self._record
        if not self._counted:
            self._counted = True
            record.opened += 1
            record.open_now += 1
            record.most_open = max(record.most_open, record.open_now)
        record.polls += polls
        record.requests += 1
        record.bins[int(time.monotonic() / STEP)] += 1

    def _send(self, status: bytes, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            b"Server: bench\r\nX-Request-Id: 7f3c2a\r\n\r\n%b" % (status, len(body), body)
        )


def _generation(name: bytes) -> bytes:
    return (
        b'{"id":"%b","status":"processing","video_url":null,"enhanced_prompt":"",'
        b'"status_update_time":%d,"progress":42,"created_at":1774494600}' % (name, time.time() * 1000)
    )


def _entry(name: bytes) -> bytes:
    return (
        b'{"id":"%b","key_id":"1","type":"text2video","template":"","model":"viduq3-pro","prompt":"A cat walks over '
        b'the roofs of Paris at dawn, \\"cinematic\\"","images":[],"duration":5,"resolution":"1080p",'
        b'"aspect_ratio":"16:9","state":"processing","creations":[],"created_at":"2026-01-20T06:52:02.%09dZ","credits":120}'
        % (name, time.monotonic_ns() % 10**9)
    )


def _dbt_run(run_id: bytes) -> bytes:
    return (
        b'{"status":{"code":200,"is_success":true,"user_message":"Success!","developer_message":""},'
        b'"data":{"id":%b,"account_id":1,"project_id":1,"job_definition_id":7,"status":3,'
        b'"is_complete":false,"is_success":false,"is_error":false,"is_cancelled":false,"duration":"00:01:07"}}' % run_id
    )


async def main(folder: Path) -> None:
    """Serve until cancelled."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST, "localhost").configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    record = Record()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(record), HOST, 0, ssl=context, backlog=4096)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
