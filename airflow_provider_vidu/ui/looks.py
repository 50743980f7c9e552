"""What all requests share: queries of the database and of the service, and the threads that they run in."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from typing import Any, Final

from airflow_provider_vidu.ui.clips import views
from airflow_provider_vidu.ui.clips.facts import Clip
from airflow_provider_vidu.ui.clips.live import LiveStates
from airflow_provider_vidu.ui.clips.pieces import MAX_PIECES
from airflow_provider_vidu.ui.clips.service import Live
from airflow_provider_vidu.ui.playing.preview import place_of, proven_types
from airflow_provider_vidu.ui.records import store
from airflow_provider_vidu.ui.shared import Shared
from airflow_provider_vidu.ui.threads import LOOKS, VIEWS, Reads, Threads

STORE_PATIENCE_SECONDS: Final = 3.0
"""A page waits no longer for the content types of stored files; then their names decide."""


class Looks:
    """Looks at the database, the service and the stores for all requests. Lives on one event loop."""

    def __init__(self) -> None:
        threads = Threads(LOOKS)
        self.states = LiveStates()
        self.reads = Reads()
        self.views = Threads(VIEWS)
        self._sheets = Shared[store.Sheet | None](threads, store.weight)
        self._pages = Shared[store.Page | None](threads, store.weight)

    async def sheet(self, *key: Any) -> tuple[store.Sheet | None, float]:
        """Return what :func:`.read_sheet` returns for its arguments, and the seconds that it took."""
        return await self._sheets.get(key, lambda: store.read_sheet(*key))

    async def page(self, *key: Any) -> tuple[store.Page | None, float]:
        """Return what :func:`.read_page` returns for its arguments, and the seconds that it took."""
        return await self._pages.get(key, lambda: store.read_page(*key))

    async def live(self, clip: Clip, patience: float | None = None) -> Live:
        """Query the service if no result holds the end of the generation.

        :param patience: seconds to wait for the answer; if omitted, what a page waits.
        """
        if views.must_ask(clip):
            return await self.asked(clip, patience)
        return self.states.seen(clip.conn_id or "", clip.generation_id or "", clip.endpoint)

    async def asked(self, clip: Clip, patience: float | None = None) -> Live:
        """Query the service for a clip whose connection and id are known."""
        assert clip.conn_id is not None
        assert clip.generation_id is not None
        more = {} if patience is None else {"patience": patience}
        return await self.states.state(clip.conn_id, clip.generation_id, clip.endpoint, **more)

    async def stored(self, clips: Iterable[Clip]) -> dict[str, str | None]:
        """Return the stored files that may be shown, with their proven content type if no record names one."""
        found, asked = await self.views.run(_shown_files, clips)
        nothing: dict[str, str | None] = {}
        looks = [
            self.reads.soon(place, proven_types, uris, patience=STORE_PATIENCE_SECONDS, otherwise=nothing)
            for place, uris in asked.items()
        ]
        for proven in await asyncio.gather(*looks):
            found.update(proven)
        return dict(found)


def _shown_files(clips: Iterable[Clip]) -> tuple[dict[str, str | None], dict[Hashable, list[str]]]:
    """Return the stored files that may be shown, and by their root those without a recorded content type."""
    found: dict[str, str | None] = {}
    asked: dict[Hashable, list[str]] = {}
    for record in (record for clip in clips for record in clip.records[:MAX_PIECES]):
        if (place := place_of(record.uri)) is not None:
            found[record.uri] = None
            if not record.medium:
                asked.setdefault(place, []).append(record.uri)
    return found, asked
