"""A local Vidu for playing and testing: both API dialects, real videos, faults on demand; no key, no credits.

On the command line: ``python -m airflow_provider_vidu.sandbox``. In Python: :class:`Sandbox`. In pytest:
``pytest_plugins = ["airflow_provider_vidu.sandbox.pytest_plugin"]``. Needs ``aiohttp`` and nothing else.

Its modules: ``pictures``, ``h264``, ``mp4`` and ``sounds`` make the results; ``settings`` says how strict it is;
``clock``, ``generations``, ``slots`` and ``world`` hold what is true when; ``official`` is the official API (tables of
the creates, list, uploads) and ``gateway`` the gateways, with the bodies of their answers in ``ent`` and ``native``;
``refusals`` and ``faults`` are what can go wrong; ``signing`` and ``files`` serve downloads; ``ledger`` keeps the
books; ``core`` dispatches, ``guard`` keeps foreign web sites out, ``app`` and ``delivery`` do the I/O.
"""

from __future__ import annotations

from airflow_provider_vidu.sandbox.core import Core
from airflow_provider_vidu.sandbox.runner import Sandbox
from airflow_provider_vidu.sandbox.settings import Settings
from airflow_provider_vidu.sandbox.world.ledger import CreateRecord, RecordedRequest

__all__ = ["Core", "CreateRecord", "RecordedRequest", "Sandbox", "Settings"]
