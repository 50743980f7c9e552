"""What API clients, downloads and uploads have in common: how long, how much at a time, how often, and the name."""

from __future__ import annotations

from typing import Final

from airflow_provider_vidu import __version__

USER_AGENT: Final = f"airflow-provider-vidu/{__version__}"
DEFAULT_TIMEOUT: Final = 30.0
DEFAULT_MAX_RETRIES: Final = 5
CHUNK_BYTES: Final = 64 * 1024
TOTAL_TIMEOUTS: Final = 4
"""An answer must be complete within this many timeouts: a trickle is not a sign of life."""
SLOW_TIMEOUTS: Final = 2
"""So many of the connection's timeouts an answer's head may take, and a body may be too slow."""
