"""What the pages of batches share between their readers."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from fastapi import HTTPException

from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.ui.batches import routes
from airflow_provider_vidu.ui.batches.journals import Read
from airflow_provider_vidu.ui.batches.records import Batch
from airflow_provider_vidu.ui.clips.facts import TaskFacts
from airflow_provider_vidu.ui.looks import Looks


@pytest.mark.parametrize("row", ["None by scene", "sheet", "('sheet', None, 'scene')"])
def test_the_name_of_a_row_is_not_taken_for_a_sheet(row):
    """A reader chooses it in an address: the sheets of all others broke while such a row was looked for."""
    task = TaskFacts("films", "run", "task", -1, None)
    found = routes.Found(Batch(task, "b", "file:///a/", "file:///a/b.jsonl", None, 1), Read(BatchState()), 0.0)

    async def both():
        state = SimpleNamespace(looks=Looks())
        routes.prepare(state)
        request = SimpleNamespace(app=SimpleNamespace(state=state))
        rows = (routes.row_at(request, row, found) for _ in range(2))
        sheet = routes.batch_data(request, "films", "run", found, None, 0, 24, "scene")
        return await asyncio.gather(*rows, sheet, return_exceptions=True)

    *rows, sheet = asyncio.run(both())
    assert [type(each) for each in rows] == [HTTPException] * 2
    assert not isinstance(sheet, BaseException), repr(sheet)
    assert json.loads(sheet.body)["total"] == 0
