"""What an event trigger remembers beside its asset, in Airflow's state store (Airflow ≥ 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_vidu.common.text import redacted

STATE_KEY: Final = "vidu_finished"
_NOTHING: Final = object()


class AssetMemory:
    """The memory of one trigger. A store that fails costs repeated events, never the trigger.

    :param store: the asset's state store, as Airflow gives it to a trigger; None before Airflow 3.3.
    """

    def __init__(self, store: Any, log: Any) -> None:
        #: None also after it could not be read.
        self.store = store
        self._log = log

    async def recalled(self) -> object:
        """Return what was kept last; None if there is nothing, or no store. One that cannot be read is not written.

        ``[workers] state_store_backend`` leaves a reference in Airflow's database. Airflow returns None if its object
        is gone, and the reference itself to a triggerer without that back end: neither means that nothing was kept.
        """
        if self.store is None:
            return None
        try:
            memory = await self.store.aget(STATE_KEY, _NOTHING)
        except Exception as error:  # noqa: BLE001 - any backend's error; without the memory, events may repeat
            self._log.warning("Could not read which events were fired before; some may repeat: %s", redacted(error))
            self.store = None
            return None
        if memory is _NOTHING:
            return None
        if not isinstance(memory, Mapping) or "told" not in memory:
            self._log.warning(
                "The record of the events that were fired before, the state %s of the asset, is lost, so this trigger "
                "begins again: generations that finished meanwhile are not reported, or, with since or generation_ids, "
                "all are again. All triggerers need the same [workers] state_store_backend and access to its storage.",
                STATE_KEY,
            )
            return None
        return memory

    async def keep(self, memory: dict[str, Any]) -> None:
        """Keep what :meth:`recalled` is to return after a restart."""
        if self.store is None:
            return
        try:
            await self.store.aset(STATE_KEY, memory)
        except Exception as error:  # noqa: BLE001 - as above
            self._log.warning("Could not store which events were fired: %s", redacted(error))
