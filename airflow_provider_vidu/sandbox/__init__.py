"""A local Vidu for playing and testing: both API dialects, real videos, faults on demand; no key, no credits.

On the command line: ``python -m airflow_provider_vidu.sandbox``. In Python: :class:`Sandbox`. In pytest:
``pytest_plugins = ["airflow_provider_vidu.sandbox.pytest_plugin"]``. Needs ``aiohttp`` and nothing else.

It serves HTTP in floors, each of which imports only those below it:

- ``server`` does the I/O: it reads requests, keeps foreign web sites out (``guard``) and sends what is answered.
- ``control`` answers under ``/_sandbox/``; ``core`` takes every other request, applies the faults, and asks one of
  the two APIs; ``routing`` reads from the raw path which one.
- ``official`` is the official API (tables of its creates, its list, its uploads), ``gateway`` the gateways;
  ``bodies`` holds the JSON that they answer with.
- ``world`` is what exists: generations, files, uploads, the clock, the account's books and slots.
- ``faults`` is what can go wrong, ``messages`` a request and an answer as data.
- ``settings`` say how strict it all is; ``media`` draws the pictures, films and sounds.
"""

from __future__ import annotations

from airflow_provider_vidu.sandbox.core import Core
from airflow_provider_vidu.sandbox.runner import Sandbox
from airflow_provider_vidu.sandbox.settings import Settings
from airflow_provider_vidu.sandbox.world.ledger import CreateRecord, RecordedRequest

__all__ = ["Core", "CreateRecord", "RecordedRequest", "Sandbox", "Settings"]
