"""A local Vidu for trials and tests: both API dialects, real videos, faults on demand; no key, no credits.

On the command line: ``python -m airflow_provider_vidu.sandbox``. In Python: :class:`Sandbox`. In pytest:
``pytest_plugins = ["airflow_provider_vidu.sandbox.pytest_plugin"]``. It needs only ``aiohttp``.

Its floors, each of which imports only those below it:

- ``__main__`` is the command, ``pytest_plugin`` the fixture. ``runner`` holds :class:`Sandbox`, which both use.
- ``server`` does the I/O: it reads requests, keeps foreign web sites out (``guard``) and sends the answers.
- ``control`` answers under ``/_sandbox/``. ``core`` takes all other requests, applies the faults, and calls one of the
  two APIs, which ``routing`` chooses by the raw path.
- ``official`` is the official API (tables of its creates, its list, its uploads), ``gateway`` the gateways;
  ``bodies`` holds the JSON of their answers.
- ``world`` holds the state: generations, files, uploads, the clock, the account's ledger and slots.
- ``faults`` are failures on demand, ``messages`` requests and answers as data.
- ``settings`` choose how strict it is; ``media`` makes the images, videos and sounds.
"""

from __future__ import annotations

from airflow_provider_vidu.sandbox.core import Core
from airflow_provider_vidu.sandbox.runner import Sandbox
from airflow_provider_vidu.sandbox.settings import Settings
from airflow_provider_vidu.sandbox.world.ledger import CreateRecord, RecordedRequest

__all__ = ["Core", "CreateRecord", "RecordedRequest", "Sandbox", "Settings"]
