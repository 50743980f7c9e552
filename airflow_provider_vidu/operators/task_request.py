"""What a generate task submits, and after which checks; the steps of a create are in :mod:`..orders.submission`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.links import ID_KEY, is_task_instance, publish_wait, published
from airflow_provider_vidu.operators.mapping.instances import map_index_of
from airflow_provider_vidu.operators.preflight import check_downstream
from airflow_provider_vidu.orders.arguments import arguments_of
from airflow_provider_vidu.orders.media.prepared import Prepared
from airflow_provider_vidu.orders.order import Order
from airflow_provider_vidu.orders.records import NullStore, RecordStore, StateStore, order_of, store_for, submitted_id
from airflow_provider_vidu.orders.request import check_product, endpoint_of, request_of, text_argument
from airflow_provider_vidu.orders.submission import Submission
from airflow_provider_vidu.orders.upstream import without_gaps
from airflow_provider_vidu.tasks.callbacks.arrivals import address_for
from airflow_provider_vidu.tasks.slots.slot_wait import SlotWait

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vidu.api.dialects import Dialect
    from airflow_provider_vidu.events import Turn
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation
    from airflow_provider_vidu.operators.generate import ViduGenerateOperator
    from airflow_provider_vidu.operators.reuse import SharedResults
    from airflow_provider_vidu.operators.storing import ResultStore
    from airflow_provider_vidu.orders.money.pending import Query
    from airflow_provider_vidu.orders.money.spending import Spending
    from airflow_provider_vidu.tasks.callbacks.tokens import CallbackAddress


@dataclass(frozen=True, kw_only=True)
class TaskRequest:
    """The request of a generate task.

    :param prepared: its fields; the files in them are not read yet.
    :param endpoint: of the create; None if the fields decide.
    :param dialect: decides what is sent.
    :param is_synchronous: whether the answer to the create is already the result.
    """

    prepared: Prepared
    endpoint: str | None
    dialect: Dialect
    is_synchronous: bool

    @classmethod
    def of(cls, task: ViduGenerateOperator, context: Context, required: Collection[str], hook: ViduHook) -> TaskRequest:
        """Return the request of a rendered task, checked before anything is recorded or sent.

        :param required: the arguments that must hold a value.
        :raises ViduConfigError: when it holds nothing to submit, fits several endpoints, or its file could not be kept.
        """
        arguments = arguments_of(task)
        fields, endpoint = request_of(arguments, required), endpoint_of(arguments)
        dialect = hook.config.dialect
        _check_gaps(task, context, required, dialect.target(fields, endpoint), dialect)
        is_synchronous = dialect.is_synchronous(fields, endpoint)
        if task.destination is not None:
            check_product(dialect.medium(fields, endpoint), task.artifact)
        prepared = Prepared(fields, text_argument("storage_conn_id", task.storage_conn_id))
        return cls(prepared=prepared, endpoint=endpoint, dialect=dialect, is_synchronous=is_synchronous)

    def shared_digest(self, task: ViduGenerateOperator, context: Context) -> str | None:
        """Return the digest that equal requests share; None if the task shares nothing. It reads their files.

        Nor does it if they are gone, but the order was already submitted: the generation is paid for.

        :raises ViduError: when a file cannot be read, and nothing was submitted.
        """
        if task.reuse == "never":
            return None
        try:
            return self.prepared.digest(self.endpoint, self.dialect)
        except ViduError as error:
            if submitted_id(context, task.log, is_durable=task.durable) is None:
                raise
            task.log.warning("The inputs can no longer be read, so the file is not shared: %s", error)
            return None


def _check_gaps(
    task: ViduGenerateOperator, context: Context, required: Collection[str], path: str, dialect: Dialect
) -> None:
    """Refuse a request that goes elsewhere because instances of a mapped task have returned nothing; else log it.

    :param path: where the request goes.
    :raises ViduConfigError: naming both places.
    """
    arguments, gaps = without_gaps(arguments_of(task), context)
    if not gaps:
        return
    what = (
        f"An input is the output of a mapped task, of which {gaps} instance{'s' if gaps > 1 else ''} returned nothing"
    )
    whole = dialect.target(request_of(arguments, required), endpoint_of(arguments))
    if whole != path:
        raise ViduConfigError(
            f"{what}: without their values, the request goes to {path} instead of {whole}, so another kind of "
            "generation would be paid for. Nothing was submitted. Set endpoint if that is meant."
        )
    task.log.warning("%s; the request has only the others' values.", what)


def queries_of(own: str) -> Query:
    """Return what returns a generation by one request, and raises ViduError when the service does not answer with it.

    The entries of a budget name connections, and a user who may edit Variables may have written them: each but the
    task's own must be of type ``vidu``.

    :param own: the task's connection.
    """
    from airflow_provider_vidu.api.settings.connection import check_type, type_of
    from airflow_provider_vidu.hooks import ViduHook

    def queried(conn_id: str, generation_id: str, endpoint: str | None) -> Generation:
        if conn_id != own:
            check_type(conn_id, type_of(conn_id))
        return ViduHook(conn_id).get_generation(generation_id, endpoint=endpoint, retries=0)

    return queried


def slot_wait(
    task: ViduGenerateOperator,
    hook: ViduHook,
    context: Context,
    turn: Turn | None,
    *,
    timeout: float,
    is_watched: bool,
    check: Callable[[], None],
) -> SlotWait:
    """Return the task's wait for a free slot.

    :param turn: the turn that a trigger has given to the task; None before the first wait.
    :param timeout: seconds that the task may take.
    :param is_watched: whether a trigger will watch the generation, so that its end frees the slot.
    :param check: raises when the task is no longer wanted.
    """
    from airflow_provider_vidu.triggers import ViduSlotTrigger

    return SlotWait(
        operator=task,
        hook=hook,
        turn=turn,
        timeout=timeout,
        trigger=partial(ViduSlotTrigger, is_watched=is_watched) if task.deferrable else None,
        on_wait=partial(publish_wait, context, conn_id=task.vidu_conn_id),
        check=check,
    )


def submission_for(
    task: ViduGenerateOperator,
    context: Context,
    slot: SlotWait,
    result_store: ResultStore | None,
    *,
    endpoint: str | None,
    spending: Spending,
    shared: SharedResults | None,
    check: Callable[[], None],
) -> Submission:
    """Return what submits the task's order, or picks up what an earlier try has submitted.

    :param slot: the wait for a free slot, which precedes a create.
    :param result_store: the place for the file; None if the task stores none.
    :param endpoint: of the create.
    :param spending: the limits on credits.
    :param shared: the files that equal orders share; None if the task shares nothing.
    :param check: raises when the task is no longer wanted.
    """

    def before_order() -> None:
        check()
        check_downstream(task, task.log, rehearses=True, index=map_index_of(context))
        if result_store is not None:
            result_store.rehearse()
        slot.before_create()

    is_recorded = is_task_instance(context.get("ti"))
    order = order_of(context) if is_recorded else Order(0)
    keeps = task.on_clear == "resume"
    store = store_for(context, keeps=keeps) if is_recorded and task.durable else NullStore()
    return Submission(
        slot.hook,
        store,
        order,
        task.log,
        cancel_abandoned=task.cancel_on_kill,
        on_clear=task.on_clear,
        before_order=before_order,
        before_send=check,
        spending=spending,
        callback=_callback(task, context, store),
        claim=None if shared is None else shared.claim(context, order, endpoint, on_clear=task.on_clear),
        ordered_in_try=partial(published, context, ID_KEY),
    )


def _callback(task: ViduGenerateOperator, context: Context, store: RecordStore) -> CallbackAddress | None:
    """Return where the service reports the end of a new generation; None if nothing could use the report.

    A task that waits in the triggerer is resumed; one that waits in its worker cannot be. The callback of a task that
    does not wait nudges event triggers. The API server finds its token in the record, if the record is in Airflow's
    state store.
    """
    if task.wait_for_completion:
        return address_for(context) if task.deferrable else None
    return address_for(context, nudges=task.vidu_conn_id) if isinstance(store, StateStore) else None
