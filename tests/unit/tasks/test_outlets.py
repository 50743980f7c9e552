"""Outlets: which get the record, and what happens when one of them cannot."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import Asset, AssetAlias

from airflow_provider_vidu.tasks.outlets import fill_outlet_events, openlineage_facets

log = logging.getLogger("vidu-announce")
EXTRA = {"size": 3}


@pytest.fixture
def events():
    """Return Airflow's own accessors of outlet events."""
    context = pytest.importorskip("airflow.sdk.execution_time.context", reason="Airflow 2 has other ones")
    return context.OutletEventAccessors()


def fill(outlets, events, uri="s3://bucket/a.mp4"):
    """Fill the events of a task with these outlets."""
    fill_outlet_events(outlets, {"outlet_events": events}, uri, lambda: EXTRA, log)


def test_an_asset_keeps_what_the_user_has_put_there(events):
    """Ours is added to the extra that is there already."""
    asset = Asset("films")
    events[asset].extra = {"team": "blue"}
    fill([asset], events)
    assert events[asset].extra == {"team": "blue", "size": 3}


def test_an_alias_becomes_the_object(events):
    """The alias is resolved to the stored object, with the extra."""
    alias = AssetAlias("clips")
    fill([alias], events)
    (event,) = events[alias].asset_alias_events
    assert (event.dest_asset_key.uri, event.extra) == ("s3://bucket/a.mp4", EXTRA)


def test_without_assets_nobody_is_asked():
    """No outlet, or only outlets of another kind: the extra is not even made."""
    for outlets in ([], ["table"], [SimpleNamespace()]):
        fill_outlet_events(outlets, {}, "file:///a", lambda: pytest.fail("asked"), log)


def test_an_alias_that_cannot_be_resolved_is_told(events, caplog):
    """A URI that Airflow refuses (too long) costs the event, not the stored file, and the log says so."""
    alias, asset = AssetAlias("clips"), Asset("films")
    fill([alias, asset], events, uri=f"s3://bucket/{'a' * 2000}")
    assert "the event of outlet" in caplog.text
    assert "cannot exceed 1500" in caplog.text
    assert events[asset].extra == EXTRA


def test_lineage_before_there_is_a_file():
    """A task that has stored nothing has no lineage."""
    found = openlineage_facets(None, None)
    assert (found.inputs, found.outputs) == ([], [])
