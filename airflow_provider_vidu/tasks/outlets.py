"""Reports a stored file to Airflow: asset events for the outlets that a user declares, and OpenLineage facets.

All of this runs after the file is stored, and is best effort: a failed event must not cause another download.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.tasks.lineage import asset_uri, event_extra, object_name, source_name

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import OutputDataset
    from airflow.providers.openlineage.extractors import OperatorLineage


def fill_outlet_events(
    outlets: Iterable[Any], context: Mapping[str, Any], uri: str, extra: Callable[[], dict[str, Any]], log: Any
) -> None:
    """Attach ``extra`` to the event of each declared asset; resolve each alias to the object itself.

    :param outlets: the task's outlets; only assets and aliases are handled.
    :param uri: the stored object.
    :param extra: called only if there is an asset or an alias.
    :param log: gets a warning for each event that could not be filled.
    """
    references = ("AssetNameRef", "AssetUriRef")  # of Asset.ref(…), which Airflow 2 does not have
    wanted = [one for one in outlets if isinstance(one, (Asset, AssetAlias)) or type(one).__name__ in references]
    events = context.get("outlet_events") if wanted else None
    if events is None:
        return
    content = extra()
    for outlet in wanted:
        try:
            if isinstance(outlet, AssetAlias):
                events[outlet].add(Asset(uri=asset_uri(uri)), extra=content)
            else:
                events[outlet].extra.update(content)
        except Exception as error:  # noqa: BLE001 - the database may refuse an asset's name
            log.warning("The file is stored, but missing in the event of outlet %s: %s", outlet, redacted(error))


def report_stored(
    operator: Any, context: Mapping[str, Any], record: dict[str, Any], generation: Callable[[], Generation | None]
) -> None:
    """Fill the events of a task's outlets with the record of its file.

    :param operator: the task; its ``artifact`` is None for a result of any medium.
    :param generation: returns the file's generation, as far as it is known; called only if there is an event to fill.
    """
    kept = operator.artifact or record["content_type"].partition("/")[0]
    fill_outlet_events(
        operator.outlets, context, record["uri"], lambda: event_extra(record, generation(), kept), operator.log
    )


def batch_facets(
    summary: Mapping[str, Any] | None, rows_uri: str | None, digest: str | None
) -> OperatorLineage[Any, Any]:
    """Return the lineage of a batch (None if it failed): from the file of its rows, if there is one, to its manifest.

    The manifest is the one data set of a batch: it names every file, and a batch of 5,000 would flood a catalogue.

    :param rows_uri: where the file of the rows is.
    :param digest: the SHA-256 of the manifest.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    if summary is None:
        return OperatorLineage()
    ended = summary["stored"] + summary["failed"]
    files = summary["stored"] - summary["reused"]
    output = _written(summary["manifest"], digest, rowCount=ended, size=summary["bytes"], fileCount=files)
    sources = [Dataset(namespace=found[0], name=found[1]) for found in map(object_name, filter(None, [rows_uri]))]
    return OperatorLineage(inputs=sources, outputs=[output])


def openlineage_facets(record: Mapping[str, Any] | None, generation: Generation | None) -> OperatorLineage[Any, Any]:
    """Return the lineage of a download (None if it failed): from the URL without its query to the stored object.

    :param generation: the generation, if it is already known; the service is not queried for it.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset, ExternalQueryRunFacet
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.generated.tags_run import TagsRunFacet, TagsRunFacetFields

    if record is None:
        return OperatorLineage()
    inputs = [source_name(record["source"])] if record["source"] else []
    output = _written(record["uri"], record["sha256"], rowCount=None, size=record["size"], fileCount=1)
    run_facets: dict[str, Any] = {}
    if record["generation_id"]:
        run_facets["externalQuery"] = ExternalQueryRunFacet(externalQueryId=record["generation_id"], source="vidu")
    if generation is not None and generation.model:
        model = TagsRunFacetFields(key="vidu.model", value=redacted(generation.model), source="AIRFLOW")
        run_facets["tags"] = TagsRunFacet(tags=[model])
    return OperatorLineage(
        inputs=[Dataset(namespace=namespace, name=name) for namespace, name in inputs],
        outputs=[output],
        run_facets=run_facets,
    )


def _written(uri: str, digest: str | None, **statistics: Any) -> OutputDataset:
    """Return the data set of a stored object; two of one name that differ are two versions."""
    from airflow.providers.common.compat.openlineage.facet import OutputDataset, OutputStatisticsOutputDatasetFacet
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet

    namespace, name = object_name(uri)
    return OutputDataset(
        namespace=namespace,
        name=name,
        facets={"version": DatasetVersionDatasetFacet(datasetVersion=f"sha256:{digest}")} if digest else {},
        outputFacets={"outputStatistics": OutputStatisticsOutputDatasetFacet(**statistics)},
    )
