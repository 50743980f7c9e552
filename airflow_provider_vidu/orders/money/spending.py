"""What one task spends: the cap on its generation, its budget, and the entries that it writes for the DAG's budgets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, get_args

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import mapping, moment
from airflow_provider_vidu.exceptions import ViduError, ViduPricePendingError
from airflow_provider_vidu.links import is_task_instance
from airflow_provider_vidu.models import Cancellation, Generation, GenerationStatus
from airflow_provider_vidu.orders.money.budget import Period, ViduBudget, amount, check_budget, price_refused
from airflow_provider_vidu.orders.money.entries import KEPT_SECONDS, Scope
from airflow_provider_vidu.orders.money.ledger import ledger
from airflow_provider_vidu.orders.money.pending import Query, has_news, observe
from airflow_provider_vidu.tasks.mapped import defaults_of, makes_own

if TYPE_CHECKING:
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.orders.order import OrderRecord

SPENT_KEY: Final = "vidu_spent"
"""The XCom with the credits that a task instance has spent, over all of its retries and clears."""

REFUNDED: Final = Cancellation(accepted=True, reason="it was cancelled")


class NoSpending:
    """The spending of a task that has no limit, and that no budget counts."""

    @property
    def needs_price(self) -> bool:
        """Whether the price of a generation matters as soon as it is submitted."""
        return False

    def checked_left(self, *, queries: bool = True) -> float:
        """Return the credits that are left of the budget; refuse a create if it is spent.

        :param queries: whether open generations without a price are queried if they may have spent the rest: there may
            be no task that still does.
        :raises ViduBudgetError: when it is spent.
        :raises ViduPricePendingError: when open generations without a price may have spent the rest.
        :raises ViduError: when the ledger cannot be read. Nothing has been submitted; a retry may help.
        """
        return math.inf

    def exceeds(self, generation: Generation) -> bool:
        """Whether a generation costs more than the task allows."""
        return False

    def count_paid(self, record: OrderRecord, endpoint: str | None = None) -> None:
        """Make what a generation costs visible to the other tasks; repeating it changes nothing."""

    def observe(self, generation: Generation, at: float, endpoint: str | None = None) -> None:
        """Count by a later answer what a generation costs whose create named no price; repeating it changes nothing.

        :param at: when it was submitted, in epoch seconds.
        """

    def count_lost(self, record: OrderRecord) -> None:
        """Count a create of unknown outcome as possibly spent, until it is settled; repeating it changes nothing."""

    def settle(self, record: OrderRecord) -> None:
        """Count a create no longer as possibly spent: what it has cost is entered, or nothing was created."""

    def refuse(self, hook: ViduHook, record: OrderRecord, endpoint: str | None) -> tuple[ViduError, bool]:
        """Cancel a generation that costs too much; return the error, and whether its credits come back."""
        raise AssertionError("not reached")


class Spending(NoSpending):
    """The credits of one task instance, and the limits on them.

    :param context: the task's context; in a user's unit test, which has no task instance, only the cap applies.
    :param task: the task; its DAG's budgets count what it spends.
    :param budget: the limit on the run or the day; None if there is none.
    :param cap: the most credits of one generation; None if there is none.
    :param query: of an open generation without a price; None if nothing can be queried.
    """

    def __init__(
        self,
        context: Mapping[str, Any],
        task: Any,
        budget: ViduBudget | None,
        cap: float | None,
        log: Any,
        query: Query | None = None,
    ) -> None:
        self._query = query
        self._conn_id = getattr(task, "vidu_conn_id", None)
        self._ti: Any = context.get("ti") if is_task_instance(context.get("ti")) else None
        self._run: Any = context.get("dag_run")
        self._budget = budget
        self._cap = cap
        self._log = log
        dag = context.get("dag") or (task.dag if task.has_dag() else None)
        self._periods = _periods(dag, budget) if self._ti is not None else []

    @property
    def needs_price(self) -> bool:
        """Whether the price of a generation matters as soon as it is submitted."""
        return self._cap is not None or self.is_counted

    @property
    def is_counted(self) -> bool:
        """Whether a budget of the DAG counts what the task spends."""
        return bool(self._periods)

    def checked_left(self, *, queries: bool = True) -> float:
        """Return the credits that are left of the budget; refuse a create if it is spent."""
        if self._budget is None or self._ti is None:
            return math.inf
        entries, scope = ledger(), self._scope(self._budget.per, time.time())
        try:
            names = list(entries.names(scope.prefix))
            if not names and scope.expired_prefix is not None:
                entries.forget(scope.expired_prefix, time.time() - KEPT_SECONDS)
            lost, unpriced = scope.without_amount(names)
            try:
                return check_budget(self._budget, scope.prices(names), lost, len(unpriced))
            except ViduPricePendingError:
                if not queries or self._query is None:
                    raise
                if not has_news(entries, scope, unpriced, self._query, self._log):
                    raise
        except ViduError:
            raise
        except Exception as error:  # the database, the API server or a backend of the user's
            raise ViduError(
                f"Could not read what was spent within the budget, so nothing was submitted: {redacted(error)}"
            ) from error
        return self.checked_left(queries=False)

    def exceeds(self, generation: Generation) -> bool:
        """Whether a generation costs more than the task allows, and has not ended: no cancel brings back what has."""
        if self._is_above_cap(generation) and generation.succeeded:
            self._warn_of(generation, "The create's answer is the result")
        return self._is_above_cap(generation) and not generation.is_done

    def count_paid(self, record: OrderRecord, endpoint: str | None = None) -> None:
        """Make what a generation costs visible to the other tasks.

        A ledger that cannot be written must not lose a generation that is paid for, so that is only logged.
        """
        at, generation_id = record.began or record.at, record.generation_id or ""
        if record.credits is not None:
            self._publish(record)
        if record.credits:
            self._enter(generation_id, record.credits, at)
        else:  # a 0 is no price before the end, either: some services name it only then
            self.observe(Generation(id=generation_id, status=GenerationStatus.UNKNOWN), at, endpoint)

    def observe(self, generation: Generation, at: float, endpoint: str | None = None) -> None:
        """Count by a later answer what a generation costs whose create named no price; repeating it changes nothing."""
        facts = self._facts(at, generation_id=generation.id, conn_id=self._conn_id, endpoint=endpoint)
        for scope in self._scopes(at):
            self._tolerant("enter into the budget", partial(observe, ledger(), scope, generation, facts))

    def count_lost(self, record: OrderRecord) -> None:
        """Count a create of unknown outcome as possibly spent, until it is settled; repeating it changes nothing."""
        at, marker = record.began or record.at, record.marker
        self._add(at, lambda scope: scope.lost_entry(marker), outcome="unknown", marker=marker)

    def settle(self, record: OrderRecord) -> None:
        """Count a create no longer as possibly spent: what it has cost is entered, or nothing was created."""
        self._remove(record.began or record.at, lambda scope: scope.lost_entry(record.marker))

    def refuse(self, hook: ViduHook, record: OrderRecord, endpoint: str | None) -> tuple[ViduError, bool]:
        """Cancel a generation that costs too much; return the error, and whether its credits come back."""
        generation_id, price = record.generation_id or "", record.credits or 0
        verdict = REFUNDED
        if not record.refunded:
            try:
                verdict = hook.cancel_generation(generation_id, endpoint=endpoint)
            except ViduError as error:
                verdict = Cancellation(accepted=False, reason=f"the cancel failed: {error.reason}")
        if verdict.accepted:
            self._publish(record, back=price)
            if price > 0:
                self._remove(record.began or record.at, lambda scope: scope.entry(generation_id, price))
        refused = price_refused(generation_id, price, self._cap, verdict.accepted, verdict.reason)
        return refused.with_context(conn_id=hook.vidu_conn_id), verdict.accepted

    def named_late(self, generation: Generation, ordered_at: object, endpoint: str | None = None) -> None:
        """Handle the result of a generation whose create named no price.

        It is paid for and may have run, so it is kept, even above the cap.

        :param ordered_at: when it was submitted, as ISO 8601; None if unknown.
        """
        is_limited = self._cap is not None or (self._budget is not None and generation.is_done)
        if generation.credits is None and is_limited:
            self._log.warning(
                "The service named no price for generation %s: no limit on credits applies to it.", generation.id
            )
        if self._is_above_cap(generation):
            self._warn_of(generation, "Only this answer names the price")
        at = moment(ordered_at)
        self.observe(generation, time.time() if at is None else at.timestamp(), endpoint)

    def _is_above_cap(self, generation: Generation) -> bool:
        price = generation.credits
        return self._cap is not None and price is not None and price > self._cap

    def _warn_of(self, generation: Generation, why: str) -> None:
        self._log.warning(
            "Generation %s cost %s credits, more than max_credits (%s). %s, so the generation was not cancelled.",
            *(generation.id, amount(generation.credits or 0), amount(self._cap or 0), why),
        )

    def _enter(self, generation_id: str, price: float, at: float) -> None:
        self._add(at, lambda scope: scope.entry(generation_id, price), generation_id=generation_id, credits=price)

    def _add(self, at: float, name_of: Callable[[Scope], str], **known: Any) -> None:
        """Store an entry for each period that contains a moment, with facts for people who look at it."""
        facts = self._facts(at, **known)
        for scope in self._scopes(at):
            add = partial(ledger().add, scope.prefix, name_of(scope), facts)
            self._tolerant("enter into the budget", add)

    def _facts(self, at: float, **known: Any) -> dict[str, Any]:
        names = ("dag_id", "run_id", "task_id", "map_index")
        return {**{name: getattr(self._ti, name, None) for name in names}, "at": round(at), **known}

    def _remove(self, at: float, name_of: Callable[[Scope], str]) -> None:
        for scope in self._scopes(at):
            self._tolerant("remove from the budget", partial(ledger().remove, scope.prefix, name_of(scope)))

    def _publish(self, record: OrderRecord, back: float = 0) -> None:
        """Publish the sum of all orders, unless it is the price of one, which the generation's own facts hold."""
        if self._ti is not None and (self._periods or record.spent or back):
            total = record.total - (0 if record.refunded else back)
            self._tolerant("publish", lambda: self._ti.xcom_push(key=SPENT_KEY, value=total))

    def _tolerant(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the generation is paid for, and must not be lost for this
            self._log.warning("Could not %s what the generation costs: %s", what, redacted(error))

    def _scopes(self, at: float) -> list[Scope]:
        return [self._scope(period, at) for period in self._periods]

    def _scope(self, period: Period, at: float) -> Scope:
        when: datetime | None = datetime.fromtimestamp(at, UTC)
        if period == "run":  # whose own dates never change
            dates = (getattr(self._run, name, None) for name in ("run_after", "logical_date"))
            when = next((date for date in dates if isinstance(date, datetime)), None)
        return Scope(period, self._ti.dag_id, self._ti.run_id, when, self._conn_id)


def _periods(dag: Any, budget: ViduBudget | None) -> list[Period]:
    """Return the periods that any budget of a DAG counts: all of its tasks write their entries for them."""
    tasks: Mapping[str, Any] = getattr(dag, "task_dict", None) or {}
    default = mapping(getattr(dag, "default_args", None)).get("budget")
    found = [one for one in (budget, default) if isinstance(one, ViduBudget)]
    for task in tasks.values():
        if makes_own(task, "budget"):
            return sorted(get_args(Period))
        found += _budgets_of(task)
    return sorted({one.per for one in found})


def _budgets_of(task: Any) -> list[ViduBudget]:
    """Return the budgets of a task of any operator, or of the instances of a mapped one, as far as parsing shows."""
    arguments = getattr(task, "partial_kwargs", None)
    if arguments is None:
        found = [getattr(task, "budget", None)]
    else:
        expanded = getattr(getattr(task, "expand_input", None), "value", None)
        each = expanded if isinstance(expanded, list | tuple) else ()  # of expand_kwargs
        of_expand = mapping(expanded).get("budget")
        found = [
            arguments.get("budget"),
            defaults_of(task).get("budget"),
            *(mapping(one).get("budget") for one in each),
        ]
        found += of_expand if isinstance(of_expand, list | tuple) else ()
    return [one for one in found if isinstance(one, ViduBudget)]
