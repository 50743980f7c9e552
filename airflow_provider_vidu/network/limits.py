"""Limits shared by API clients, downloads and uploads, and the user agent."""

from __future__ import annotations

from typing import Final

from airflow_provider_vidu import __version__

USER_AGENT: Final = f"airflow-provider-vidu/{__version__}"
DEFAULT_TIMEOUT: Final = 30.0
DEFAULT_MAX_RETRIES: Final = 5
CHUNK_BYTES: Final = 64 * 1024
TOTAL_TIMEOUTS: Final = 4
"""An answer must be complete within this many timeouts, however steadily it trickles."""
SLOW_TIMEOUTS: Final = 2
"""An answer's head may take this many of the connection's timeouts, and a body may be too slow for as many."""
