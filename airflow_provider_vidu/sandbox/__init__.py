"""A local Vidu for playing and testing: both API dialects, real videos, faults on demand; no key, no credits.

On the command line: ``python -m airflow_provider_vidu.sandbox``. In Python: :class:`Sandbox`. In pytest:
``pytest_plugins = ["airflow_provider_vidu.sandbox.pytest_plugin"]``. Needs ``aiohttp`` and nothing else.

The rooms: ``pictures``, ``h264`` and ``mp4`` make the videos; ``clock`` and ``generations`` say what is true
when; ``native`` and ``ent`` say it in the two dialects; ``signing`` and ``files`` guard the
downloads; ``ledger`` keeps the books; ``faults`` spoils answers; ``core`` decides, ``app`` and ``delivery``
do the I/O.
"""

from __future__ import annotations

from airflow_provider_vidu.sandbox.core import Core, Settings
from airflow_provider_vidu.sandbox.ledger import CreateRecord, RecordedRequest
from airflow_provider_vidu.sandbox.runner import Sandbox

__all__ = ["Core", "CreateRecord", "RecordedRequest", "Sandbox", "Settings"]
