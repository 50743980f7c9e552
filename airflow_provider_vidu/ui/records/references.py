"""XComs that a back end keeps elsewhere: resolved within limits, or unknown.

Airflow's ``XComObjectStorageBackend`` leaves the address of an object in the database where a value exceeds its
threshold; other back ends leave what only they can read. The author of a DAG can write such
an address, so it is followed only into the folder of its own DAG run, and never taken for anything else.

Runs in the API server's thread pool.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import threading
import time
import zipfile
from collections import OrderedDict
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

from airflow.configuration import conf

from airflow_provider_vidu.common.parsing import bounded_json
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.stores.places import Root, Spot, split_connection
from airflow_provider_vidu.ui.clips.xcoms import MAX_VALUES, decoded, is_reference
from airflow_provider_vidu.ui.playing.preview import PreviewError, open_beneath

log = logging.getLogger(__name__)

MAX_READS: Final = 200
"""The most values that are fetched for one look; the next look goes on from there."""
MAX_VALUE_BYTES: Final = 256 * 1024
"""The largest value that is read, as stored in the database or unpacked from an object."""
MAX_KEPT: Final = 2_000
MAX_KEPT_CHARS: Final = 16_384
MAX_AT_ONCE: Final = 4
"""Concurrent reads: a silent store holds the thread of one for minutes."""
TURN_SECONDS: Final = 2.0
"""A look that waits longer than this for its read reads nothing more."""
READ_SECONDS: Final = 4.0
"""A look waits no longer for one value, and reads nothing more; the read goes on, and serves the next look."""
LOOK_SECONDS: Final = 10.0
"""A look that has read for so long reads nothing more; the next one goes on from there."""
UNKNOWN_SECONDS: Final = 30.0
"""What could not be resolved is tried again after this time."""

UNKNOWN: Final = object()
"""The value of a reference that could not be, or may not be, resolved."""

_Key = tuple[str, str, bytes, datetime | None]
"""DAG, run, and a digest of what the column holds, which may be long: what one run may read is not handed to another
that names the same address."""
_kept: OrderedDict[_Key, tuple[str | None, float]] = OrderedDict()
"""Values as JSON, which may be small and take much as objects; None for :data:`UNKNOWN`."""
_lock = threading.Lock()
_turns = threading.BoundedSemaphore(MAX_AT_ONCE)


class Resolver:
    """Resolves the values of one look at one DAG run.

    :param dag_id: the DAG whose values may be read.
    :param run_id: the run whose values may be read.
    """

    def __init__(self, dag_id: str, run_id: str) -> None:
        self._names = (dag_id, run_id)
        self._reads_left = MAX_READS
        self._reads_until = math.inf
        self._backend = _backend()
        self._keeps_objects = self._backend is not None and _is_object_storage(self._backend)

    @property
    def has_backend(self) -> bool:
        """Whether anything but the database keeps values."""
        return self._backend is not None

    @property
    def reads_everything(self) -> bool:
        """Whether no value in the database can be read without the back end."""
        return self._backend is not None and not self._keeps_objects

    def value(self, raw: Any, at: datetime | None) -> Any:
        """Return the value that a column stands for, or :data:`UNKNOWN`.

        :param raw: what the column holds.
        :param at: when it was written: a back end may write another value to the same place.
        """
        value = decoded(raw)
        if not self.reads_everything and not is_reference(value):
            return value
        if self._backend is None:
            return UNKNOWN
        key = (*self._names, hashlib.sha256(json.dumps(value).encode()).digest(), at)
        with _lock:
            kept, good_until = _kept.get(key, (None, 0.0))
        if time.monotonic() < good_until:
            return UNKNOWN if kept is None else json.loads(kept)
        if not self._may_read() or not _turns.acquire(timeout=TURN_SECONDS):
            self._reads_left = 0
            return UNKNOWN
        found: list[Any] = []
        # Not waited for when the API server stops.
        reader = threading.Thread(target=self._read_and_keep, args=(key, value, found), daemon=True)
        try:
            reader.start()
        except RuntimeError:  # the process has too many threads
            _turns.release()
            return UNKNOWN
        reader.join(READ_SECONDS)
        if not found:
            self._reads_left = 0
            _keep(key, UNKNOWN)
            if found:  # meanwhile; what it keeps after this is kept last
                _keep(key, found[0])
        return found[0] if found else UNKNOWN

    def _read_and_keep(self, key: _Key, value: Any, found: list[Any]) -> None:
        try:
            found.append(decoded(self._read(value)))
            _keep(key, found[0])
        finally:
            _turns.release()

    def _may_read(self) -> bool:
        now = time.monotonic()
        self._reads_until = min(self._reads_until, now + LOOK_SECONDS)
        self._reads_left -= 1
        return self._reads_left >= 0 and now < self._reads_until

    def _read(self, value: Any) -> Any:
        try:
            if not self._keeps_objects:
                # Others make objects of values: times, tables, models.
                found = self._backend.deserialize_value(SimpleNamespace(value=value))
                return json.loads(json.dumps(found, default=_plain))
            return self._object(value)
        except Exception as error:  # any error of a back end or its client library
            log.warning("An XCom value could not be resolved through the XCom back end (%s).", type(error).__name__)
            log.debug("The XCom back end failed.", exc_info=True)
            return UNKNOWN

    def _object(self, address: str) -> Any:
        conn_id, folder = split_connection(conf.get("common.io", "xcom_objectstorage_path", fallback="") or "")
        _, spot = split_connection(address)
        if folder is None or spot is None or not self._is_own(spot, folder):
            return UNKNOWN
        # A link may not lead to another run, either: the folder of this one is the root.
        own = replace(spot, parts=spot.parts[: len(folder.parts) + len(self._names)])
        try:
            opened = open_beneath(Root(own, conn_id), spot)
        except PreviewError:
            return UNKNOWN
        with closing(opened) as found:
            packed = found.read(0, found.size) if found.size <= MAX_VALUE_BYTES else None
        return UNKNOWN if packed is None else _unpacked(spot.parts[-1], packed)

    def _is_own(self, spot: Spot, folder: Spot) -> bool:
        """Whether a value is in the folder of this run: the permission to read another was not checked."""
        found = spot.parts[len(folder.parts) :]
        return (
            spot.is_beneath(folder)
            and len(found) > len(self._names)
            and all(part in (name, quote(name, safe="")) for part, name in zip(found, self._names, strict=False))
        )


def _backend() -> Any:
    """Return the configured back end, or None where values stand in the database as they are."""
    from airflow.providers.common.compat.sdk import XCom
    from airflow.sdk.bases.xcom import BaseXCom

    return None if XCom.deserialize_value is BaseXCom.deserialize_value else XCom


def _is_object_storage(backend: Any) -> bool:
    """Whether a back end is Airflow's own for object storage, or reads as that one does."""
    try:
        from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend
    except ImportError:
        return False
    return backend.deserialize_value is XComObjectStorageBackend.deserialize_value


