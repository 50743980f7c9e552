"""What a real download tells: Airflow's accessors of outlet events, and the OpenLineage provider's extractor."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias
from airflow.utils.state import TaskInstanceState

from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator

pytestmark = pytest.mark.integration

FILMS = Asset("films")
CLIPS = AssetAlias("clips")


@pytest.fixture
def download(tmp_path):
    """Return a function that downloads a generation and returns the operator, its record and its outlets' events."""
    context = pytest.importorskip("airflow.sdk.execution_time.context", reason="Airflow 2 has other ones")
    accessors = context.OutletEventAccessors

    def download(outlets=(FILMS, CLIPS), **arguments):
        events = accessors()
        arguments = {"destination": f"{tmp_path}/", "outlets": list(outlets), **arguments}
        operator = ViduDownloadOperator(task_id="download", **arguments)
        return operator, operator.execute({"outlet_events": events}), events

    return download


def test_outlets_are_told_what_was_stored(connect, sandbox, download):
    """Asset and alias get the record with model and prompt; one request has returned URL, model and prompt."""
    connect()
    known = {"model": "vidu2.0", "prompt": "a kite", "enhanced_prompt": "a fine kite"}
    sandbox.add_generation("file", states=[["completed", 0]])
    sandbox.add_generation("g", answer={"id": "g", "status": "completed", "video_url": _signed(sandbox), **known})
    _, record, events = download(generation_id="g")

    (told,) = events[CLIPS].asset_alias_events
    assert told.dest_asset_key.uri == record["uri"]
    assert events[FILMS].extra == told.extra == {**record, **known, "artifact": "video"}
    assert "sig" not in json.dumps(told.extra)
    assert len(sandbox.requests("query", "g")) == 1


def test_outlets_are_told_what_only_the_order_knew(connect, sandbox, download):
    """The query of ent-v2 answers no prompt and no model: what generate returned does, without another question."""
    connect("ent-v2")
    order = {"task_id": "generate", "prompt": "a kite", "model": "viduq2", "poll_interval": 0.05}
    generation = ViduGenerateOperator(**order).execute({})
    before = len(sandbox.requests("query"))
    operator, _, events = download(generation=generation, vidu_conn_id="vidu_default")
    told = events[FILMS].extra
    assert (told["prompt"], told["model"]) == ("a kite", "viduq2")
    assert len(sandbox.requests("query")) == before
    assert "viduq2" in str(operator.get_openlineage_facets_on_complete(None).run_facets)


def _signed(sandbox) -> str:
    """Return a signed URL of the sandbox's file."""
    from airflow_provider_vidu.hooks import ViduHook

    url = ViduHook().get_generation("file").video_url
    assert "?" in url
    return url


def test_without_outlets_nothing_more_is_asked(connect, sandbox, download):
    """A download of a URL asks the service for the generation only where an asset wants to know of it."""
    connect()
    sandbox.add_generation("file", states=[["completed", 0]])
    url = _signed(sandbox)
    asked = len(sandbox.requests("query"))
    download(outlets=["a table"], video_url=url, generation_id="file")
    assert len(sandbox.requests("query")) == asked
    _, _, events = download(video_url=url, generation_id="file")
    assert len(sandbox.requests("query")) == asked + 1
    assert events[FILMS].extra["generation_id"] == "file"


def test_a_service_that_does_not_answer_costs_no_file(connect, sandbox, download, quick_backoff):
    """The file is stored and its event fired, without model and prompt, when the service cannot be asked."""
    connect()
    sandbox.add_generation("file", states=[["completed", 0]])
    url = _signed(sandbox)
    sandbox.add_fault({"match": {"kind": "query"}, "action": {"status": 503}})
    _, record, events = download(video_url=url, generation_id="file")
    assert events[FILMS].extra == {**record, "artifact": "video"}


def test_a_file_that_was_there_is_told_as_well(connect, sandbox, download):
    """``overwrite="skip"`` fetches nothing, and the DAGs behind the asset run all the same."""
    connect()
    sandbox.add_generation("file", states=[["completed", 0]])
    _, first, _ = download(generation_id="file")
    _, _, events = download(generation_id="file", overwrite="skip")
    assert events[FILMS].extra["sha256"] == first["sha256"]
    assert len(sandbox.requests("file")) == 1


def test_lineage_leads_from_the_service_to_the_file(connect, sandbox, download, tmp_path):
    """The provider's extractor takes both ends from the operator, and its client writes them as an event."""
    from airflow.providers.openlineage.extractors.manager import ExtractorManager
    from airflow.providers.openlineage.plugins.adapter import OpenLineageAdapter
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.file import FileConfig, FileTransport

    connect()
    sandbox.add_generation("file", states=[["completed", 0]])
    operator, record, _ = download(outlets=(), generation_id="file", dag=DAG("d", schedule=None))
    run, state = SimpleNamespace(run_id="r"), TaskInstanceState.SUCCESS
    lineage = ExtractorManager().extract_metadata(run, operator, state, SimpleNamespace())

    path = tmp_path / "lineage.json"
    transport = FileTransport(FileConfig(log_file_path=str(path), append=True))
    adapter = OpenLineageAdapter(OpenLineageClient(transport=transport))
    nothing = dict.fromkeys(("nominal_start_time", "nominal_end_time", "owners", "tags", "job_description"))
    adapter.complete_task(str(uuid.uuid4()), "d.download", datetime.now(UTC).isoformat(), lineage, **nothing)
    event = json.loads(path.read_text())

    (source,), (target,) = event["inputs"], event["outputs"]
    assert (source["namespace"], source["namespace"] + source["name"]) == (sandbox.url, record["source"])
    assert f"{target['namespace']}://{target['name']}" == record["uri"]
    assert target["outputFacets"]["outputStatistics"]["size"] == record["size"]
    assert target["facets"]["version"]["datasetVersion"] == f"sha256:{record['sha256']}"
    assert event["run"]["facets"]["externalQuery"]["externalQueryId"] == "file"
    assert sandbox.key not in path.read_text()


def test_lineage_knows_the_model_where_the_service_tells_it(connect, sandbox, download):
    """The model stands among the run's tags."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    connect()
    sandbox.add_generation("file", states=[["completed", 0]])
    answer = {"id": "g", "status": "completed", "model": "vidu2.0", "video_url": _signed(sandbox)}
    sandbox.add_generation("g", answer=answer)
    operator, _, _ = download(outlets=(), generation_id="g")
    lineage = operator.get_openlineage_facets_on_complete(None)
    assert isinstance(lineage, OperatorLineage)
    (tag,) = lineage.run_facets["tags"].tags
    assert (tag.key, tag.value) == ("vidu.model", "vidu2.0")
