"""``ViduBatchOperator``: thousands of generations in one task, from rows to files and a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_vidu.batches.arguments import (
    DEFAULT_NAMING,
    OnFailure,
    Reuse,
    RowsFormat,
    WrittenRows,
    check_settings,
    checked_folder,
)
from airflow_provider_vidu.common.artifacts import Artifact
from airflow_provider_vidu.common.values import given
from airflow_provider_vidu.defaults import (
    DEFAULT_CONN_ID,
    OFF_PEAK_WAIT_SECONDS,
    WAIT_SECONDS,
    optional_seconds,
)
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.links import ViduBatchLink, is_task_instance, publish_batch
from airflow_provider_vidu.orders.arguments import NAMES, OnClear, required_arguments
from airflow_provider_vidu.orders.money.budget import ViduBudget
from airflow_provider_vidu.stores.paths import is_template, path_text
from airflow_provider_vidu.tasks.endings import without_known_causes
from airflow_provider_vidu.tasks.masking import SignedURLOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_vidu.batches.arguments import Settings
    from airflow_provider_vidu.batches.leg.run import BatchRun
    from airflow_provider_vidu.batches.rows import Row
    from airflow_provider_vidu.stores.destination import Destination


class ViduBatchOperator(SignedURLOperator):
    """Submits a generation per row, waits for all of them in one trigger, and stores the files beside a manifest.

    The return value is a summary: ``{"batch", "rows", "stored", "failed", "reused", "left", "credits", "bytes",
    "errors", "manifest", "destination"}``. The manifest is a file of JSON lines beside the files, one per row that has
    ended: ``key``, ``status`` (``stored`` or ``failed``), ``generation_id``, ``uri``, ``size``, ``sha256``,
    ``content_type``, ``duration``, ``fps``, ``width``, ``height``, ``credits``, ``seed``, times, and ``error``.

    *Paid once per row*: the intent is stored before each create and the id right after it, in ``.vidu/`` beneath the
    destination. A retry resumes the open generations and looks for a lost create. Clearing the task resumes, too: rows
    with a file are not ordered again.

    *A bad row fails alone*: a refused prompt or an unreadable file is a line of the manifest. What concerns the whole
    account (key, credits, ``max_credits``, the connection, the destination) stops further creates; the open generations
    are waited for and stored, then the task fails.

    ``outlets`` may hold assets and asset aliases: their events carry the summary as ``extra``, and an alias resolves to
    the manifest. Lineage leads from the file of the rows, if they come from one, to the manifest.

    *Never left running*: kill, mark-failed and the timeout cancel the open generations, as far as the service allows.

    :param rows: a list of rows, the output of a task, or the path of a file of rows in any storage (JSON lines, CSV,
        Parquet). A row is an object with ``prompt``, ``model``, ``images``, ``endpoint``, ``parameters`` or ``body`` as
        for :class:`ViduGenerateOperator`, a ``key`` of its own (if omitted, it is derived from the row's content) and
        the ``name`` of its file; each other field is a parameter (``duration``). A text alone is a prompt. Templated.
    :param destination: the folder of the files, for ``ObjectStoragePath``: ``s3://bucket/clips/``. Templated.
    :param batch: the name of the batch, and of its manifest. If omitted, each task instance has a batch of its own. A
        given name is one batch over all runs: rows with a file are not ordered again. Templated.
    :param max_in_flight: how many generations the batch has at the service at once, up to 1,000.
    :param max_credits: the most credits that the batch may spend, checked before each create. A generation whose price
        is not known yet counts as the most expensive one so far.
    :param budget: a :class:`ViduBudget`: the most that the DAG run, or the DAG per day, may spend. Each generation of
        the batch counts, and above the limit nothing more is ordered.
    :param dry_run: read and check all rows, log what would be submitted, with the prices that earlier runs have paid,
        and send nothing; ``[vidu] dry_run`` does so for all tasks.
    :param min_success: what the batch needs to succeed: a share of the rows (``0.9``; ``1.0`` needs all) or their
        number (``1`` needs one).
    :param on_failure: ``continue`` orders all rows, even if some fail; ``stop`` orders nothing more as soon as
        ``min_success`` cannot be reached.
    :param rows_format: ``jsonl``, ``csv`` or ``parquet``; if omitted, the extension of the file decides.
    :param naming: the names of the files, without extension: ``{key}``, ``{index}``, ``{generation_id}``, ``{model}``
        and ``{prompt}`` are replaced. A slash makes a folder.
    :param model: of rows that name none. Templated.
    :param images: of rows that have none. Templated.
    :param endpoint: of rows that name none. Templated.
    :param parameters: further fields of all requests; those of a row win. Templated.
    :param vidu_conn_id: the Airflow connection. Templated.
    :param storage_conn_id: the Airflow connection of the storage of rows, media and destination, unless a URL names
        one. Templated.
    :param timeout: seconds (or timedelta) that the whole batch may take. If omitted: 24 hours, or 50 hours with
        ``off_peak`` in ``parameters`` or in a row.
    :param poll_interval: seconds (or timedelta) between polls; if omitted or None, the adaptive schedule decides.
    :param deferrable: wait in the triggerer instead of a worker; ``[operators] default_deferrable`` if omitted.
    :param cancel_on_kill: cancel the open generations when the task is killed or times out.
    :param on_clear: ``resume``: a clear orders only rows without a file. ``new``: it orders everything again.
    :param artifact: which file of each generation to keep; the result, whatever its medium, if omitted.
    :param max_bytes: the largest accepted file, in bytes; ``[vidu] max_bytes`` (20 GiB) if omitted.
    :param reuse: ``identical`` stores no second file for a row whose request, service and artifact equal those of an
        earlier one in this destination: its line names that file, and ``reused_from``. Only tasks with ``identical``
        take part. ``never`` orders each row.
    :param max_failures: consecutive failed polls of a generation that are tolerated.
    :raises ViduBatchFailedError: when too few rows have a file and a retry cannot change that.
    :raises ViduBatchIncompleteError: when too few rows have a file and a retry may help.
    :raises ViduTimeoutError: after ``timeout`` seconds.
    """

    template_fields: Sequence[str] = (
        "rows", "batch", "model", "images", "endpoint", "parameters", "vidu_conn_id", "storage_conn_id", "destination"
    )  # fmt: skip
    template_fields_renderers: ClassVar[dict[str, str]] = {"rows": "json", "parameters": "json"}
    operator_extra_links = (ViduBatchLink(),)
    ui_color: str = "#c9e4f8"

    _run: BatchRun | None = None
    _killed = False
    _ended: tuple[dict[str, Any], str | None] | None = None

    def __init__(
        self,
        *,
        rows: Any,
        destination: str | ObjectStoragePath,
        batch: str | None = None,
        max_in_flight: int = 10,
        max_credits: float | None = None,
        budget: ViduBudget | None = None,
        dry_run: bool = False,
        min_success: float = 1.0,
        on_failure: OnFailure = "continue",
        rows_format: RowsFormat | None = None,
        naming: str = DEFAULT_NAMING,
        model: str | None = None,
        images: Sequence[Any] | str | None = None,
        endpoint: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        vidu_conn_id: str = DEFAULT_CONN_ID,
        storage_conn_id: str | None = None,
        timeout: timedelta | float | None = None,
        poll_interval: timedelta | float | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        cancel_on_kill: bool = True,
        on_clear: OnClear = "resume",
        artifact: Artifact | None = None,
        max_bytes: int | None = None,
        reuse: Reuse = "never",
        max_failures: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rows = rows
        self.destination = destination
        self.batch = batch
        self.max_in_flight = max_in_flight
        self.max_credits = max_credits
        self.budget = budget
        # Not dry_run, which is a method of Airflow's operators.
        self.is_dry_run = dry_run
        self.min_success = min_success
        self.on_failure = on_failure
        self.rows_format = rows_format
        self.naming = naming
        self.model = model
        self.images = images
        self.endpoint = endpoint
        self.parameters = parameters
        self.vidu_conn_id = vidu_conn_id
        self.storage_conn_id = storage_conn_id
        self.timeout = optional_seconds("timeout", timeout)
        self.poll_interval = optional_seconds("poll_interval", poll_interval)
        self.deferrable = deferrable
        self.cancel_on_kill = cancel_on_kill
        self.on_clear = on_clear
        self.artifact = artifact
        self.max_bytes = max_bytes
        self.reuse = reuse
        self.max_failures = max_failures
        self._check_arguments()

    def execute(self, context: Context) -> dict[str, Any]:
        """Begin the batch, or resume what an earlier try or run has left."""
        return self._leg({} if context is None else context, None, was_resumed=False)

    def execute_resumed(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resume after the trigger's event, which only says what to poll first."""
        return self._leg({} if context is None else context, event, was_resumed=True)

    def execute_awaited(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Begin after a wait for another task that was in the middle of the batch."""
        return self._leg({} if context is None else context, event, was_resumed=False)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; also if Airflow gave up the wait because no triggerer ran it in time."""
        from airflow_provider_vidu.tasks.deferral import was_given_up

        if was_given_up(next_method, next_kwargs):
            return self.execute_resumed(context, None)
        return super().resume_execution(next_method, next_kwargs, context)

    def post_execute(self, context: Any, result: Any = None) -> None:
        """Record that the result was returned: if the task runs again after its success, it was cleared."""
        super().post_execute(context, result)
        from airflow_provider_vidu.operators.batch_waits import note_returned

        note_returned(context, self.log)

    def on_kill(self) -> None:
        """Stop, and cancel the open generations; Airflow calls this in the worker, from a signal handler."""
        self._killed = True
        if self._run is not None:
            self._run.kill()

    @without_known_causes
    def _leg(self, context: Any, event: Any, *, was_resumed: bool) -> dict[str, Any]:
        from airflow_provider_vidu.batches.journal import Journal
        from airflow_provider_vidu.batches.leg.run import BatchRun
        from airflow_provider_vidu.batches.leg.spending import BatchSpending
        from airflow_provider_vidu.batches.plan import TOKEN_KEY, Pending, ended_in
        from airflow_provider_vidu.operators import batch_waits as waits
        from airflow_provider_vidu.operators.mapping.instances import check_mapped
        from airflow_provider_vidu.operators.mapping.shared_names import batch_name, warn_of_shared_files
        from airflow_provider_vidu.operators.task_request import queries_of
        from airflow_provider_vidu.orders.money.spending import Spending
        from airflow_provider_vidu.orders.order import Order
        from airflow_provider_vidu.orders.records import order_of, owner_of
        from airflow_provider_vidu.tasks.deferral import is_resumable, retryable_after_wait

        # A retry also goes on with what is paid for.
        with retryable_after_wait(was_resumed=was_resumed or waits.was_begun(context)):
            check_settings(self)
            self.deferrable = self.deferrable and is_resumable(context, "execute_resumed")
            check_mapped(self, context, (*self._defaults(), "batch", "max_credits", "budget"))
            destination, name, rows = self._folder(), batch_name(self, context), self._rows()
            settings = self._settings(rows, context)
        if not was_resumed and settings.is_dry:  # what an earlier leg has paid for is waited for
            return self._dry_run(context, rows, settings, name, destination)
        if not was_resumed:
            warn_of_shared_files(self, context)
        journal = Journal(destination, name, log=self.log, owner=owner_of(context))
        with retryable_after_wait(was_resumed=was_resumed):  # the connection of the store may have been deleted
            waits.open_journal(self, journal, name, event, settings.timeout, was_resumed=was_resumed)
        if not journal.state.may_know(journal.owner) and (was_resumed or waits.was_begun(context)):
            raise waits.vanished(journal, name, destination, event)
        waits.check_journal(journal, name, destination)
        queries = queries_of(self.vidu_conn_id)
        spending = BatchSpending(Spending(context, self, self.budget, None, self.log, queries))
        with waits.paused_without_connection(self, journal, name, was_resumed=was_resumed):
            run = self._run = BatchRun(settings, rows, name, destination, journal, self.log, spending)
        if not was_resumed or journal.state.order_of(journal.owner) is None:
            ti = context.get("ti")
            run.begin(*((order_of(context), ti.dag_id) if is_task_instance(ti) else (Order(0), None)))
            waits.note_begun(context, self.log)
        publish_batch(context, run.note, announce=not was_resumed)
        if (ti := context.get("ti")) is not None:
            ti.xcom_push(key=TOKEN_KEY, value=run.token)
        if self._killed:
            run.kill()
        try:
            result = run.run(ended_in(event, run.token) if was_resumed else None, was_resumed=was_resumed)
        except Exception:  # raised again; a kill, perhaps within a create, keeps the note
            waits.forget_unless_paid(context, journal, self.log)
            raise
        finally:  # what it has spent counts, however the leg ends
            with suppress(Exception):
                publish_batch(context, run.note, announce=False)
        if isinstance(result, Pending):
            waits.wait(self, result)
        self._ended = (result, run.manifest_digest)
        self._report(context, result)
        return result

    def _report(self, context: Any, summary: dict[str, Any]) -> None:
        """Fill the events of the task's outlets: an alias resolves to the manifest, which names every file."""
        if not self.outlets:
            return
        from airflow_provider_vidu.tasks.outlets import fill_outlet_events

        fill_outlet_events(self.outlets, context, summary["manifest"], lambda: dict(summary), self.log)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the file of the rows and the manifest; only the OpenLineage provider calls this."""
        from airflow_provider_vidu.batches.reading.files import uri_of
        from airflow_provider_vidu.tasks.outlets import batch_facets

        summary, digest = self._ended or (None, None)
        return batch_facets(summary, uri_of(self.rows), digest)

    def _dry_run(
        self, context: Any, rows: list[Row], settings: Settings, name: str, destination: Destination
    ) -> dict[str, Any]:
        from airflow_provider_vidu.batches.dry_run import dry_run
        from airflow_provider_vidu.hooks import ViduHook

        return dry_run(ViduHook(self.vidu_conn_id), context, rows, settings, name, destination, self.log)

    def _rows(self) -> list[Row]:
        """Return the checked rows.

        :raises ViduConfigError: when they cannot be read, or cannot be distinguished.
        """
        from airflow_provider_vidu.batches.reading.files import rows_in
        from airflow_provider_vidu.batches.rows import check_names, rows_of
        from airflow_provider_vidu.orders.request import request_of

        defaults = self._defaults()
        request_of({**dict.fromkeys(NAMES), **defaults}, self._required)  # refuses what was rendered to nothing
        listed = rows_in(self.rows, self.rows_format, self._storage())
        rows = check_names(self._written_rows.checked(rows_of(listed, defaults), self.rows), self.naming)
        if not rows:
            self.log.warning("There are no rows: nothing is ordered.")
        return rows

    def _defaults(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("model", "images", "endpoint", "parameters")}

    def _folder(self) -> Destination:
        from airflow_provider_vidu.stores.destination import Destination, options_of
        from airflow_provider_vidu.stores.roots import check_destination

        checked = checked_folder(self.destination)
        check_destination(checked)
        return Destination(checked, self._storage(), options_of(self.destination))

    def _storage(self) -> str | None:
        from airflow_provider_vidu.orders.request import text_argument

        return given(text_argument("storage_conn_id", self.storage_conn_id))

    def _settings(self, rows: Sequence[Row], context: Any) -> Settings:
        from airflow_provider_vidu.api.dry_run import is_dry
        from airflow_provider_vidu.api.endpoints import is_off_peak
        from airflow_provider_vidu.batches.arguments import Settings
        from airflow_provider_vidu.network.download_url import deployment_hosts, most_bytes
        from airflow_provider_vidu.orders.records import iteration_of
        from airflow_provider_vidu.orders.request import further_fields

        # Also those that were rendered to JSON text. Each row holds the batch's own parameters.
        is_late = self.timeout is None and any(
            is_off_peak(further_fields({**dict.fromkeys(NAMES), **row.arguments})) for row in rows
        )
        deployment_hosts()  # a setting that no download can use: all rows would be paid for
        longest = OFF_PEAK_WAIT_SECONDS if is_late else WAIT_SECONDS
        return Settings(
            vidu_conn_id=self.vidu_conn_id,
            storage_conn_id=self._storage(),
            max_in_flight=self.max_in_flight,
            max_credits=self.max_credits,
            min_success=self.min_success,
            on_failure=self.on_failure,
            on_clear=self.on_clear,
            naming=self.naming,
            timeout=longest if self.timeout is None else self.timeout,
            poll_interval=self.poll_interval,
            max_failures=self.max_failures,
            is_dry=is_dry(self.is_dry_run),
            artifact=self.artifact,
            most=most_bytes(self.max_bytes),
            deferrable=self.deferrable,
            cancel_on_kill=self.cancel_on_kill,
            # Each iteration of a loop asks for other generations of the same requests.
            reuse=self.reuse if iteration_of(context) is None else "never",
        )

    def _check_arguments(self) -> None:
        """Refuse at parse time what is wrong in every run, and note what holds a value before it is rendered."""
        self._required = required_arguments({**dict.fromkeys(NAMES), **self._defaults()})
        self._written_rows = WrittenRows(self.rows)
        self.written: Mapping[str, Any] = {"batch": self.batch, "destination": self.destination}
        """Arguments before their templates are rendered."""
        check_settings(self)
        if self.rows is None:
            raise ViduConfigError("rows is None: give a list of rows, the output of a task, or the path of a file.")
        path = path_text(self.destination)
        if path is not None and not is_template(path):
            checked_folder(self.destination)
