"""``[vidu] preview_roots``: which stored files the API server may read. The rules are those of :mod:`..places`."""

from __future__ import annotations

from airflow_provider_vidu.places import Root, Spot, read_roots, read_spot, root_of

__all__ = ["Root", "Spot", "read_roots", "read_spot", "root_of"]
