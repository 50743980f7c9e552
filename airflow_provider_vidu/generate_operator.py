"""The operator that submits a generation, once, and waits for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_vidu.config import DEFAULT_CONN_ID
from airflow_provider_vidu.events import id_in, read_event
from airflow_provider_vidu.exceptions import (
    ViduConfigError,
    ViduError,
    ViduGenerationFailedError,
    ViduTimeoutError,
)
from airflow_provider_vidu.guard import ID_KEY
from airflow_provider_vidu.links import ViduGenerationLink
from airflow_provider_vidu.policy import DEFER_MARGIN_SECONDS
from airflow_provider_vidu.submission import Submission, failed

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vidu.config import ViduConfig
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation


class ViduGenerateOperator(BaseOperator):
    """Submits a generation once and returns it, succeeded, as JSON (see ``models.Generation``).

    *Paid once*: the order is recorded before the request is sent and the id right after it. A retry
    goes on with what an earlier try has submitted; it submits anew only after a failure that may
    pass. A clear is a new order. See the README for what holds on which Airflow.

    *Never left running*: kill, clear, mark-failed and the time-out cancel the job at the service, as
    far as it allows that (``ent-v2`` before the job runs). A triggerer that restarts never does.

    :param prompt: the text. Templated.
    :param model: the model's name at the service. Templated.
    :param images: web addresses, data URIs, or local or object-storage paths, which are sent inline. Templated.
    :param endpoint: ``ent-v2``: ``text2video``, ``img2video``, ``start-end2video``, ``reference2video``,
        …; chosen by the number of images where left out. A path starting with a slash goes anywhere.
    :param parameters: further fields of the request, such as ``{"duration": 4}``. Templated.
    :param body: the whole request, instead of prompt, model, images and parameters. Templated.
    :param vidu_conn_id: the Airflow connection.
    :param storage_conn_id: the Airflow connection of the object storage that ``images`` lie in.
    :param wait_for_completion: False returns right after the submit, with the generation as accepted.
    :param deferrable: wait in the triggerer instead of a worker; ``[operators] default_deferrable``
        where left out.
    :param poll_interval: seconds (or timedelta) between polls.
    :param timeout: seconds (or timedelta) to wait; off-peak generations may take 48 hours.
    :param cancel_on_kill: cancel the job at the service when the task is killed or times out.
    :param durable: remember the order between tries. False submits, and pays, at every try.
    :param max_failures: failed polls in a row that are tolerated.
    :raises ViduGenerationFailedError: when the generation failed for good.
    :raises ViduGenerationInterruptedError: when it failed for a reason that may pass.
    :raises ViduSubmitUnknownError: when nobody knows whether a create was carried out.
    :raises ViduTimeoutError: after ``timeout`` seconds.
    """

    template_fields: Sequence[str] = (
        "prompt",
        "model",
        "images",
        "endpoint",
        "parameters",
        "body",
        "vidu_conn_id",
        "storage_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json", "body": "json"}
    operator_extra_links = (ViduGenerationLink(),)
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
        poll_interval: timedelta | float = 15,
        timeout: timedelta | float = 24 * 3600,
        cancel_on_kill: bool = True,
        durable: bool = True,
        max_failures: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if body is not None and any(value is not None for value in (prompt, model, images, parameters)):
            raise ViduConfigError("body replaces prompt, model, images and parameters: give one or the other.")
        if body is None and all(value is None for value in (prompt, images, parameters)):
            raise ViduConfigError("There is nothing to submit: give prompt, images, parameters or body.")
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
        self.poll_interval = _seconds("poll_interval", poll_interval)
        self.timeout = _seconds("timeout", timeout)
        self.cancel_on_kill = cancel_on_kill
        self.durable = durable
        if not isinstance(max_failures, int) or max_failures < 0:
            raise ViduConfigError(f"max_failures must be a whole number of 0 or more, not {max_failures!r}.")
        self.max_failures = max_failures
        self._generation_id: str | None = None
        self._config: ViduConfig | None = None
        self._killed = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit, or find what an earlier try has submitted; publish the id; wait."""
        from airflow_provider_vidu.durable import order_of, store_for

        hook = self._hook()
        self._config = hook.config
        store = store_for(context) if self.durable else None
        submission = Submission(hook, store, order_of(context), self.log, cancel_abandoned=self.cancel_on_kill)
        generation = submission.generation(self._request(), self.endpoint)
        self._generation_id = generation.id
        context["ti"].xcom_push(key=ID_KEY, value=generation.id)
        if self._killed:
            # The kill came while the create was under way: only now there is an id to cancel.
            self._cancel("the task was killed")
        if not self.wait_for_completion:
            submission.handed_over()
            return self._finished(context, generation)
        if self.deferrable and not generation.is_done:
            self._defer(generation.id)
        return self._finished(context, self._wait(hook, generation.id))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resume after the trigger has fired; ask afresh, so that the returned URLs are new."""
        generation_id = self._generation_id = self._published(context) or id_in(event) or ""
        hook = self._hook()
        self._config = hook.config
        if id_in(event) not in (None, generation_id):
            self.log.warning("Woken for %s, which this try does not wait for: waiting on.", id_in(event))
            if not hook.get_generation(generation_id).is_done:
                self._defer(generation_id)
            return self._finished(context, self._wait(hook, generation_id, timeout=DEFER_MARGIN_SECONDS))
        try:
            read_event(event, generation_id)
        except ViduTimeoutError:
            self._cancel("the time is over")
            raise
        except ViduGenerationFailedError:
            # The event holds no more than the reason; the service's answer tells whether it may pass.
            pass
        return self._finished(context, self._wait(hook, generation_id, timeout=DEFER_MARGIN_SECONDS))

    def on_kill(self) -> None:
        """Cancel the job at the service; Airflow calls this in the worker, from a signal handler."""
        self._killed = True
        if self._generation_id is not None:
            self._cancel("the task was killed")

    def _request(self) -> dict[str, Any]:
        if self.body is not None:
            if not isinstance(self.body, Mapping) or not self.body:
                raise ViduConfigError(f"body must be a JSON object, not {type(self.body).__name__}.")
            return dict(self.body)
        fields: dict[str, Any] = {"model": self.model, "prompt": self.prompt}
        if self.images:
            from airflow_provider_vidu.images import inlined

            fields["images"] = inlined(self.images, self.storage_conn_id)
        if self.parameters is not None and not isinstance(self.parameters, Mapping):
            raise ViduConfigError(f"parameters must be a JSON object, not {type(self.parameters).__name__}.")
        fields = {name: value for name, value in fields.items() if value is not None}
        twice = fields.keys() & (self.parameters or {}).keys()
        if twice:
            raise ViduConfigError(f"{', '.join(sorted(twice))} is given twice: as an argument and in parameters.")
        return {**fields, **(self.parameters or {})}

    def _wait(self, hook: ViduHook, generation_id: str, timeout: float | None = None) -> Generation:
        try:
            return hook.wait(
                generation_id,
                timeout=self.timeout if timeout is None else timeout,
                poll_interval=self.poll_interval if timeout is None else min(self.poll_interval, 5.0),
                max_failures=self.max_failures,
            )
        except ViduTimeoutError:
            self._cancel("the time is over")
            raise
        except ViduGenerationFailedError as error:
            generation = hook.get_generation(generation_id)
            if generation.failed:
                raise failed(generation, may_pass=hook.config.dialect.may_pass(generation)) from error
            raise

    def _finished(self, context: Context, generation: Generation) -> dict[str, Any]:
        if self.durable:
            from airflow_provider_vidu.durable import store_for

            store_for(context).finished()
        spent = "" if generation.credits is None else f"; {generation.credits} credits spent"
        self.log.info("Generation %s: %s%s", generation.id, generation.describe(), spent)
        return generation.as_xcom()

    def _defer(self, generation_id: str) -> NoReturn:
        from airflow_provider_vidu.triggers import ViduGenerationTrigger

        now = time.time()
        self.defer(
            trigger=ViduGenerationTrigger(
                generation_id=generation_id,
                vidu_conn_id=self.vidu_conn_id,
                poll_interval=self.poll_interval,
                deadline=now + self.timeout,
                since=now,
                max_failures=self.max_failures,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout + DEFER_MARGIN_SECONDS),
        )

    def _cancel(self, why: str) -> None:
        """Cancel best effort: what ends the task must not be hidden by a failing cancel."""
        if not self.cancel_on_kill or self._generation_id is None:
            return
        from airflow_provider_vidu.hooks import ViduHook

        # A hook of its own: the one in use may be in the middle of a request, and in a signal handler
        # Airflow cannot be asked for the connection again.
        hook = ViduHook(self.vidu_conn_id, config=self._config)
        try:
            verdict = hook.cancel_generation(self._generation_id)
        except ViduError as error:
            self.log.warning("Generation %s could not be cancelled although %s: %s", self._generation_id, why, error)
        else:
            self.log.info("Generation %s, because %s: %s.", self._generation_id, why, verdict.reason)

    def _published(self, context: Context) -> str | None:
        """Return the id that this try has published; a new try begins without one."""
        ti: Any = context["ti"]
        found = ti.xcom_pull(task_ids=ti.task_id, key=ID_KEY, map_indexes=ti.map_index)
        return found if isinstance(found, str) else None

    def _hook(self) -> ViduHook:
        from airflow_provider_vidu.hooks import ViduHook

        return ViduHook(self.vidu_conn_id)


def _seconds(name: str, value: timedelta | float) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds <= 0:
        raise ViduConfigError(f"{name} must be a timedelta or a positive number of seconds, not {value!r}.")
    return float(seconds)
