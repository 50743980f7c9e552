"""``ViduGenerateOperator``: submits a generation once and waits for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_vidu.common.artifacts import ARTIFACTS, Artifact
from airflow_provider_vidu.common.values import mapping
from airflow_provider_vidu.defaults import (
    DEFAULT_CONN_ID,
    check_on_clear,
    check_size,
    check_word,
    checked_count,
    checked_flag,
    optional_seconds,
)
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.links import ViduWatchLink, is_task_instance
from airflow_provider_vidu.operators.storing import check_storing
from airflow_provider_vidu.orders.arguments import OnClear, arguments_of, check_arguments, required_arguments
from airflow_provider_vidu.orders.money.budget import ViduBudget, checked_budget
from airflow_provider_vidu.tasks.endings import without_known_causes
from airflow_provider_vidu.tasks.masking import SignedURLOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_vidu.batches.arguments import Reuse
    from airflow_provider_vidu.operators.generate_leg import GenerateLeg


class ViduGenerateOperator(SignedURLOperator):
    """Submits a generation once, waits until it has succeeded and returns it as JSON (see ``models.Generation``).

    Fields that the service does not repeat (``model``, ``prompt``, ``created_at``) are filled in from the order;
    ``parameters`` holds the other plain fields of the request, and the seed that the service chose.

    *Paid once*: the order is recorded before the request is sent, and the id right after it. A retry picks up the job
    that an earlier attempt submitted; it submits again only after a transient failure. A clear submits a new one.

    *One odd answer ends no wait*: refused polls count as failed polls, a refused key or a missing connection pauses the
    wait until ``timeout``, and the error that ends it may be retried, unless the generation itself has failed.

    *Never left running*: kill, clear, mark-failed and the timeout cancel the job at the service, if it allows that
    (``ent-v2`` before the job runs). A restart of the triggerer never cancels it.

    *The fields decide the endpoint* (``ent-v2``; see the page "Endpoints"). Fields that match several are refused
    before anything is sent; parsing, which does no I/O, refuses only what is ambiguous in the official API
    (``subjects`` beside ``images``, ``image_settings`` without ``start_image``, a bare ``video_url``).

    :param prompt: the text. Templated.
    :param model: the model's name at the service. Templated.
    :param images: web addresses, data URIs, ``ssupload:`` addresses, or local or object-storage paths. A file is sent
        inline, or by the service's upload if it is too large for that (``ent-v2``). The same applies to all other media
        fields, in ``parameters`` and ``body`` (see the page *Inputs*). Templated.
    :param endpoint: ``ent-v2``: ``text2video``, ``img2video``, ``start-end2video``, ``reference2video``, …; if omitted,
        the fields decide. In both dialects a path that starts with a slash. Templated.
    :param parameters: further fields of the request, such as ``{"duration": 4}``. Templated.
    :param body: the whole request, instead of prompt, model, images and parameters. Templated.
    :param vidu_conn_id: the Airflow connection. Templated.
    :param storage_conn_id: the Airflow connection of the object storage in media fields, unless the URL itself names
        one (``s3://my_aws@bucket/key``). Templated.
    :param wait_for_completion: False returns the accepted generation right after the submit.
    :param deferrable: wait in the triggerer instead of a worker; ``[operators] default_deferrable`` if omitted.
    :param poll_interval: seconds (or timedelta) between polls. If omitted or None, the adaptive schedule decides: less
        often in a queue, more often near the end (see ``schedule``).
    :param timeout: seconds (or timedelta) to wait. If omitted: 24 hours, or 50 hours with ``off_peak`` in the request,
        because an off-peak generation may take 48 hours.
    :param cancel_on_kill: cancel the job at the service when the task is killed or times out.
    :param durable: remember the order between tries. False submits, and pays, at every try.
    :param on_clear: ``new``: clearing the task submits a new generation. ``resume``: it picks up the earlier one if
        it was submitted with the same request and has not failed. ``resume`` keeps one Variable per task instance.
    :param max_failures: consecutive failed polls that are tolerated.
    :param destination: store the file in this task: a path or URL for ``ObjectStoragePath``, as for
        :class:`ViduDownloadOperator`. The returned generation then has the file's record as ``file``. A retry after a
        failed download continues with the generation that is paid for. Right before the order an upload to the store is
        begun and given up, so that a missing bucket or permission costs nothing. Templated.
    :param artifact: with ``destination``: which file to store; the result, whatever its medium, if omitted.
    :param max_bytes: with ``destination``: the largest accepted file, in bytes; ``[vidu] max_bytes`` if omitted.
    :param reuse: ``identical``, with a ``destination`` that is a folder: an order whose request, service and artifact
        equal those of an earlier one in this folder is not paid for again; the result names its file and
        ``reused_from``. Of equal orders at the same time one is submitted. A clear, unless ``on_clear`` is ``resume``,
        and an iteration of a loop submit a new generation.
    :param max_credits: the most that the generation may cost. If the answer to the create names a higher price, the
        generation is cancelled at once (``ent-v2`` returns the credits of a job that has not started), and the task
        fails for good. Templated.
    :param budget: a :class:`ViduBudget`: the most that the DAG run, or the DAG per day, may spend.
    :param dry_run: render, read and check everything, log the request, and send nothing; downloads and sensors
        downstream are skipped. A retry keeps what its task has paid for. ``[vidu] dry_run`` does so for all tasks.
    :raises ViduBudgetError: when ``max_credits`` or ``budget`` is exceeded.
    :raises ViduGenerationFailedError: when the generation failed permanently.
    :raises ViduGenerationInterruptedError: when its failure is transient.
    :raises ViduSubmitUnknownError: when it is unknown whether a create was carried out.
    :raises ViduTimeoutError: after ``timeout`` seconds.
    """

    template_fields: Sequence[str] = (
        "prompt", "model", "images", "endpoint", "parameters", "body", "vidu_conn_id", "storage_conn_id", "max_credits",
        "destination",
    )  # fmt: skip
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json", "body": "json"}
    operator_extra_links = (ViduWatchLink(),)
    ui_color = "#d6c9f8"

    _leg: GenerateLeg | None = None
    _killed = False

    def __init__(
        self,
        *,
        prompt: str | None = None,
        model: str | None = None,
        images: Sequence[Any] | str | None = None,
        endpoint: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        vidu_conn_id: str = DEFAULT_CONN_ID,
        storage_conn_id: str | None = None,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: timedelta | float | None = None,
        timeout: timedelta | float | None = None,
        cancel_on_kill: bool = True,
        durable: bool = True,
        on_clear: OnClear = "new",
        max_failures: int = 10,
        max_credits: float | str | None = None,
        budget: ViduBudget | None = None,
        dry_run: bool = False,
        destination: str | ObjectStoragePath | None = None,
        artifact: Artifact | None = None,
        max_bytes: int | None = None,
        reuse: Reuse = "never",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt
        self.model = model
        self.images = images
        self.endpoint = endpoint
        self.parameters = parameters
        self.body = body
        self.vidu_conn_id = vidu_conn_id
        self.storage_conn_id = storage_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = optional_seconds("poll_interval", poll_interval)
        self.timeout = optional_seconds("timeout", timeout)
        self.cancel_on_kill = cancel_on_kill
        self.durable = durable
        self.on_clear = on_clear
        self.max_failures = max_failures
        self.max_credits = max_credits
        self._has_cap = max_credits is not None
        self.budget = budget
        # Not dry_run, which is a method of Airflow's operators.
        self.is_dry_run = dry_run
        self.destination = destination
        self.artifact = artifact
        self.max_bytes = max_bytes
        self._written_destination: Any = destination  # before templates are rendered
        self.reuse = reuse
        self._check_settings()
        check_arguments(arguments_of(self))
        check_storing(destination, artifact, max_bytes, reuse, waits=self.wait_for_completion)
        self._required = required_arguments(arguments_of(self))
        self._forget_order_after_success()

    def _check_settings(self) -> None:
        """Read the arguments that are not rendered, also those that a cluster policy or a subclass has set since.

        :raises ViduConfigError: naming the argument.
        """
        for name in ("wait_for_completion", "deferrable", "cancel_on_kill", "durable"):
            setattr(self, name, checked_flag(name, getattr(self, name)))
        self.is_dry_run = checked_flag("dry_run", self.is_dry_run)
        for name in ("poll_interval", "timeout"):
            setattr(self, name, optional_seconds(name, getattr(self, name)))
        check_on_clear(self.on_clear, is_durable=self.durable)
        checked_count("max_failures", self.max_failures)
        checked_budget(self.budget)
        check_word("artifact", self.artifact, (None, *ARTIFACTS))
        check_word("reuse", self.reuse, ("never", "identical"))
        check_size("max_bytes", self.max_bytes)
        if self.destination is not None and not self.wait_for_completion:
            raise ViduConfigError("destination needs wait_for_completion: there is no file before the end.")

    def _forget_order_after_success(self) -> None:
        from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

        if self.durable and self.on_clear == "new" and not AIRFLOW_V_3_3_PLUS:  # later, the state store keeps the order
            from airflow_provider_vidu.orders.tries import forget_order

            # Set here, not as an argument, which would replace a callback from default_args.
            given: Any = self.on_success_callback or []
            self.on_success_callback = [*(given if isinstance(given, list | tuple) else [given]), forget_order]

    @without_known_causes
    def execute(self, context: Context) -> dict[str, Any]:
        """Submit, or pick up what an earlier try submitted; publish the id; wait."""
        return self._begin(context).submitted(None)

    @without_known_causes
    def execute_admitted(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resume after the wait for a free slot: submit."""
        from airflow_provider_vidu.events import read_slot_event

        return self._begin(context).submitted(read_slot_event(event))

    @without_known_causes
    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resume after the trigger's event; re-fetch the generation, so that its URLs are fresh."""
        return self._begin(context).resumed(event)

    @without_known_causes
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; if Airflow gave up the wait because no triggerer ran it in time, end it as a timeout."""
        from airflow_provider_vidu.tasks.deferral import was_given_up

        if not was_given_up(next_method, next_kwargs):
            return super().resume_execution(next_method, next_kwargs, context)
        return self._begin(context).given_up(next_kwargs)

    def post_execute(self, context: Any, result: Any = None) -> None:
        """Record that the result was returned: if the task runs again after its success, it was cleared."""
        super().post_execute(context, result)
        # Not [vidu] dry_run, which may have changed since: the result itself shows what it is of.
        is_paid = mapping(result).get("dry_run") is not True
        if self.durable and is_paid and context is not None and is_task_instance(context.get("ti")):
            from airflow_provider_vidu.orders.tries import record_returned

            record_returned(context, self.log, keeps=self.on_clear == "resume")

    def on_kill(self) -> None:
        """Cancel the job at the service; Airflow calls this in the worker, from a signal handler."""
        self._killed = True
        if self._leg is not None:
            self._leg.kill()

    def _begin(self, context: Context | None) -> GenerateLeg:
        from airflow_provider_vidu.operators.generate_leg import GenerateLeg
        from airflow_provider_vidu.orders.tries import resumes_order
        from airflow_provider_vidu.tasks.deferral import is_resumable

        context = {} if context is None else context  # in a user's unit test
        with resumes_order(context, self.log, is_durable=self.durable):
            self._check_settings()
        self.deferrable = self.deferrable and is_resumable(context, "execute_complete")
        leg = self._leg = GenerateLeg(
            self,
            context,
            required=self._required,
            written_destination=self._written_destination,
            has_cap=self._has_cap,
        )
        if self._killed:
            leg.kill()
        return leg
