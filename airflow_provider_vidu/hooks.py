"""The hook: credentials in an Airflow connection, and everything a script may ask of Vidu."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, BinaryIO, TypeVar

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_vidu.api import connection_form
from airflow_provider_vidu.api.config import ViduConfig
from airflow_provider_vidu.api.connection import resolve
from airflow_provider_vidu.api.dialects import checked_id
from airflow_provider_vidu.api.dialects.errors import MODEL_NOT_FOUND
from airflow_provider_vidu.api.dialects.lost_create import Likeness, Search
from airflow_provider_vidu.api.dialects.task_list import Listing, Page, epoch_of
from airflow_provider_vidu.api.json_values import plain, unfit
from airflow_provider_vidu.api.messages import TOO_LARGE, ApiAnswer, ApiRequest, checked_request
from airflow_provider_vidu.common.progress import request_lines
from airflow_provider_vidu.common.text import redacted, without_query
from airflow_provider_vidu.defaults import (
    DEFAULT_CONN_ID,
    DEFER_MARGIN_SECONDS,
    checked_count,
    checked_seconds,
)
from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduConfigError,
    ViduCreditError,
    ViduError,
    ViduRequestError,
    ViduResponseError,
    ViduSubmitUnknownError,
    ViduTransportError,
)
from airflow_provider_vidu.models import NO_CANCEL, Cancellation, Credits, Generation, SearchResult
from airflow_provider_vidu.polling.retries import Attempts, outcome_is_unknown
from airflow_provider_vidu.polling.watch import Done, Failed, PollPolicy, PollResult, Watch

T = TypeVar("T")


class ViduHook(BaseHook):
    """Speaks with Vidu through an Airflow connection of type ``vidu``.

    Constructing it does no I/O; the connection is looked up at the first request. It can be used in
    a ``@task`` as it is::

        generation = ViduHook().create_generation(model="viduq3-turbo", prompt="a cat with wings")
        generation = ViduHook().wait(generation.id, timeout=1800)

    :param vidu_conn_id: the Airflow connection.
    :param config: the connection already looked up, where Airflow cannot be asked (a signal handler).
    """

    conn_name_attr = "vidu_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = connection_form.CONNECTION_TYPE
    hook_name = connection_form.HOOK_NAME

    def __init__(self, vidu_conn_id: str = DEFAULT_CONN_ID, *, config: ViduConfig | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vidu_conn_id = vidu_conn_id
        self._config = config
        self._client: Any = None

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's extra fields for Airflow before 3.2; later versions read the metadata."""
        return connection_form.form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's standard fields for Airflow before 3.2; later versions read the metadata."""
        return connection_form.ui_field_behaviour()

    @property
    def config(self) -> ViduConfig:
        """The checked connection, looked up when it is first needed.

        :raises ViduConfigError: when it is missing or wrong, naming the field.
        """
        if self._config is None:
            self._config = resolve(self.vidu_conn_id, type(self))
        return self._config

    def get_generation(
        self, generation_id: str, *, endpoint: str | None = None, retries: int | None = None
    ) -> Generation:
        """Ask for the state of a generation.

        :param generation_id: the id at Vidu.
        :param endpoint: where it was submitted; only products with a query of their own (``one-click/mv``) need it.
        :param retries: how often a failed request is repeated; the connection's ``max_retries`` where
            left out.
        :raises ViduNotFoundError: when the service does not know it.
        :raises ViduError: whatever else the answer, or its absence, stands for.
        """
        generation_id = checked_id(generation_id)

        def ask() -> Generation:
            dialect = self.config.dialect
            return dialect.read_generation(generation_id, self._send(dialect.query(generation_id, endpoint)))

        try:
            return self._repeated(ask, bills=False, retries=retries, generation_id=generation_id)
        except ViduError as error:
            raise error.with_context(generation_id=generation_id, conn_id=self.vidu_conn_id) from error.__cause__

    def create_generation(
        self,
        *,
        body: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
        before_send: Callable[[], None] | None = None,
        **fields: Any,
    ) -> Generation:
        """Submit a generation, once. This is billed.

        The request is repeated only when it certainly was not carried out: the connection could not be made, the
        service said "too many", or a gateway said that it has sent nothing. The dialect's fields are passed through as
        they are; the service knows which models and durations exist today.

        :param body: the whole request body; excludes ``fields``.
        :param endpoint: ``ent-v2``: ``text2video``, ``img2video``, … (if omitted, the fields decide);
            in both dialects a path starting with a slash.
        :param before_send: called right before each time that the request is sent; what it raises is raised, and
            nothing is sent.
        :param fields: the fields of the body, such as ``model``, ``prompt``, ``images``, ``duration``.
        :return: the generation as the service has accepted it; ``id`` is what to keep.
        :raises ViduSubmitUnknownError: when nobody knows whether it was carried out. Never retried.
        :raises ViduError: when it was refused.
        """
        if (body is None) == (not fields):
            raise ViduConfigError("create_generation needs either the fields of the request or body=, and not both.")
        payload = _payload(fields if body is None else body, drop_none=body is None)

        def submit() -> Generation:
            dialect = self.config.dialect
            if before_send is not None:
                before_send()
            synchronous = dialect.is_synchronous(payload, endpoint)
            answer = self._send(dialect.create(payload, endpoint))
            generation = dialect.read_created(answer, synchronous=synchronous)
            if answer.lost is not None:
                self.log.warning("The answer to the create was cut off after its id: %s", answer.lost.reason)
            return generation

        try:
            self._tell_request(payload, endpoint)
            generation = self._repeated(submit, bills=True)
        except ViduError as error:
            if outcome_is_unknown(error):
                raise _unknown_submit(error, self.vidu_conn_id) from error
            if isinstance(error, ViduCreditError):
                error.reason += self._balance()
            elif error.code == MODEL_NOT_FOUND:
                error.reason += _named(payload.get("model"), error.reason)
            raise error.with_context(conn_id=self.vidu_conn_id) from error.__cause__
        self.log.info("Submitted generation %s: %s", generation.id, generation.describe())
        return generation

    def request(
        self,
        method: str,
        path: str,
        json: Mapping[str, Any] | None = None,
        *,
        bills: bool | None = None,
    ) -> Any:
        """Send a request that this hook has no method for, with the connection's key, retries and errors.

        For subjects, the edit and compose steps of one-click products and everything else that is not modelled yet::

            ViduHook().request("POST", "/ent/v2/subjects", {"name": "cat", "images": [...]})
            ViduHook().request("GET", "/ent/v2/subjects?pager.page=1")

        :param method: ``GET``, ``POST``, ``PUT``, ``PATCH`` or ``DELETE``.
        :param path: the path from the connection's host on, percent-encoded, with or without a query.
        :param json: the JSON object to send; None sends no body.
        :param bills: whether the request may cost credits. Such a request is repeated only when it certainly was not
            carried out. If omitted, a ``POST`` bills and nothing else does.
        :return: the parsed answer: an object, a list, or None where it has no body.
        :raises ViduConfigError: when method, path or body cannot be sent.
        :raises ViduSubmitUnknownError: when a request that bills was sent and its outcome is unknown. Never retried.
        :raises ViduError: what else the answer, or its absence, means.
        """
        request = checked_request(method, path, plain(json), bills=bills)
        try:
            return self._repeated(lambda: self.config.dialect.read_json(self._send(request)), bills=request.bills)
        except ViduError as error:
            if request.bills and outcome_is_unknown(error):
                raise _unknown_submit(error, self.vidu_conn_id, f"{request.method} {path.partition('?')[0]}") from error
            raise error.with_context(conn_id=self.vidu_conn_id) from error.__cause__

    def wait(
        self,
        generation_id: str,
        timeout: timedelta | float | None = None,
        *,
        poll_interval: timedelta | float | None = None,
        max_failures: int = 10,
        on_change: Callable[[Generation], None] | None = None,
        endpoint: str | None = None,
        known: bool = False,
    ) -> Generation:
        """Wait in this process until a generation has succeeded (in DAGs, prefer the sensor).

        :param generation_id: the id at Vidu.
        :param timeout: seconds (or timedelta) to wait at the most; None waits for ever.
        :param poll_interval: seconds (or timedelta) between polls; if omitted or None, the adaptive schedule decides.
        :param max_failures: failed polls in a row that are tolerated.
        :param on_change: called with the generation whenever its state or progress has changed.
        :param endpoint: where it was submitted; only products with a query of their own (``one-click/mv``) need it.
        :param known: whether it was submitted or seen with this connection before. Then no refusal ends the wait at
            once: a refused key pauses it, other refusals count as failed polls. If omitted, that begins with the first
            good poll.
        :raises ViduGenerationFailedError: when it failed.
        :raises ViduTimeoutError: when the time is over.
        :raises ViduError: when polling became hopeless.
        """
        seconds = None if timeout is None else checked_seconds("timeout", timeout)
        policy = _polls(poll_interval, max_failures)
        return self._watched(generation_id, policy, seconds, endpoint=endpoint, known=known, on_change=on_change)

    def ask_afresh(
        self,
        generation_id: str,
        *,
        poll_interval: timedelta | float = 5.0,
        max_failures: int = 10,
        endpoint: str | None = None,
    ) -> Generation:
        """Return a generation whose end was told already, by a trigger's event, with the URLs of now.

        It asks for five minutes at the most. A service that is out of reach meanwhile is no time-out: the
        error may be retried.

        :param generation_id: the id at Vidu.
        :param poll_interval: seconds (or timedelta) between polls, where the first does not show the end.
        :param max_failures: failed polls in a row that are tolerated.
        :param endpoint: where it was submitted; only products with a query of their own (``one-click/mv``) need it.
        :raises ViduGenerationFailedError: when it failed.
        :raises ViduBusyError: when the service goes on calling it unfinished.
        :raises ViduError: when polling became hopeless.
        """
        policy = _polls(poll_interval, max_failures)
        return self._watched(generation_id, policy, DEFER_MARGIN_SECONDS, endpoint=endpoint, told=True)

    def cancel_generation(self, generation_id: str, *, endpoint: str | None = None) -> Cancellation:
        """Ask the service to cancel a generation; that it refuses is told, not raised.

        ``ent-v2`` cancels what has not started yet and gives the credits back; once it runs it answers
        "scheduled". ``vidu-native`` documents no cancel, and neither do the one-click products.

        :param generation_id: the id at Vidu.
        :param endpoint: where it was submitted; only one-click products need it.
        :return: whether it was cancelled, and the service's reason.
        :raises ViduError: when the service could not be asked.
        """
        generation_id = checked_id(generation_id)
        request = self.config.dialect.cancel(generation_id, endpoint)
        if request is None:
            return NO_CANCEL
        try:
            return self._repeated(lambda: self.config.dialect.read_cancel(self._send(request)), bills=False)
        except ViduError as error:
            raise error.with_context(generation_id=generation_id, conn_id=self.vidu_conn_id) from error.__cause__

    def get_credits(self) -> Credits:
        """Return the balance of the account (``ent-v2``).

        :raises ViduConfigError: when the connection's dialect knows no balance.
        """
        request = self.config.dialect.credits()
        if request is None:
            raise self._not_in_dialect("balance")
        return self._asked(lambda: self.config.dialect.read_credits(self._send(request)))

    def list_generations(
        self,
        *,
        created_from: datetime | str | float | None = None,
        created_to: datetime | str | float | None = None,
        states: Iterable[str] | None = None,
        limit: int = 1000,
    ) -> list[Generation]:
        """Return the account's generations, page by page, in the service's order (``ent-v2``).

        :param created_from: an aware datetime, ISO 8601 or epoch seconds; if omitted, the service decides (7 days).
        :param created_to: the same, for the end of the time.
        :param states: the service's own words, such as ``success``; if omitted, every state.
        :param limit: the most generations to return; the pages of 5,000 are read at most.
        :raises ViduConfigError: when the connection's dialect has no list, or an argument is wrong.
        :raises ViduError: when the list could not be read.
        """
        listing = Listing(
            created_from=epoch_of("created_from", created_from),
            created_to=epoch_of("created_to", created_to),
            states=states,
            limit=checked_count("limit", limit),
        )
        if self.config.dialect.search() is None:
            raise self._not_in_dialect("list of generations")
        while (query := listing.query) is not None:
            page = self._page(query, listing.shrink)
            if page is not None:
                listing.take(page)
        return listing.generations

    def find_generation(
        self,
        marker: str | None,
        *,
        created_from: datetime | str | float | None = None,
        created_to: datetime | str | float | None = None,
        like: Mapping[str, Any] | Likeness | None = None,
    ) -> SearchResult:
        """Look for the generation that one create has submitted (``ent-v2``).

        Where the list, or the query of an entry that may be it, shows a payload, the marker decides. Where they do not,
        the one generation decides that fits in model, prompt, images and time; several are named as candidates.

        :param marker: what the create's ``payload`` held; None when it had no marker.
        :param created_from: the earliest time at which it can have been created; if omitted, 7 days ago.
        :param created_to: the latest time at which it can have been created.
        :param like: the body of the create; if omitted, the marker alone decides.
        :return: its id, or none; ``complete`` tells whether "none" proves that there is none.
        :raises ViduError: when the list could not be read.
        """
        search = Search(
            marker,
            since=epoch_of("created_from", created_from),
            until=epoch_of("created_to", created_to),
            like=Likeness.of(like) if isinstance(like, Mapping) else like,
            now=time.time(),
        )
        if self.config.dialect.search() is None:
            return SearchResult()
        while (query := search.query) is not None:
            try:
                page = self._page(query, search.shrink)
            except ViduRequestError:
                if not search.drop_filter():
                    raise
            else:
                if page is not None:
                    search.take(page)
        while (name := search.undecided) is not None:
            search.take_payload(name, self._shown(name))
        return search.found()

    def _shown(self, generation_id: str) -> Generation | None:
        """Return what a query says of an entry of the list; None where it says nothing."""
        try:
            return self.get_generation(generation_id)
        except ViduError as error:
            self.log.warning("Generation %s is on the list, but its query failed: %s", generation_id, error)
            return None

    def _page(self, query: str, shrink: Callable[[], bool]) -> Page | None:
        """Return a page of the list, or None if it was too large and ``shrink`` has made the pages smaller."""

        def ask() -> Page | None:
            dialect = self.config.dialect
            request = dialect.search(query)
            if request is None:
                raise self._not_in_dialect("list of generations")
            try:
                return dialect.read_page(self._send(request))
            except ViduResponseError as error:
                # The same page again would be as large.
                if error.code != TOO_LARGE or not shrink():
                    raise
                return None

        return self._asked(ask)

    def test_connection(self) -> tuple[bool, str]:
        """Say in one sentence whether the connection works; used by the UI's test button.

        :return: whether it works, and the sentence; it never holds the key.
        """
        try:
            dialect = self.config.dialect
            answer = self._send(dialect.probe())
        except ViduConfigError as error:
            return False, error.reason
        except ViduTransportError as error:
            return False, f"Cannot reach the service. {error.reason}"
        except ViduResponseError as error:
            return False, f"This is not a Vidu service: {error.reason}"
        wrong = dialect.probe_verdict(answer)
        if isinstance(wrong, ViduAuthError):
            return False, f"The service was reached, but the key was refused: {wrong.reason}"
        if isinstance(wrong, ViduResponseError):
            return False, f"Something answers here, but it is not a Vidu service ({dialect.name}): {wrong.reason}"
        if wrong is not None:
            return False, f"The service was reached, but it reports: {wrong.reason}"
        return True, f"Fine: {self.config.base_url} speaks {dialect.name} and accepts the key."

    async def aget_generation(
        self, generation_id: str, *, endpoint: str | None = None, retries: int | None = None
    ) -> Generation:
        """Ask for the state of a generation without blocking the event loop.

        All callers on one loop share a bounded HTTP session per connection.

        :param generation_id: the id at Vidu.
        :param endpoint: where it was submitted; only products with a query of their own (``one-click/mv``) need it.
        :param retries: how often a failed request is repeated; the connection's ``max_retries`` where
            left out.
        :raises ViduError: whatever the answer, or its absence, stands for.
        """
        from airflow_provider_vidu.api.async_client import async_client

        generation_id = checked_id(generation_id)
        async with async_client(self.vidu_conn_id) as client:
            try:
                limit = (await client.config()).max_retries if retries is None else retries
            except ViduError as error:
                raise error.with_context(generation_id=generation_id, conn_id=self.vidu_conn_id) from error.__cause__
            attempts = Attempts(limit, bills=False)
            while True:
                try:
                    return await client.get_generation(generation_id, endpoint)
                except ViduError as error:
                    delay = attempts.after(error)
                    self.log.warning("Trying again in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)

    async def acancel_generation(self, generation_id: str, *, endpoint: str | None = None) -> Cancellation:
        """Do the same as :meth:`cancel_generation`, once, without blocking the event loop.

        :param generation_id: the id at Vidu.
        :param endpoint: where it was submitted; only one-click products need it.
        :return: whether it was cancelled, and the service's reason.
        :raises ViduError: when the service could not be asked.
        """
        from airflow_provider_vidu.api.async_client import async_client

        async with async_client(self.vidu_conn_id) as client:
            return await client.cancel_generation(checked_id(generation_id), endpoint)

    def _tell_request(self, payload: Mapping[str, Any], endpoint: str | None) -> None:
        """Log what is submitted, as a group that Airflow's log view folds."""
        url = self.config.url(self.config.dialect.create(payload, endpoint))
        self.log.info("::group::Request to %s", without_query(url))
        for line in request_lines(payload):
            self.log.info("%s", self.config.redact(line))
        self.log.info("::endgroup::")

    def _watched(
        self,
        generation_id: str,
        policy: PollPolicy,
        timeout: float | None,
        *,
        endpoint: str | None = None,
        told: bool = False,
        known: bool = False,
        on_change: Callable[[Generation], None] | None = None,
    ) -> Generation:
        now = time.time()
        watch = Watch(
            policy,
            generation_id=checked_id(generation_id),
            since=now,
            deadline=None if timeout is None else now + timeout,
            conn_id=self.vidu_conn_id,
            end_reported=told,
            known=known,
        )
        while True:
            result, seen = self._watched_poll(watch, endpoint)
            if result.note:
                self.log.info("Generation %s: %s", watch.generation_id, result.note)
                if on_change and seen:
                    on_change(seen)
            if isinstance(result, Failed):
                raise result.error
            if isinstance(result, Done):
                return result.generation
            time.sleep(result.delay)

    def _watched_poll(self, watch: Watch, endpoint: str | None) -> tuple[PollResult, Generation | None]:
        try:
            generation = self.get_generation(watch.generation_id, endpoint=endpoint, retries=0)
        except ViduError as error:
            return watch.missed(error, time.time()), None
        return watch.saw(generation, time.time()), generation

    def _upload(self, content: BinaryIO, size: int, content_type: str) -> str:
        """Upload a file to the service (``ent-v2``) and return the address that a request may name it by.

        It costs nothing. A failure that may pass is retried with a new upload.

        :param content: the file, seekable; it is read from its beginning.
        :param size: its size in bytes; the service takes 50 MB.
        :param content_type: its media type, such as ``image/png``.
        :return: an address such as ``ssupload:?id=…``.
        :raises ViduConfigError: when the connection's dialect has no upload service.
        :raises ViduError: when the upload failed.
        """
        from airflow_provider_vidu.api.uploads import put

        request = self.config.dialect.upload()
        if request is None:
            raise self._not_in_dialect("upload service")

        def send() -> str:
            dialect = self.config.dialect
            upload = dialect.read_upload(self._send(request))
            etag = put(upload.put_url, content, size, content_type, self.config.access())
            return dialect.read_uploaded(self._send(dialect.finish_upload(upload, etag)), upload)

        return self._asked(send)

    def _not_in_dialect(self, what: str) -> ViduConfigError:
        return ViduConfigError(f"The dialect {self.config.dialect.name} has no {what}.", conn_id=self.vidu_conn_id)

    def _balance(self) -> str:
        """Tell what is left after a refusal for lack of credits, where the service can be asked."""
        try:
            remaining = self.get_credits().remaining
        except ViduError:  # the refusal itself is what the user must see
            return ""
        return "" if remaining is None else f" Credits left: {remaining}."

    def _send(self, request: ApiRequest) -> ApiAnswer:
        from airflow_provider_vidu.api.sync_client import SyncClient

        if self._client is None:
            self._client = SyncClient(self.config)
        answer: ApiAnswer = self._client.send(request)
        return answer

    def _repeated(
        self, call: Callable[[], T], *, bills: bool, retries: int | None = None, generation_id: str | None = None
    ) -> T:
        attempts = Attempts(self.config.max_retries if retries is None else retries, bills=bills)
        while True:
            try:
                return self._with_current_key(call)
            except ViduError as error:
                delay = attempts.after(error)
                error.with_context(generation_id=generation_id, conn_id=self.vidu_conn_id)
                self.log.warning("Trying again in %.1f s: %s", delay, error)
            time.sleep(delay)

    def _asked(self, call: Callable[[], T]) -> T:
        """Ask for what is of the account, and not of a generation."""
        try:
            return self._repeated(call, bills=False)
        except ViduError as error:
            raise error.with_context(conn_id=self.vidu_conn_id) from error.__cause__

    def _with_current_key(self, call: Callable[[], T]) -> T:
        """Try a refused request again when the connection has got another key meanwhile."""
        try:
            return call()
        except ViduAuthError:
            seen, self._config = self.config, None
            if self.config == seen:
                raise
            self._close()
            return call()

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _polls(poll_interval: timedelta | float | None, max_failures: int) -> PollPolicy:
    interval = None if poll_interval is None else checked_seconds("poll_interval", poll_interval)
    return PollPolicy.for_worker(interval, checked_count("max_failures", max_failures))


def _payload(fields: object, *, drop_none: bool) -> dict[str, Any]:
    if not isinstance(fields, Mapping):
        raise ViduConfigError(f"body must be a JSON object, not {type(fields).__name__}.")
    payload = {name: value for name, value in plain(fields).items() if not (drop_none and value is None)}
    if not payload:
        raise ViduConfigError("There is nothing to submit: the request is empty.")
    if told := unfit(payload):
        raise ViduConfigError(told)
    return payload


def _named(model: object, told: str) -> str:
    """Name the model of the request where the gateway's message does not."""
    return f" (model {redacted(model, 100)})" if isinstance(model, str) and model not in told else ""


def _unknown_submit(error: ViduError, conn_id: str, what: str = "create") -> ViduSubmitUnknownError:
    return ViduSubmitUnknownError(
        f"The {what} was sent, but its outcome is unknown, and it may have been billed: {error.reason} "
        "It is not repeated. Look into the account's list of generations; if it is there, go on with its "
        "id, otherwise clear the task to submit again.",
        generation_id=error.generation_id,
        conn_id=conn_id,
        status_code=error.status_code,
        code=error.code,
        trace_id=error.trace_id,
    )
