"""What all requests share: queries of the database and of the service, and the threads that they run in."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final

from fastapi import Request

from airflow_provider_vidu.common.values import mapping
from airflow_provider_vidu.ui.clips import views
from airflow_provider_vidu.ui.clips.facts import Clip, TaskFacts
from airflow_provider_vidu.ui.clips.live import LiveStates
from airflow_provider_vidu.ui.clips.pieces import MAX_PIECES
from airflow_provider_vidu.ui.clips.service import Live
from airflow_provider_vidu.ui.clips.xcoms import chars_of, text_chars
from airflow_provider_vidu.ui.playing import shelf
from airflow_provider_vidu.ui.playing.preview import preview_root
from airflow_provider_vidu.ui.records import store
from airflow_provider_vidu.ui.records.circumstances import why_halted
from airflow_provider_vidu.ui.shared import Shared
from airflow_provider_vidu.ui.threads import QUERIES, VIEWS, QueryThreads, Reads, ViewThreads

STORE_PATIENCE_SECONDS: Final = 3.0
"""A page waits no longer for a look at stored files; then their records and names decide."""


class PageQueries:
    """Queries the database, the service and the stores for all requests. Lives on one event loop."""

    def __init__(self) -> None:
        threads = QueryThreads(QUERIES)
        self.states = LiveStates()
        self.reads = Reads()
        self.views = ViewThreads(VIEWS)
        self._sheets = Shared[store.Sheet | None](threads, weight)
        self._pages = Shared[store.Page | None](threads, weight)
        self._halts = Shared[str | None](threads)

    async def sheet(self, *key: Any) -> tuple[store.Sheet | None, float]:
        """Return what :func:`.read_sheet` returns for its arguments, and the seconds that it took."""
        return await self._sheets.get(key, lambda: store.read_sheet(*key))

    async def page(self, *key: Any) -> tuple[store.Page | None, float]:
        """Return what :func:`.read_page` returns for its arguments, and the seconds that it took."""
        return await self._pages.get(key, lambda: store.read_page(*key))

    async def why_halted(self, dag_id: str, run_id: str) -> str | None:
        """Return what :func:`.why_halted` returns for a run."""
        found, _ = await self._halts.get((dag_id, run_id), lambda: why_halted(dag_id, run_id))
        return found

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
        dag_id = clip.main.dag_id
        return await self.states.state(clip.conn_id, clip.generation_id, clip.endpoint, of_dag=dag_id, **more)

    async def stored(
        self, clips: Sequence[Clip], most_age: float = shelf.PAGE_SECONDS
    ) -> tuple[dict[str, str | None], list[Clip]]:
        """Return the stored files that may be shown, and the clips with what has become of these files.

        With a file comes its proven content type, if no record names one.

        :param most_age: seconds after which a file that was there is looked at again.
        """
        dag_id = clips[0].main.dag_id if clips else ""
        asked = await self.views.run_of(dag_id, _shown_files, clips)
        nothing: dict[str, shelf.Known] = {}
        looks = [
            # In a lane of their own: a DAG may name any number of files, and clips of the same root are to play.
            self.reads.soon(
                (place, "looks"), shelf.look, files, most_age, patience=STORE_PATIENCE_SECONDS, otherwise=nothing
            )
            for place, files in asked.items()
        ]
        known = {uri: found for looked in await asyncio.gather(*looks) for uri, found in looked.items()}
        shown = {uri: known[uri].kind if uri in known else None for files in asked.values() for uri, *_ in files}
        return shown, await self.views.run_of(dag_id, lambda: [clip.with_known(known) for clip in clips])


def shared_queries(request: Request) -> PageQueries:
    """Return what a request shares with all others."""
    queries: PageQueries = request.app.state.queries
    return queries


def weight(found: store.Page | store.Sheet | None) -> int:
    """Return about how many characters are remembered with a page or a sheet."""
    clips: Sequence[Clip] = () if found is None else [found.clip] if isinstance(found, store.Page) else found.clips
    return sum(_chars_of(task) for clip in clips for task in clip.tasks)


def _chars_of(task: TaskFacts) -> int:
    texts = [*mapping(task.fields).values(), *mapping(task.watch).values(), task.generation_id]
    texts += [task.record.uri, task.record.source] if task.record else []
    return text_chars(texts) + chars_of(task.generation)


def _shown_files(clips: Iterable[Clip]) -> dict[Hashable, list[tuple[str, int, bool]]]:
    """Return the stored files that may be shown, by their root, with what :func:`.shelf.look` must know of each."""
    found: dict[Hashable, list[tuple[str, int, bool]]] = {}
    for record in (record for clip in clips for record in clip.records[:MAX_PIECES]):
        if (place := preview_root(record.uri)) is not None:
            found.setdefault(place, []).append((record.uri, record.size, record.medium is None))
    return found
