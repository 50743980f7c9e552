"""The watch over TLS sockets; what it ends is in tests/integration/api/clients/test_tls_without_data.py."""

from __future__ import annotations

import os

from airflow_provider_vidu.network.guarded import _watch


def test_a_forked_process_takes_no_lock_with_it():
    """Another thread of the parent may hold it, and would never release it in the child."""
    with _watch._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if _watch._lock.acquire(timeout=5) else 1)
    assert os.waitpid(child, 0)[1] == 0