def _plain(found: object) -> Any:
    return found.as_xcom() if isinstance(found, Generation) else str(found)


def _unpacked(name: str, data: bytes) -> Any:
    import fsspec.utils
    from fsspec.compression import compr

    packing = fsspec.utils.infer_compression(name)
    if packing == "zip" and not _is_plain_zip(data):
        return UNKNOWN
    with compr[packing](io.BytesIO(data), mode="rb") as file:
        text = file.read(MAX_VALUE_BYTES + 1)
    return UNKNOWN if len(text) > MAX_VALUE_BYTES else bounded_json(text.decode(), MAX_VALUES)


def _is_plain_zip(data: bytes) -> bool:
    """Whether Python unpacks a ZIP file piece by piece: 1.2 kB of other methods than deflation took 3 GB at once."""
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        methods = {each.compress_type for each in packed.infolist()}
    return methods <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def _keep(key: _Key, value: Any) -> None:
    kept = None if value is UNKNOWN else json.dumps(value)
    if kept is not None and len(kept) > MAX_KEPT_CHARS:
        return
    with _lock:
        _kept[key] = (kept, time.monotonic() + UNKNOWN_SECONDS if kept is None else math.inf)
        _kept.move_to_end(key)
        while len(_kept) > MAX_KEPT:
            _kept.popitem(last=False)
