"""What a task reports to its outlets, for tests outside a running Airflow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class Events:
    """The outlet events of a context, by the outlets' names: the assets of some Airflows cannot be hashed."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, outlet: Any) -> Any:
        added: list[Any] = []
        made = SimpleNamespace(extra={}, added=added, add=lambda asset, extra: added.append((asset.uri, extra)))
        return self._made.setdefault(getattr(outlet, "uri", "") or outlet.name, made)
