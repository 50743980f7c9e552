"""A dry run: everything that comes before a create is done and checked, and nothing is sent.

Its result has an id and an address that no service has, so that tasks behind it, however they take them, know them for
what they are: a sensor and a download of this provider skip themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_vidu.common.progress import request_lines
from airflow_provider_vidu.common.text import without_query, without_signatures
from airflow_provider_vidu.common.url_parts import split_url
from airflow_provider_vidu.common.values import mapping, whole, without_media
from airflow_provider_vidu.links import DRY_RUN_PREFIX, ID_KEY

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.orders.media.prepared import Prepared

HOST: Final = "dry-run.invalid"
"""A name that never resolves (RFC 6761)."""
_PRIVATE: Final = ("payload", "callback_url")
"""Fields that may hold tokens."""


def dry_run(
    hook: ViduHook,
    context: Mapping[str, Any],
    prepared: Prepared,
    endpoint: str | None,
    terms: Mapping[str, Any],
    log: Any,
) -> dict[str, Any]:
    """Check a request as far as that is possible without sending anything; log it, and return what would be sent.

    :param hook: of the connection, which is looked up and not used.
    :param prepared: the request. Its files are read, and checked against the limits.
    :param endpoint: as for :meth:`ViduHook.create_generation`.
    :param terms: model and parameters of the request as a result repeats them.
    :param log: gets the request, without the connection's secrets.
    :return: plain JSON with ``dry_run``, ``endpoint``, ``request``, and ``credits`` if an earlier run paid for the same
        model and parameters; files in the request are their digests.
    :raises ViduError: when the request cannot be sent.
    """
    config = hook.config
    with closing(prepared):
        request, sent = prepared.identity(), prepared.resolve(Offline(hook))
    url = without_query(config.url(config.dialect.create(sent, endpoint).request))
    log.info("::group::Dry run: this request to %s would be sent", url)
    for line in request_lines(sent):
        log.info("%s", config.redact(line))
    log.info("::endgroup::")
    public = without_media({name: value for name, value in request.items() if name not in _PRIVATE})
    whole_result = {"dry_run": True, "endpoint": split_url(url).path, "request": without_signatures(public), **terms}
    result: dict[str, Any] = json.loads(config.redact(json.dumps(whole_result, default=str)))
    if (price := _earlier_price(context, terms)) is not None:
        result["credits"] = price
    costs = "" if price is None else f" The last run paid {price} credits for this model and these parameters."
    log.info("Dry run: nothing was submitted.%s", costs)
    return {**result, **_placeholders(context)}


def skip_after_dry_run(*references: object) -> None:
    """Skip a task, with an AirflowSkipException, whose generation or URL comes from a dry run."""
    if any(_is_of_dry_run(reference) for reference in references):
        raise AirflowSkipException("The generation is of a dry run: there is nothing to wait for, or to download.")


def _is_of_dry_run(reference: object) -> bool:
    if not isinstance(reference, str):
        return False
    try:
        return reference.startswith(DRY_RUN_PREFIX) or split_url(reference).hostname == HOST
    except ValueError:  # of "http://[" and the like, which are refused by name where they are used
        return False


def _placeholders(context: Mapping[str, Any]) -> dict[str, str]:
    """Return an id and an address for the tasks behind this one; the id is published, as that of a generation is."""
    from airflow_provider_vidu.orders.records import iteration_of  # DAG files import this module

    ti = context.get("ti")
    index, iteration = getattr(ti, "map_index", -1), iteration_of(cast("Context", context))
    # An id of its own for each task of a run: the clip pages show tasks with the same id as one clip.
    own = [str(getattr(ti, "task_id", "")), *([] if iteration is None else [f"iteration {iteration}"])]
    digest = hashlib.sha256("\n".join(own).encode()).hexdigest()[:8]
    name = f"{DRY_RUN_PREFIX}{digest}-{index if isinstance(index, int) and index >= 0 else 0}"
    if ti is not None:
        ti.xcom_push(key=ID_KEY, value=name)
    return {"id": name, "video_url": f"https://{HOST}/{name}"}


def earlier_result(context: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the task returned in its last run; empty if that is not at hand."""
    ti: Any = context.get("ti")
    try:
        own = {"task_ids": ti.task_id, "map_indexes": ti.map_index}
        return mapping(ti.xcom_pull(key="return_value", include_prior_dates=True, **own))
    except Exception:  # noqa: BLE001 - a price is shown only where it is cheap to know
        return {}


def _earlier_price(context: Mapping[str, Any], terms: Mapping[str, Any]) -> int | float | None:
    """Return what the task's result of an earlier run cost, if it is of the same model and parameters."""
    known = earlier_result(context)
    parameters = {name: value for name, value in mapping(known.get("parameters")).items() if name != "seed"}
    own = {name: value for name, value in mapping(terms.get("parameters")).items() if name != "seed"}
    is_same = known.get("model") == terms.get("model") and parameters == own
    return whole(known.get("credits")) if is_same else None


class Offline:
    """Stands in for a hook where files are resolved: what would be uploaded gets an address of the same form."""

    def __init__(self, hook: ViduHook) -> None:
        self.config = hook.config

    def _upload(self, content: BinaryIO, size: int, content_type: str) -> str:
        return f"ssupload:?id={DRY_RUN_PREFIX}{size}"
