"""The pytest fixture ``vidu_sandbox``: ``pytest_plugins = ["airflow_provider_vidu.sandbox.pytest_plugin"]``.

Put this line into the ``conftest.py`` of pytest's rootdir: elsewhere pytest refuses it, or reads it after the marks.

.. code-block:: python

    def test_my_dag(vidu_sandbox, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", vidu_sandbox.connection_json())

    @pytest.mark.vidu_sandbox(duration=600, speed=0)
    def test_with_a_clock_of_my_own(vidu_sandbox):
        vidu_sandbox.advance(601)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_vidu.sandbox.runner import Sandbox

#: Sandbox seconds per real second unless the marker says otherwise: a generation then takes half a second.
DEFAULT_SPEED = 50.0


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, for ``--strict-markers``."""
    config.addinivalue_line("markers", "vidu_sandbox(**settings): settings of the Sandbox of the fixture vidu_sandbox")


@pytest.fixture
def vidu_sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Yield a fresh :class:`Sandbox`, 50 times as fast as the wall clock; the marker changes its settings."""
    marker = request.node.get_closest_marker("vidu_sandbox")
    settings = {"speed": DEFAULT_SPEED, **(marker.kwargs if marker is not None else {})}
    with Sandbox(**settings) as sandbox:
        yield sandbox
