"""One leg of a generate task in a worker: from its start, or an event, to its result or its next deferral."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_vidu.api.dry_run import is_dry
from airflow_provider_vidu.common.values import given, mapping
from airflow_provider_vidu.defaults import OFF_PEAK_WAIT_SECONDS, WAIT_SECONDS
from airflow_provider_vidu.events import Turn, callback_in, id_in
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduGenerationFailedError
from airflow_provider_vidu.links import ID_KEY, WATCH_KEY, Role, publish, published, result_of
from airflow_provider_vidu.operators.generation_wait import GenerationWait
from airflow_provider_vidu.operators.mapping.instances import check_mapped, map_index_of, mapped_to_nothing
from airflow_provider_vidu.operators.reuse import (
    REQUEST_NOTE,
    SHARED_NOTE,
    ReusedOrderError,
    SharedResults,
    claim_lost,
    reused_result,
)
from airflow_provider_vidu.operators.storing import ResultStore
from airflow_provider_vidu.orders.arguments import arguments_of
from airflow_provider_vidu.orders.claims import ClaimLostError, SharedOrderError
from airflow_provider_vidu.orders.dry_run import dry_run
from airflow_provider_vidu.orders.explained import explained_not_found, failed
from airflow_provider_vidu.orders.money.budget import checked_cap
from airflow_provider_vidu.orders.records import own_record
from airflow_provider_vidu.orders.request import (
    completed,
    endpoint_of,
    facts_of_create,
    further_fields,
    terms_of,
    text_argument,
)
from airflow_provider_vidu.orders.tries import record_id, resumes_order
from airflow_provider_vidu.tasks.deferral import check_execution_timeout
from airflow_provider_vidu.tasks.endings import log_end
from airflow_provider_vidu.tasks.masking import as_result, check_result_setting
from airflow_provider_vidu.tasks.outlets import report_stored
from airflow_provider_vidu.tasks.slots.queue import no_triggerer

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vidu.api.settings.config import ViduConfig
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation
    from airflow_provider_vidu.operators.generate import ViduGenerateOperator
    from airflow_provider_vidu.operators.task_request import TaskRequest
    from airflow_provider_vidu.orders.money.spending import Spending
    from airflow_provider_vidu.orders.submission import Submission
    from airflow_provider_vidu.tasks.slots.slot_wait import SlotWait


class GenerateLeg:
    """One leg of a generate task.

    :param task: the operator, rendered.
    :param context: the task's context; empty outside of a task.
    :param required: the arguments that must hold a value after rendering.
    :param written_destination: the destination as the DAG's author wrote it; None without one.
    :param has_cap: whether the DAG's author set ``max_credits``.
    """

    def __init__(
        self,
        task: ViduGenerateOperator,
        context: Context,
        *,
        required: Collection[str],
        written_destination: Any,
        has_cap: bool,
    ) -> None:
        self._task = task
        self._context = context
        self._required = required
        self._written_destination = written_destination
        # An attribute that a cluster policy or a subclass has set counts, too.
        self._is_kept = written_destination is not None or task.destination is not None
        self._has_cap = has_cap or task.max_credits is not None
        self._log = task.log
        self._hook = self._new_hook()
        self._config: ViduConfig | None = None
        self._generation_id: str | None = None  # of the task's own generation, which a kill cancels
        self._facts: Mapping[str, Any] | None = None
        self._store: ResultStore | None = None
        self._killed = False

    def submitted(self, turn: Turn | None) -> dict[str, Any]:
        """Submit, or pick up what an earlier try submitted; return the result, or leave the worker until there is one.

        :param turn: the turn that a trigger has given to the task; None if it has not waited for a free slot.
        """
        from airflow_provider_vidu.operators.preflight import check_downstream
        from airflow_provider_vidu.operators.task_request import TaskRequest, slot_wait

        task, hook = self._task, self._hook
        with self._resumes_order():
            self._config = hook.config
            check_result_setting()
            check_mapped(task, self._context, ("max_credits", "budget"))
            lost = mapped_to_nothing(task, self._context)
            request = TaskRequest.of(task, self._context, {*self._required, *lost}, hook)
            spending = self._spending()
            if (self._is_kept or "destination" in lost) and task.destination is None:  # the file would be lost
                raise ViduConfigError(
                    "destination is empty: check the XCom or the param that it is templated from. Nothing was "
                    "submitted."
                )
        if is_dry(task.is_dry_run) and own_record(self._context, self._log, is_durable=task.durable) is None:
            check_downstream(task, self._log, rehearses=False, index=map_index_of(self._context))
            terms = terms_of(self._arguments)
            return dry_run(hook, self._context, request.prepared, request.endpoint, terms, self._log)
        slot = slot_wait(
            task,
            hook,
            self._context,
            turn,
            timeout=self._timeout,
            is_watched=task.wait_for_completion and not request.is_synchronous,
            check=self._check_wanted,
        )
        hook._retry_until(slot.deadline)
        if task.destination is not None:
            with self._resumes_order():
                self._result_store().check(task, self._context, self._written_destination)
        return self._ordered(request, slot, spending)

    def resumed(self, event: Mapping[str, Any] | None) -> dict[str, Any]:
        """Resume after a trigger's event; return the result, or defer again.

        :param event: the trigger's event.
        """
        wait = self._resumed_wait(self._published_id() or id_in(event) or "")
        with wait.explained():
            return self._finished(wait.deferred(callback_in(event)).resume(event), event)

    def given_up(self, next_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the result if the generation is done; otherwise raise the error of a wait that Airflow gave up.

        :param next_kwargs: the arguments with which Airflow resumes the task.
        """
        task = self._task
        if (generation_id := self._published_id()) is None:
            nothing = "The task was waiting before its create, and nothing was submitted."
            check_execution_timeout(next_kwargs, task.execution_timeout, self._timeout, nothing)
            raise no_triggerer(task.vidu_conn_id)
        wait = self._resumed_wait(generation_id)
        with wait.explained():
            return self._finished(wait.deferred().give_up(next_kwargs, task.execution_timeout))

    def kill(self) -> None:
        """Cancel the generation, and stop storing its file; called from a signal handler."""
        self._killed = True
        if self._store is not None:
            self._store.cancel()
        self._cancel("the task was killed")

    # -- submitting ------------------------------------------------------------------------------------------------

    def _ordered(self, request: TaskRequest, slot: SlotWait, spending: Spending) -> dict[str, Any]:
        from airflow_provider_vidu.operators.task_request import submission_for

        task, endpoint = self._task, request.endpoint
        digest = request.shared_digest(task, self._context)
        shared = None if digest is None else self._shared_results(self._hook, digest)
        store, check = None if task.destination is None else self._result_store(), self._check_wanted
        submission = submission_for(
            *(task, self._context, slot, store), endpoint=endpoint, spending=spending, shared=shared, check=check
        )
        try:
            with explained_not_found(request.is_synchronous):
                generation = slot.submitted(lambda: submission.generation(request.prepared, endpoint))
        except ClaimLostError:
            raise claim_lost(task.vidu_conn_id) from None
        except ViduGenerationFailedError:
            if submission.failed is not None:  # of an earlier try: its page shows what was paid for
                self._publish_created(submission.failed, submission, slot.deadline, digest)
            raise
        except ReusedOrderError as reused:
            return self._served(reused.line)
        except SharedOrderError as order_of_another:
            return self._wait_for_another(order_of_another.generation_id, slot, digest)
        self._generation_id = generation.id
        submission.record_again()
        self._publish_created(generation, submission, slot.deadline, digest)
        submission.check_price()
        if self._killed:  # during the create: only now is there an id to cancel
            self._cancel("the task was killed")
        return self._created(generation, submission, slot, is_synchronous=request.is_synchronous)

    def _created(
        self, generation: Generation, submission: Submission, slot: SlotWait, *, is_synchronous: bool
    ) -> dict[str, Any]:
        """Return the result of a generation that was submitted, or leave the worker until it has one."""
        if generation.failed:  # some creates are answered with the failure at once
            raise failed(self._hook, generation)
        if not self._task.wait_for_completion:
            submission.handed_over()
            return self._finished(generation)
        if generation.succeeded and (is_synchronous or generation.video_url):
            # The result of a synchronous product is only in this answer: there may be no query for it.
            return self._finished(generation)
        wait = self._wait(generation.id, is_own=True)
        if self._task.deferrable and not generation.is_done:
            deadline = None if slot.turn is None else slot.turn.deadline
            wait.deferred(submission.callback).defer(deadline=deadline)
        return self._waited(wait, slot.left)

    def _resumes_order(self) -> AbstractContextManager[None]:
        """Make an error of the settings retryable if this order was already submitted."""
        return resumes_order(self._context, self._log, is_durable=self._task.durable)

    def _check_wanted(self) -> None:
        """Refuse to submit for a task that was killed while it waited to send, or whose order a dry run continues."""
        if self._killed:
            raise ViduError("The task was killed before its create was sent: nothing was submitted.")
        if is_dry(self._task.is_dry_run):
            raise ViduConfigError(
                "The generation of an earlier try failed, or was never created, and dry_run is set: nothing was "
                "submitted. Clear the task to run it dry."
            )

    def _served(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of an order that is served by the file of an earlier one."""
        generation_id = str(line.get("generation_id"))
        self._log.info(
            "An equal order has a file: generation %s, %s. Nothing is submitted.", generation_id, line["uri"]
        )
        self._publish(generation_id, "wait", announce=False)
        result, generation = reused_result(self._arguments, line)
        report_stored(self._task, self._context, result["file"], lambda: generation)
        return result

    # -- waiting ---------------------------------------------------------------------------------------------------

    def _wait_for_another(self, generation_id: str, slot: SlotWait, digest: str | None) -> dict[str, Any]:
        """Wait for the generation of an equal order, which this task neither pays for nor cancels."""
        self._log.info("An equal order is under way: waiting for its generation %s.", generation_id)
        self._facts = {SHARED_NOTE: True, REQUEST_NOTE: digest, **self._wait_facts(slot.deadline)}
        self._publish(generation_id, "wait", endpoint=self._endpoint, **self._facts)
        wait = self._wait(generation_id, is_own=False)
        if self._task.deferrable:
            wait.deferred().defer(deadline=slot.deadline)
        return self._waited(wait, slot.left)

    def _wait(self, generation_id: str, *, is_own: bool) -> GenerationWait:
        return GenerationWait(
            task=self._task,
            hook=self._hook,
            generation_id=generation_id,
            endpoint=self._endpoint,
            timeout=self._timeout,
            is_own=is_own,
            on_timeout=lambda: self._cancel("the timeout expired"),
        )

    def _waited(self, wait: GenerationWait, seconds: float) -> dict[str, Any]:
        """Wait in this worker; return the result."""
        with wait.explained():
            return self._finished(*wait.in_worker(seconds))

    def _resumed_wait(self, generation_id: str) -> GenerationWait:
        """Return the wait that another process began, after storing what a kill of this one must cancel."""
        self._facts = mapping(published(self._context, WATCH_KEY))
        is_own = not self._facts.get(SHARED_NOTE)
        if self._facts.get("unrecorded"):
            record_id(self._context, self._log, generation_id, keeps=self._task.on_clear == "resume")
        with suppress(ViduError):  # without a connection nothing can be cancelled; the wait decides what follows
            self._config = self._hook.config  # first: a signal handler cannot look it up in Airflow
            self._generation_id = generation_id if is_own else None
        if self._killed:
            self._cancel("the task was killed")
        return self._wait(generation_id, is_own=is_own)

    def _cancel(self, why: str) -> bool:
        """Cancel, best effort: a failing cancel must not hide the error that ends the task. Return whether it did."""
        if not self._task.cancel_on_kill or self._generation_id is None:
            return False
        try:
            # A new hook: the current one may be in the middle of a request.
            verdict = self._new_hook(self._config).cancel_generation(self._generation_id, endpoint=self._endpoint)
        except ViduError as error:
            self._log.warning("Could not cancel generation %s although %s: %s", self._generation_id, why, error)
            return False
        self._log.info("Generation %s, because %s: %s.", self._generation_id, why, verdict.reason)
        return verdict.accepted

    # -- the result ------------------------------------------------------------------------------------------------

    def _finished(self, generation: Generation, times: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the task, once its file is stored.

        :param times: a trigger's event, or what a wait in this process saw: when the generation ended.
        """
        if self._facts is None:
            self._facts = mapping(published(self._context, WATCH_KEY))
        is_shared = bool(self._facts.get(SHARED_NOTE))
        if not self._facts.get("credits") and not is_shared:
            with suppress(ViduConfigError):  # a cap that renders differently by now must not lose the result
                self._spending().named_late(generation, self._facts.get("created_at"), self._endpoint)
        whole, parameters = completed(generation, self._arguments, self._facts)
        log_end(self._log, whole, self._context, times)
        result = as_result(whole, parameters)
        if self._is_kept:  # one that renders to nothing by now is refused
            with self._resumes_order():
                result["file"] = self._stored(generation, text_argument(REQUEST_NOTE, self._facts.get(REQUEST_NOTE)))
            report_stored(self._task, self._context, result["file"], lambda: whole)
        return {**result, "reused_from": generation.id} if is_shared else result

    def _stored(self, generation: Generation, digest: str | None) -> dict[str, Any]:
        """Store the file, unless a task with an equal order has done so; return its record.

        :param digest: of the request that equal orders share; None if the task shares nothing.
        """
        hook = self._new_hook(self._config)

        def store() -> dict[str, Any]:
            return self._result_store().store(generation, hook, self._endpoint)

        if self._task.reuse == "never" or digest is None:
            return store()
        return self._shared_results(hook, digest).stored(generation, store)

    def _result_store(self) -> ResultStore:
        if self._store is None:
            task, storage = self._task, given(text_argument("storage_conn_id", self._task.storage_conn_id))
            self._store = ResultStore(task.destination, storage, task.artifact, task.max_bytes, self._log)
        return self._store

    def _shared_results(self, hook: ViduHook, digest: str) -> SharedResults:
        store = self._result_store()
        return SharedResults(store.folder, hook, store.artifact, digest, self._log)

    # -- what the clip pages show ------------------------------------------------------------------------------------

    def _publish_created(
        self, generation: Generation, submission: Submission, deadline: float, digest: str | None
    ) -> None:
        arguments = None if submission.is_of_another_request else self._arguments
        facts = facts_of_create(generation, submission.ordered_at, arguments)
        self._facts = {**facts, **({"credits": submission.price} if submission.price else {}), REQUEST_NOTE: digest}
        waits = self._task.wait_for_completion
        noted = {**self._facts, "model": generation.model or terms_of(self._arguments)["model"]}
        noted |= self._wait_facts(deadline) if waits else {}
        noted["callback"] = submission.callback is not None
        noted["unrecorded"] = submission.unrecorded is not None
        self._publish(generation.id, "generate" if waits else "submit", endpoint=self._endpoint, **noted)

    def _publish(self, generation_id: str, role: Role, **known: Any) -> None:
        task = self._task
        kept: dict[str, Any] = {} if task.destination is None else {"stores": "file", "artifact": task.artifact}
        kept["result"] = result_of(task)
        publish(self._context, generation_id, conn_id=task.vidu_conn_id, role=role, **known, **kept)

    def _wait_facts(self, deadline: float) -> dict[str, Any]:
        interval = self._task.poll_interval
        polls = {"adaptive": True} if interval is None else {"poll_interval": interval}
        return {"deadline": round(deadline), **polls}

    # -- what the task is given ------------------------------------------------------------------------------------

    @property
    def _arguments(self) -> dict[str, Any]:
        return arguments_of(self._task)

    @property
    def _endpoint(self) -> str | None:
        return endpoint_of(self._arguments)

    @property
    def _timeout(self) -> float:
        """The seconds to wait: as set, or as the rendered request needs."""
        from airflow_provider_vidu.api.endpoints import is_off_peak

        if self._task.timeout is not None:
            return self._task.timeout
        return OFF_PEAK_WAIT_SECONDS if is_off_peak(further_fields(self._arguments)) else WAIT_SECONDS

    def _spending(self) -> Spending:
        from airflow_provider_vidu.operators.task_request import queries_of
        from airflow_provider_vidu.orders.money.spending import Spending

        task, cap = self._task, checked_cap(self._task.max_credits, self._has_cap)
        return Spending(self._context, task, task.budget, cap, self._log, queries_of(task.vidu_conn_id))

    def _published_id(self) -> str | None:
        """Return the id that this try published; a new try starts without one."""
        generation_id = published(self._context, ID_KEY)
        return generation_id if isinstance(generation_id, str) else None

    def _new_hook(self, config: ViduConfig | None = None) -> ViduHook:
        from airflow_provider_vidu.hooks import ViduHook

        return ViduHook(self._task.vidu_conn_id, config=config)
