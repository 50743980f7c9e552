"""What the tests of polling under faults share; transfers have a world of their own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from airflow_provider_vidu.polling import retries
from tests.faults.polling_world import Async, Patience, Side, Sync, World

# What a fault is tried on: each combination of them shows the same behaviour.
COMBINED = ("dialect", "side", "home", "overwrite")


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every combination but one of each fault as nightly; another one for each fault, so that all occur."""
    here = Path(__file__).parent
    families: dict[tuple[Any, ...], list[pytest.Item]] = {}
    for item in items:
        found = getattr(item, "callspec", None)
        if found is not None and item.path.parent == here:
            fault = tuple(repr(found.params[name]) for name in sorted(found.params) if name not in COMBINED)
            families.setdefault((item.path, item.function.__name__, fault), []).append(item)
    for number, family in enumerate(families.values()):
        for item in family[: number % len(family)] + family[number % len(family) + 1 :]:
            item.add_marker(pytest.mark.nightly)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> dict[str, str]:
    """Return PEM files: the authority that is trusted, a good certificate, and bad ones."""
    folder: Path = tmp_path_factory.mktemp("certificates")
    trusted, unknown = trustme.CA(), trustme.CA()
    long_ago = datetime.now(UTC) - timedelta(days=1)
    issued = {
        "good": trusted.issue_cert("127.0.0.1"),
        "other host": trusted.issue_cert("elsewhere.example"),
        "unknown authority": unknown.issue_cert("127.0.0.1"),
        "expired": trusted.issue_cert("127.0.0.1", not_after=long_ago),
    }
    found = {"ca": str(folder / "ca.pem")}
    trusted.cert_pem.write_to_path(found["ca"])
    for name, certificate in issued.items():
        found[name] = str(folder / f"{name}.pem")
        certificate.private_key_and_cert_chain_pem.write_to_path(found[name])
    return found


@pytest.fixture
def world(monkeypatch, certificates, no_first_wait) -> Iterator[World]:
    """Yield a sandbox and a connection to it, ready for a fault."""
    made = World(monkeypatch, certificates)
    yield made
    made.close()


@pytest.fixture
def patience(world, monkeypatch) -> Patience:
    """Make the delays after failures short, and count them."""
    made = Patience(world.lift)
    monkeypatch.setattr(
        retries.Backoff,
        "delay",
        lambda backoff, failures, error=None, rng=None: made.delay(backoff, failures, error, rng),
    )
    return made


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def side(request, context: dict[str, Any]) -> Side:
    """Each side in turn."""
    return request.param(context)
