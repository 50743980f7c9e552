"""The dialects by name: how each family of services phrases its requests.

To add a dialect, follow "Adding a dialect" in ``docs/architecture.md``.
"""

from __future__ import annotations

from airflow_provider_vidu.api.dialects.base import Dialect
from airflow_provider_vidu.api.dialects.ent_v2 import EntV2
from airflow_provider_vidu.api.dialects.vidu_native import ViduNative

DIALECTS: dict[str, type[Dialect]] = {kind.name: kind for kind in (ViduNative, EntV2)}
DEFAULT_DIALECT = ViduNative.name

__all__ = ["DEFAULT_DIALECT", "DIALECTS", "Dialect", "EntV2", "ViduNative"]
