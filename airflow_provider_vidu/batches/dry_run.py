"""A dry run of a batch: every row is read and checked, nothing is sent, and nothing is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.batches.arguments import Settings
from airflow_provider_vidu.batches.catalogue import Catalogue
from airflow_provider_vidu.batches.leg.submitter import fields_of, path_of
from airflow_provider_vidu.batches.lines import STORED, Line
from airflow_provider_vidu.batches.manifest import manifest_name, shown_of
from airflow_provider_vidu.batches.rows import Row
from airflow_provider_vidu.batches.snapshot import lines_of
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import mapping, whole
from airflow_provider_vidu.exceptions import ViduBatchFailedError, ViduError
from airflow_provider_vidu.orders.dry_run import Offline, earlier_result
from airflow_provider_vidu.orders.media.prepared import Prepared
from airflow_provider_vidu.orders.request import terms_of
from airflow_provider_vidu.stores.small_files import content_of

if TYPE_CHECKING:
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.stores.destination import Destination

MOST_NAMED: Final = 20
"""How many rows the log, and how many refusals the result, name."""


def dry_run(
    hook: ViduHook,
    context: Mapping[str, Any],
    rows: Sequence[Row],
    settings: Settings,
    batch: str,
    destination: Destination,
    log: Any,
) -> dict[str, Any]:
    """Check all rows as far as that is possible without sending anything; return what would be sent.

    :param hook: of the connection, which is looked up and not used.
    :param context: the task's context; the manifest of the task's last run names prices.
    :param batch: its name; its manifest shows which rows have a file already.
    :param destination: the folder of the files, which is only read.
    :param log: gets the first rows, and the sum.
    :raises ViduBatchFailedError: when so many rows would fail that the batch would.
    :return: plain JSON: how many rows would be submitted (by endpoint), how many have a file, which would fail and why
        (the first of them), and the known prices.
    """
    lines = lines_in(destination, manifest_name(batch))
    earlier = lines_in(destination, _manifest_of(earlier_result(context), destination))
    prices = _Prices(rows, [lines, earlier])
    catalogue = Catalogue.of(destination, hook.config, settings.artifact, log)
    report, seen = _Report(len(rows), log), set[str]()
    for row in rows:
        if lines.get(row.key, {}).get("status") == STORED:
            report.kept += 1
            continue
        try:
            url, digest = _checked(hook, row, settings)
        except ViduError as error:
            report.refused[row.key] = redacted(error.reason, 300)
            continue
        if settings.reuse == "identical" and (digest in seen or catalogue.find(digest) is not None):
            report.reused += 1
            continue
        seen.add(digest)
        report.add(row, url, prices.of(row))
    report.write()
    report.check(settings)
    return {"dry_run": True, "batch": batch, **report.to_json()}


@dataclass(slots=True)
class _Report:
    """What a batch would do.

    :param rows: how many rows it has.
    """

    rows: int
    log: Any
    kept: int = 0
    reused: int = 0
    cost: float = 0
    unpriced: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    endpoints: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """How many rows would be submitted."""
        return sum(self.endpoints.values())

    @property
    def priced(self) -> int:
        """How many of them have a known price."""
        return self.count - self.unpriced

    def add(self, row: Row, url: str, price: float | None) -> None:
        """Count a row that would be submitted, and log it if it is one of the first."""
        self.endpoints[url] += 1
        self.cost += price or 0
        self.unpriced += price is None
        if self.count <= MOST_NAMED:
            shown = " ".join(f"{name}={value!r}" for name, value in shown_of(row).items())
            self.log.info("Row %s: %s to %s%s", row.key, shown, url, "" if price is None else f", {price:g} credits")

    def write(self) -> None:
        """Log the sum, and the first rows that would fail."""
        self.log.info(
            "Dry run: nothing was submitted. %d of %d rows would be, %d have a file, %d would reuse one, %d would "
            "fail; the price is known of %d rows: %g credits.",
            *(self.count, self.rows, self.kept, self.reused, len(self.refused), self.priced, self.cost),
        )
        for key, reason in islice(self.refused.items(), MOST_NAMED):
            self.log.warning("Row %s would fail: %s", key, reason)

    def check(self, settings: Settings) -> None:
        """Refuse a batch in which too many rows would fail.

        :raises ViduBatchFailedError: naming the first of them.
        """
        least = plan.least_stored(settings.min_success, self.rows)
        if self.rows - len(self.refused) < least:
            key, reason = next(iter(self.refused.items()))
            raise ViduBatchFailedError(
                f"Dry run: {len(self.refused)} of {self.rows} rows would fail, and min_success needs {least} files. "
                f"The first is {key}: {reason}",
                conn_id=settings.vidu_conn_id,
            )

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "rows": self.rows,
            "submitted": self.count,
            "endpoints": dict(self.endpoints),
            "stored": self.kept,
            "reused": self.reused,
            "failed": len(self.refused),
            "errors": dict(islice(self.refused.items(), MOST_NAMED)),
            "credits": {"sum": whole(float(self.cost)), "rows": self.priced},
        }


def _checked(hook: ViduHook, row: Row, settings: Settings) -> tuple[str, str]:
    """Return where a row's create would go, and the digest of its request.

    :raises ViduError: when the row would fail before its create.
    """
    fields, endpoint = fields_of(row)
    with closing(Prepared(fields, settings.storage_conn_id)) as prepared:
        digest, sent = prepared.digest(endpoint, hook.config.dialect), prepared.resolve(Offline(hook))
    return path_of(hook.config.dialect, sent, endpoint, settings.artifact), digest


class _Prices:
    """What rows with the same model and parameters have cost.

    :param manifests: the lines of manifests, by the rows' keys; the first ones count more.
    """

    def __init__(self, rows: Sequence[Row], manifests: Sequence[Mapping[str, Line]]) -> None:
        self._by_terms: dict[str, float] = {}
        for lines in reversed(manifests):
            for row in rows:
                price = whole(mapping(lines.get(row.key)).get("credits"))
                if price is not None and row.problem is None:
                    self._by_terms[_terms(row)] = price

    def of(self, row: Row) -> float | None:
        """Return the price of a row, if it is known."""
        return self._by_terms.get(_terms(row))


def _terms(row: Row) -> str:
    return json.dumps([row.arguments.get("endpoint"), terms_of(row.arguments)], sort_keys=True, default=str)


def _manifest_of(earlier: Mapping[str, Any], destination: Destination) -> str | None:
    """Return the name of the manifest of an earlier run if it is in this destination."""
    folder = destination.file("x").uri.removesuffix("x")
    uri = earlier.get("manifest")
    if not isinstance(uri, str) or not uri.startswith(folder):
        return None
    name = uri.removeprefix(folder)
    return name if name and "/" not in name and "\\" not in name else None  # an XCom may name "../"


def lines_in(destination: Destination, name: str | None) -> dict[str, Line]:
    """Return the lines of a manifest by the rows' keys; none if there is no such file, or it cannot be read."""
    try:
        content = None if name is None else content_of(destination.file(name))
        found = lines_of(content or b"")
    except (ViduError, ValueError, RecursionError):
        return {}
    return {line["key"]: line for line in found if isinstance(line, dict) and isinstance(line.get("key"), str)}
