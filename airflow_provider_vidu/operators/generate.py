"""``ViduGenerateOperator``: submits a generation once and waits for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import conf

from airflow_provider_vidu.common.values import mapping
from airflow_provider_vidu.defaults import (
    DEFAULT_CONN_ID,
    ID_KEY,
    OFF_PEAK_WAIT_SECONDS,
    WAIT_SECONDS,
    checked_count,
    checked_flag,
    checked_seconds,
)
from airflow_provider_vidu.events import Turn, callback_in, id_in, read_slot_event
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduTimeoutError
from airflow_provider_vidu.links import WATCH_KEY, Role, ViduWatchLink, is_task_instance, publish, publish_wait
from airflow_provider_vidu.operators.reuse import (
    REQUEST_NOTE,
    SHARED_NOTE,
    Reuse,
    ReusedOrderError,
    SharedResults,
    another_may_follow,
    claim_lost,
    reused_result,
)
from airflow_provider_vidu.operators.storing import ResultStore, check_storing, report_stored
from airflow_provider_vidu.orders.claims import ClaimLostError, SharedOrderError
from airflow_provider_vidu.orders.dry_run import dry_run, is_dry
from airflow_provider_vidu.orders.explained import explained_failure, explained_not_found
from airflow_provider_vidu.orders.money.budget import ViduBudget, checked_budget, checked_cap
from airflow_provider_vidu.orders.request import (
    NAMES,
    check_arguments,
    completed,
    facts_of_create,
    further_fields,
    request_of,
    required_arguments,
    terms_of,
    text,
)
from airflow_provider_vidu.orders.tries import checked_config, forget_order, record_returned
from airflow_provider_vidu.stores.artifacts import Artifact
from airflow_provider_vidu.tasks.callbacks.arrivals import address_for
from airflow_provider_vidu.tasks.deferral import DeferredWait, check_execution_timeout, was_given_up
from airflow_provider_vidu.tasks.endings import Observed, log_end, without_known_causes
from airflow_provider_vidu.tasks.masking import SignedURLOperator, as_result
from airflow_provider_vidu.tasks.slots.queue import no_triggerer

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_vidu.api.settings.config import ViduConfig
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation
    from airflow_provider_vidu.orders.money.spending import Spending
    from airflow_provider_vidu.orders.submission import Submission
    from airflow_provider_vidu.tasks.slots.waiting import SlotWait


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
        it was submitted with the same request and has not failed. On Airflow before 3.3 and from 3.4 on, ``resume``
        keeps one Variable per task instance.
    :param max_failures: consecutive failed polls that are tolerated.
    :param destination: store the file in this task: a path or URL for ``ObjectStoragePath``, as for
        :class:`ViduDownloadOperator`. The returned generation then has the file's record as ``file``. A retry after a
        failed download continues with the generation that is paid for. Templated.
    :param artifact: with ``destination``: which file to store; the result, whatever its medium, if omitted.
    :param max_bytes: with ``destination``: the largest accepted file, in bytes; ``[vidu] max_bytes`` if omitted.
    :param reuse: ``identical``, with a ``destination`` that is a folder: an order whose request, service and artifact
        equal those of an earlier one in this folder is not paid for again; the result names its file and
        ``reused_from``. Of equal orders at the same time one is submitted. A clear, and an iteration of a loop, submit
        a new generation.
    :param max_credits: the most that the generation may cost. If the answer to the create names a higher price, the
        generation is cancelled at once (``ent-v2`` returns the credits of a job that has not started), and the task
        fails for good. Templated.
    :param budget: a :class:`ViduBudget`: the most that the DAG run, or the DAG per day, may spend.
    :param dry_run: render, read and check everything, log the request, and send nothing; downloads and sensors
        downstream are skipped. ``[vidu] dry_run`` does so for all tasks.
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
        on_clear: Literal["new", "resume"] = "new",
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
        if on_clear not in ("new", "resume"):
            raise ViduConfigError(f"on_clear must be 'new' or 'resume', not {on_clear!r}.")
        self.prompt = prompt
        self.model = model
        self.images = images
        self.endpoint = endpoint
        self.parameters = parameters
        self.body = body
        self.vidu_conn_id = vidu_conn_id
        self.storage_conn_id = storage_conn_id
        self.wait_for_completion = checked_flag("wait_for_completion", wait_for_completion)
        self.deferrable = checked_flag("deferrable", deferrable)
        self.poll_interval = None if poll_interval is None else checked_seconds("poll_interval", poll_interval)
        self.timeout = None if timeout is None else checked_seconds("timeout", timeout)
        self.cancel_on_kill = checked_flag("cancel_on_kill", cancel_on_kill)
        self.durable = checked_flag("durable", durable)
        self.on_clear = on_clear
        self.max_failures = checked_count("max_failures", max_failures)
        self.max_credits = max_credits
        self._has_cap = max_credits is not None
        self.budget = checked_budget(budget)
        # Not dry_run, which is a method of Airflow's operators.
        self.is_dry_run = checked_flag("dry_run", dry_run)
        check_arguments(self._arguments())
        self.destination = destination
        self.artifact = artifact
        self.max_bytes = max_bytes
        self._written_destination: Any = destination  # before templates are rendered
        self._has_destination = destination is not None
        self._store: ResultStore | None = None
        self.reuse = reuse
        check_storing(destination, artifact, max_bytes, reuse, waits=self.wait_for_completion)
        self._required = required_arguments(self._arguments())
        self._generation_id: str | None = None
        self._config: ViduConfig | None = None
        self._facts: Mapping[str, Any] | None = None
        self._times: Mapping[str, Any] | None = None
        self._killed = False
        self._forget_order_after_success()

    def _forget_order_after_success(self) -> None:
        from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

        if self.durable and self.on_clear == "new" and not AIRFLOW_V_3_3_PLUS:  # later, the state store keeps the order
            # Set here, not as an argument, which would replace a callback from default_args.
            given: Any = self.on_success_callback or []
            self.on_success_callback = [*(given if isinstance(given, list | tuple) else [given]), forget_order]

    @without_known_causes
    def execute(self, context: Context) -> dict[str, Any]:
        """Submit, or pick up what an earlier try submitted; publish the id; wait."""
        return self._submitted(context, None)

    @without_known_causes
    def execute_admitted(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resume after the wait for a free slot: submit."""
        return self._submitted(context, read_slot_event(event))

    def _submitted(self, context: Context, turn: Turn | None) -> dict[str, Any]:
        from airflow_provider_vidu.operators.preflight import check_downstream
        from airflow_provider_vidu.orders.media.request import Prepared
        from airflow_provider_vidu.orders.submission import digest_of

        context = {} if context is None else context  # in a user's unit test
        hook = self._hook()
        self._config = checked_config(hook, context, self.log, is_durable=self.durable)
        fields, endpoint = request_of(self._arguments(), self._required), self._endpoint()
        # Before anything is recorded or sent: it also refuses a request that fits several endpoints.
        is_synchronous = hook.config.dialect.is_synchronous(fields, endpoint)
        prepared = Prepared(fields, text("storage_conn_id", self.storage_conn_id))
        spending = self._spending(context)
        if self._has_destination and self.destination is None:  # the file would be lost, and the task succeed
            raise ViduConfigError(
                "destination is empty: check the XCom or the param that it is templated from. Nothing was submitted."
            )
        if is_dry(self.is_dry_run):
            check_downstream(self, self.log)
            return dry_run(hook, context, prepared, endpoint, terms_of(self._arguments()), self.log)
        slot = self._slot_wait(hook, context, turn, is_watched=self.wait_for_completion and not is_synchronous)
        hook._retry_until(slot.deadline)
        if self.destination is not None:
            self._result_store().check_mapping(self, context, self._written_destination)
        request = None if self.reuse == "never" else digest_of(prepared.identity(), endpoint)
        submission = self._submission(context, hook, slot, spending, endpoint, request)
        try:
            with explained_not_found(is_synchronous):
                generation = slot.submitted(lambda: submission.generation(prepared, endpoint))
        except ClaimLostError:
            raise claim_lost(self.vidu_conn_id) from None
        except ReusedOrderError as reused:
            return self._reused(context, reused.line)
        except SharedOrderError as order_of_another:
            noted = {SHARED_NOTE: True, REQUEST_NOTE: request, **self._wait_facts(slot.deadline)}
            return self._wait_for_another(context, hook, order_of_another.generation_id, slot, noted)
        self._generation_id = generation.id
        self._publish_created(context, generation, submission, endpoint, slot.deadline, request)
        submission.check_price()
        if self._killed:  # during the create: only now is there an id to cancel
            self._cancel("the task was killed")
        return self._created(context, generation, submission, slot, turn, is_synchronous=is_synchronous)

    def _submission(
        self,
        context: Context,
        hook: ViduHook,
        slot: SlotWait,
        spending: Spending,
        endpoint: str | None,
        request: str | None,
    ) -> Submission:
        from airflow_provider_vidu.operators.preflight import check_downstream
        from airflow_provider_vidu.orders.order import Order
        from airflow_provider_vidu.orders.records import NullStore, order_of, store_for
        from airflow_provider_vidu.orders.submission import Submission

        def before_order() -> None:
            check_downstream(self, self.log)
            slot.before_create()

        is_recorded = is_task_instance(context.get("ti"))
        order = order_of(context) if is_recorded else Order(0)
        shared = None if request is None else self._shared_results(hook, request)
        return Submission(
            hook,
            store_for(context, keeps=self.on_clear == "resume") if is_recorded and self.durable else NullStore(),
            order,
            self.log,
            cancel_abandoned=self.cancel_on_kill,
            on_clear=self.on_clear,
            before_order=before_order,
            before_send=self._check_wanted,
            spending=spending,
            # Only a task in the triggerer can be resumed; elsewhere nothing would wait for the callback.
            callback=address_for(context) if self.deferrable and self.wait_for_completion else None,
            claim=None if shared is None else shared.claim(context, order, endpoint),
        )

    def _created(
        self,
        context: Context,
        generation: Generation,
        submission: Submission,
        slot: SlotWait,
        turn: Turn | None,
        *,
        is_synchronous: bool,
    ) -> dict[str, Any]:
        """Return the result of a generation that was submitted, or leave the worker until it has one."""
        from airflow_provider_vidu.orders.submission import failed

        hook = slot.hook
        if generation.failed:  # some creates are answered with the failure at once
            raise failed(hook, generation)
        if not self.wait_for_completion:
            submission.handed_over()
            return self._finished(context, generation)
        if generation.succeeded and (is_synchronous or generation.video_url):
            # The result of a synchronous product is only in this answer: there may be no query for it.
            return self._finished(context, generation)
        if self.deferrable and not generation.is_done:
            wait = self._deferred_wait(hook, generation.id, submission.callback)
            wait.defer(deadline=None if turn is None else turn.deadline)
        return self._finished(context, self._wait(hook, generation.id, slot.left))

    def _publish_created(
        self,
        context: Context,
        generation: Generation,
        submission: Submission,
        endpoint: str | None,
        deadline: float,
        request: str | None,
    ) -> None:
        arguments = None if submission.is_of_another_request else self._arguments()
        self._facts = {**facts_of_create(generation, submission.ordered_at, arguments), REQUEST_NOTE: request}
        role: Role = "generate" if self.wait_for_completion else "submit"
        noted = {**self._facts, "model": generation.model or terms_of(self._arguments())["model"]}
        noted |= self._wait_facts(deadline) if self.wait_for_completion else {}
        noted |= {**self._kept_facts(), "callback": submission.callback is not None}
        publish(context, generation.id, conn_id=self.vidu_conn_id, role=role, endpoint=endpoint, **noted)

    def _kept_facts(self) -> dict[str, Any]:
        """Return what the clip pages need to know of the file that this task stores itself."""
        return {} if self.destination is None else {"stores": "file", "artifact": self.artifact}

    def _slot_wait(self, hook: ViduHook, context: Context, turn: Turn | None, *, is_watched: bool) -> SlotWait:
        from airflow_provider_vidu.tasks.slots.waiting import SlotWait
        from airflow_provider_vidu.triggers import ViduSlotTrigger

        return SlotWait(
            operator=self,
            hook=hook,
            turn=turn,
            timeout=self._seconds(),
            trigger=partial(ViduSlotTrigger, is_watched=is_watched) if self.deferrable else None,
            on_wait=lambda since: publish_wait(context, conn_id=self.vidu_conn_id, since=since),
            check=self._check_wanted,
        )

    @without_known_causes
    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resume after the trigger's event; re-fetch the generation, so that its URLs are fresh."""
        context = {} if context is None else context
        wait = self._resumed_wait(context, self._published_id(context) or id_in(event) or "", callback_in(event))
        with self._explained(wait):
            return self._finished(context, wait.resume(event), event)

    def post_execute(self, context: Any, result: Any = None) -> None:
        """Record that the result was returned: if the task runs again after its success, it was cleared."""
        super().post_execute(context, result)
        # Not [vidu] dry_run, which may have changed since: the result itself shows what it is of.
        is_paid = mapping(result).get("dry_run") is not True
        if self.durable and is_paid and context is not None and is_task_instance(context.get("ti")):
            record_returned(context, self.log, keeps=self.on_clear == "resume")

    @without_known_causes
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; if Airflow gave up the wait because no triggerer ran it in time, end it as a timeout."""
        if not was_given_up(next_method, next_kwargs):
            return super().resume_execution(next_method, next_kwargs, context)
        if (generation_id := self._published_id(context)) is None:
            nothing = "The task was waiting for a free slot, and nothing was submitted."
            check_execution_timeout(next_kwargs, self.execution_timeout, self._seconds(), nothing)
            raise no_triggerer(self.vidu_conn_id)
        wait = self._resumed_wait(context, generation_id)
        with self._explained(wait):
            return self._finished(context, wait.give_up(next_kwargs, self.execution_timeout))

    def _check_wanted(self) -> None:
        """Refuse to submit for a task that was killed while it waited to send."""
        if self._killed:
            raise ViduError("The task was killed before its create was sent: nothing was submitted.")

    def on_kill(self) -> None:
        """Cancel the job at the service; Airflow calls this in the worker, from a signal handler."""
        self._killed = True
        if self._store is not None:
            self._store.cancel()
        if self._generation_id is not None:
            self._cancel("the task was killed")

    def _result_store(self) -> ResultStore:
        if self._store is None:
            named = (text("storage_conn_id", self.storage_conn_id) or "").strip()
            storage = None if named in ("", "None") else named
            self._store = ResultStore(self.destination, storage, self.artifact, self.max_bytes, self.log)
        return self._store

    def _arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in NAMES}

    def _endpoint(self) -> str | None:
        endpoint = text("endpoint", self.endpoint)
        return endpoint and endpoint.strip()

    def _seconds(self) -> float:
        """Return how long to wait: as set, or as the rendered request needs."""
        from airflow_provider_vidu.api.dialects.endpoints import is_off_peak

        if self.timeout is not None:
            return self.timeout
        return OFF_PEAK_WAIT_SECONDS if is_off_peak(further_fields(self._arguments())) else WAIT_SECONDS

    def _wait_facts(self, deadline: float) -> dict[str, Any]:
        """Return what the clip's page shows of the wait."""
        polls = {"adaptive": True} if self.poll_interval is None else {"poll_interval": self.poll_interval}
        return {"deadline": round(deadline), **polls}

    def _wait(self, hook: ViduHook, generation_id: str, seconds: float) -> Generation:
        observed = Observed()
        try:
            with explained_failure(hook, generation_id, self._endpoint(), self.log):
                generation = hook.wait(
                    generation_id,
                    timeout=seconds,
                    poll_interval=self.poll_interval,
                    max_failures=self.max_failures,
                    on_change=observed,
                    endpoint=self._endpoint(),
                    known=True,
                )
            self._times = observed.times()
            return generation
        except ViduTimeoutError:
            self._cancel("the timeout expired")
            raise

    def _shared_results(self, hook: ViduHook, request: str) -> SharedResults:
        store = self._result_store()
        return SharedResults(store.folder, hook, store.artifact, request, self.log)

    def _reused(self, context: Context, line: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of an order that is served by the file of an earlier one."""
        generation_id = str(line.get("generation_id"))
        self.log.info("An equal order has a file: generation %s, %s. Nothing is submitted.", generation_id, line["uri"])
        publish(context, generation_id, conn_id=self.vidu_conn_id, role="wait", announce=False, **self._kept_facts())
        return reused_result(self._arguments(), line)

    def _wait_for_another(
        self, context: Context, hook: ViduHook, generation_id: str, slot: SlotWait, noted: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Wait for the generation of an equal order, which this task neither pays for nor cancels."""
        self.log.info("An equal order is under way: waiting for its generation %s.", generation_id)
        endpoint = self._endpoint()
        shown = {**noted, **self._kept_facts()}
        publish(context, generation_id, conn_id=self.vidu_conn_id, role="wait", endpoint=endpoint, **shown)
        self._facts = noted
        wait = self._deferred_wait(hook, generation_id, is_own=False)
        if self.deferrable:
            wait.defer(deadline=slot.deadline)
        with self._explained(wait):
            return self._finished(context, self._wait(hook, generation_id, slot.left))

    def _deferred_wait(
        self, hook: ViduHook, generation_id: str, callback: str | None = None, *, is_own: bool = True
    ) -> DeferredWait:
        from airflow_provider_vidu.triggers import ViduGenerationTrigger

        return DeferredWait(
            operator=self,
            hook=hook,
            trigger=partial(ViduGenerationTrigger, cancel_on_kill=self.cancel_on_kill and is_own),
            generation_id=generation_id,
            poll_interval=self.poll_interval,
            timeout=self._seconds(),
            max_failures=self.max_failures,
            endpoint=self._endpoint(),
            is_own=True,
            on_timeout=lambda: self._cancel("the timeout expired"),
            callback=callback,
        )

    def _resumed_wait(self, context: Context, generation_id: str, callback: str | None = None) -> DeferredWait:
        """Return the wait that another process began, after storing what a kill of this one must cancel."""
        hook = self._hook()
        self._facts = mapping(_pulled(context, WATCH_KEY))
        is_own = not self._facts.get(SHARED_NOTE)
        with suppress(ViduError):  # without a connection nothing can be cancelled; the wait decides what follows
            self._config = hook.config  # first: a signal handler cannot look it up in Airflow
            self._generation_id = generation_id if is_own else None
        if self._killed:
            self._cancel("the task was killed")
        return self._deferred_wait(hook, generation_id, callback, is_own=is_own)

    @contextmanager
    def _explained(self, wait: DeferredWait) -> Iterator[None]:
        """Explain what ends a wait; the end of another task's generation may be retried."""
        is_shared = bool((self._facts or {}).get(SHARED_NOTE))
        with (
            another_may_follow(wait.hook, wait.generation_id, wait.endpoint, is_shared=is_shared),
            explained_failure(wait.hook, wait.generation_id, wait.endpoint, self.log),
        ):
            yield

    def _spending(self, context: Context) -> Spending:
        """Return the limits on credits that this task keeps."""
        from airflow_provider_vidu.orders.money.spending import Spending

        return Spending(context, self, self.budget, checked_cap(self.max_credits, self._has_cap), self.log)

    def _finished(
        self, context: Context, generation: Generation, event: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        if self._facts is None:
            self._facts = mapping(_pulled(context, WATCH_KEY))
        is_shared = bool(self._facts.get(SHARED_NOTE))
        if self._facts.get("credits") is None and not is_shared:
            with suppress(ViduConfigError):  # a cap that renders differently by now must not lose the result
                self._spending(context).named_late(generation, self._facts.get("created_at"))
        whole, parameters = completed(generation, self._arguments(), self._facts)
        log_end(self.log, whole, context, self._times if event is None else event)
        result = as_result(whole, parameters)
        if self.destination is not None:
            result["file"] = self._stored(generation)
            report_stored(self, context, result["file"], whole)
        return {**result, "reused_from": generation.id} if is_shared else result

    def _stored(self, generation: Generation) -> dict[str, Any]:
        """Store the file, unless a task with an equal order has done so."""
        hook, request = self._hook(self._config), text(REQUEST_NOTE, (self._facts or {}).get(REQUEST_NOTE))
        if self.reuse == "never" or request is None:
            return self._result_store().store(generation, hook, self._endpoint())
        shared = self._shared_results(hook, request)
        if (record := shared.file_of(generation.id)) is None:
            record = self._result_store().store(generation, hook, self._endpoint())
            shared.kept(generation, record)
        return record

    def _cancel(self, why: str) -> None:
        """Cancel, best effort: a failing cancel must not hide the error that ends the task."""
        if not self.cancel_on_kill or self._generation_id is None:
            return
        hook = self._hook(self._config)  # a new one: the current one may be in the middle of a request
        try:
            verdict = hook.cancel_generation(self._generation_id, endpoint=self._endpoint())
        except ViduError as error:
            self.log.warning("Could not cancel generation %s although %s: %s", self._generation_id, why, error)
        else:
            self.log.info("Generation %s, because %s: %s.", self._generation_id, why, verdict.reason)

    def _published_id(self, context: Context) -> str | None:
        """Return the id that this try published; a new try starts without one."""
        generation_id = _pulled(context, ID_KEY)
        return generation_id if isinstance(generation_id, str) else None

    def _hook(self, config: ViduConfig | None = None) -> ViduHook:
        from airflow_provider_vidu.hooks import ViduHook

        return ViduHook(self.vidu_conn_id, config=config)


def _pulled(context: Context, key: str) -> Any:
    """Return an XCom that an earlier leg of this try pushed."""
    ti: Any = context.get("ti")
    return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index) if ti is not None else None
