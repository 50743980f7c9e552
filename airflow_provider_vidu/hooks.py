"""The hook: the Vidu API through an Airflow connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_vidu.api.calls import checked_body
from airflow_provider_vidu.api.dialects.lost_create import Likeness, Search
from airflow_provider_vidu.api.dialects.task_list import Listing, epoch_of
from airflow_provider_vidu.api.ids import checked_id
from airflow_provider_vidu.api.json_values import as_json
from airflow_provider_vidu.api.messages import checked_request
from airflow_provider_vidu.api.settings import form as connection_form
from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.api.settings.connection import problem, resolve, success
from airflow_provider_vidu.defaults import (
    CANCEL_PATIENCE_SECONDS,
    DEFAULT_CONN_ID,
    REFETCH_PATIENCE_SECONDS,
    checked_count,
    optional_seconds,
)
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.models import NO_CANCEL, Cancellation, Credits, Generation, SearchResult
from airflow_provider_vidu.polling.worker import watched
from airflow_provider_vidu.tasks.deserializing import allow_models
from airflow_provider_vidu.tasks.publishing import publish_generation

if TYPE_CHECKING:
    from airflow_provider_vidu.api.clients.sync_client import SyncClient


class ViduHook(BaseHook):
    """Requests to the Vidu API through an Airflow connection of type ``vidu``.

    Constructing it does no I/O; the connection is looked up at the first request. It can be used in a ``@task``::

        generation = ViduHook().create_generation(model="viduq3-turbo", prompt="a cat with wings")
        generation = ViduHook().wait(generation.id, timeout=1800)

    :param vidu_conn_id: the Airflow connection.
    :param config: the connection, already looked up, if Airflow cannot look it up (in a signal handler).
    """

    conn_name_attr = "vidu_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = connection_form.CONNECTION_TYPE
    hook_name = connection_form.HOOK_NAME

    def __init__(self, vidu_conn_id: str = DEFAULT_CONN_ID, *, config: ViduConfig | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        allow_models()  # dag.test() runs the task that returns one in the process of the task that reads it
        self.vidu_conn_id = vidu_conn_id
        self._config = config
        self._deadline: float | None = None

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
        """The checked connection, looked up at first use.

        :raises ViduConfigError: when it is missing or wrong, naming the field.
        """
        return self._look_up(False)

    def _look_up(self, refresh: bool) -> ViduConfig:
        if self._config is None or refresh:
            self._config = None
            self._config = resolve(self.vidu_conn_id, type(self))
        return self._config

    @cached_property
    def _client(self) -> SyncClient:
        # The HTTP library is loaded at the first request.
        from airflow_provider_vidu.api.clients.sync_client import SyncClient

        return SyncClient(self.vidu_conn_id, self._look_up, self.log, lambda: self._deadline)

    def _retry_until(self, deadline: float) -> None:
        """Follow no ``Retry-After`` beyond a moment, in epoch seconds: the task's timeout expires then."""
        self._deadline = deadline

    def get_generation(
        self, generation_id: str, *, endpoint: str | None = None, retries: int | None = None
    ) -> Generation:
        """Return the state of a generation.

        :param generation_id: the id at Vidu.
        :param endpoint: where it was submitted; only products with a query of their own (``one-click/mv``) need it.
        :param retries: how often a failed request is repeated; if omitted, the connection's ``max_retries``.
        :raises ViduNotFoundError: when the service does not find it.
        :raises ViduError: for any other error answer, or none.
        """
        generation_id = checked_id(generation_id)
        return self._client.carry(lambda dialect: dialect.query(generation_id, endpoint), generation_id, retries)

    def create_generation(
        self, *, body: Mapping[str, Any] | None = None, endpoint: str | None = None, **fields: Any
    ) -> Generation:
        """Submit a generation once. This is billed.

        The request is repeated only if it certainly was not carried out: the connection could not be established, the
        service answered "too many", or a gateway reported that it sent nothing. The dialect's fields are passed through
        unchecked, because the service decides which models and durations exist.

        :param body: the whole request body; excludes ``fields``.
        :param endpoint: ``ent-v2``: ``text2video``, ``img2video``, … (if omitted, the fields decide); in both dialects
            a path that starts with a slash.
        :param fields: the fields of the body, such as ``model``, ``prompt``, ``images``, ``duration``; None is omitted.
        :return: the generation as accepted by the service; keep its ``id``.
        :raises ViduSubmitUnknownError: when the outcome is unknown. Never retried.
        :raises ViduError: when it was refused.
        """
        if (body is None) == (not fields):
            raise ViduConfigError("create_generation needs either the fields of the request or body=, not both.")
        given = {name: value for name, value in fields.items() if value is not None} if body is None else body
        return self._submit(given, endpoint)

    def publish(
        self,
        generation: Generation | str,
        context: Mapping[str, Any] | None = None,
        *,
        endpoint: str | None = None,
    ) -> None:
        """Show a generation on the clip pages, as one of the ``@task`` that runs this.

        Operators and sensors do it themselves. A task may publish up to 24 generations; each has a page of its own::

            generation = hook.create_generation(model="viduq3-turbo", prompt="a cat with wings")
            hook.publish(generation)
            hook.publish(hook.wait(generation.id, timeout=1800))  # the sheet counts it as ready

        :param generation: the generation, or its id.
        :param context: the task's context; if omitted, that of the running task.
        :param endpoint: where it was submitted; only products with a query of their own (``one-click/mv``) need it.
        :raises ViduConfigError: when it is called outside a task and without a context.
        """
        publish_generation(generation, context, conn_id=self.vidu_conn_id, endpoint=endpoint, log=self.log)

    def _submit(
        self,
        body: Mapping[str, Any],
        endpoint: str | None = None,
        before_send: Callable[[], None] = lambda: None,
        *,
        queues: bool = False,
    ) -> Generation:
        """Submit a generation; ``before_send`` runs before each send, and an exception from it prevents the send.

        :param queues: whether the caller waits for a free slot itself: a full account is raised at once.
        """
        return self._client.submit(checked_body(body), endpoint, before_send, queues=queues)

    def request(
        self, method: str, path: str, json: Mapping[str, Any] | None = None, *, bills: bool | None = None
    ) -> Any:
        """Send a request that this hook has no method for, with the connection's key, retries and errors.

        For subjects, the edit and compose steps of one-click products, and everything else without a method::

            ViduHook().request("POST", "/ent/v2/subjects", {"name": "cat", "images": [...]})
            ViduHook().request("GET", "/ent/v2/subjects?pager.page=1")

        :param method: ``GET``, ``POST``, ``PUT``, ``PATCH`` or ``DELETE``.
        :param path: the path after the connection's host, percent-encoded, with or without a query.
        :param json: the JSON object to send; None sends no body.
        :param bills: whether the request may cost credits. Such a request is repeated only if it certainly was not
            carried out. If omitted, only a ``POST`` bills.
        :return: the parsed answer: an object, a list, or None if it has no body.
        :raises ViduConfigError: when method, path or body cannot be sent.
        :raises ViduSubmitUnknownError: when a request that bills was sent and its outcome is unknown. Never retried.
        :raises ViduError: for any other error answer, or none.
        """
        return self._client.request(checked_request(method, path, as_json(json), bills=bills))

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
        :param timeout: seconds (or timedelta) to wait at most; None waits without end.
        :param poll_interval: seconds (or timedelta) between polls; if omitted or None, the adaptive schedule decides.
        :param max_failures: consecutive failed polls that are tolerated.
        :param on_change: called with the generation whenever its state or progress has changed.
        :param endpoint: where it was submitted; only products with a query of their own (``one-click/mv``) need it.
        :param known: whether this connection has submitted or seen it before. Then no refusal ends the wait at once: a
            refused key pauses it, and other refusals count as failed polls. If omitted, that applies after the first
            good poll.
        :raises ViduGenerationFailedError: when it failed.
        :raises ViduTimeoutError: when the timeout expired.
        :raises ViduError: when polling cannot succeed any more.
        """
        generation_id = checked_id(generation_id)
        return watched(
            lambda: self.get_generation(generation_id, endpoint=endpoint, retries=0),
            self.log,
            generation_id=generation_id,
            conn_id=self.vidu_conn_id,
            timeout=optional_seconds("timeout", timeout),
            poll_interval=optional_seconds("poll_interval", poll_interval),
            max_failures=checked_count("max_failures", max_failures),
            on_change=on_change,
            known=known,
        )

    def refetch(
        self,
        generation_id: str,
        *,
        poll_interval: timedelta | float = 5.0,
        max_failures: int = 10,
        endpoint: str | None = None,
    ) -> Generation:
        """Return a generation that a trigger's event reported as finished, with fresh URLs.

        It polls for at most five minutes. A service that cannot be reached meanwhile raises an error that may be
        retried, not a timeout.

        :param generation_id: the id at Vidu.
        :param poll_interval: seconds (or timedelta) between polls, if the first one still shows it unfinished.
        :param max_failures: consecutive failed polls that are tolerated.
        :param endpoint: where it was submitted; only products with a query of their own (``one-click/mv``) need it.
        :raises ViduGenerationFailedError: when it failed.
        :raises ViduBusyError: when the service still reports it as unfinished.
        :raises ViduError: when polling cannot succeed any more.
        """
        generation_id = checked_id(generation_id)
        return watched(
            lambda: self.get_generation(generation_id, endpoint=endpoint, retries=0),
            self.log,
            generation_id=generation_id,
            conn_id=self.vidu_conn_id,
            timeout=REFETCH_PATIENCE_SECONDS,
            poll_interval=optional_seconds("poll_interval", poll_interval),
            max_failures=checked_count("max_failures", max_failures),
            end_reported=True,
        )

    ask_afresh = refetch
    """The former name of :meth:`refetch`."""

    def cancel_generation(self, generation_id: str, *, endpoint: str | None = None) -> Cancellation:
        """Cancel a generation; a refusal is returned, not raised.

        ``ent-v2`` cancels a job that has not started and refunds the credits; once the job runs, it answers
        "scheduled". Neither ``vidu-native`` nor the one-click products document a cancel.

        It is retried for at most a minute, even if the service requests longer delays: a task that was killed, or whose
        timeout has expired, waits for it.

        :param generation_id: the id at Vidu.
        :param endpoint: where it was submitted; only one-click products need it.
        :return: whether it was cancelled, and the service's reason.
        :raises ViduError: when the request failed.
        """
        generation_id = checked_id(generation_id)
        if not self.config.dialect.can_cancel(endpoint):
            return NO_CANCEL
        return self._client.carry(
            lambda dialect: dialect.cancel(generation_id, endpoint), generation_id, patience=CANCEL_PATIENCE_SECONDS
        )

    def get_credits(self) -> Credits:
        """Return the balance of the account (``ent-v2``).

        :raises ViduConfigError: when the connection's dialect has no balance.
        :raises ViduError: when the request failed.
        """
        return self._client.carry(lambda dialect: dialect.credits())

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
        :param created_to: the end of the period, in the same forms.
        :param states: the service's own words, such as ``success``; if omitted, every state.
        :param limit: the most generations to return; at most the first 5,000 are read.
        :raises ViduConfigError: when the connection's dialect has no list, or an argument is wrong.
        :raises ViduError: when the list could not be read.
        """
        listing = Listing(
            created_from=epoch_of("created_from", created_from),
            created_to=epoch_of("created_to", created_to),
            states=states,
            limit=checked_count("limit", limit),
        )
        return self._client.listed(listing)

    def find_generation(
        self,
        marker: str | None,
        *,
        created_from: datetime | str | float | None = None,
        created_to: datetime | str | float | None = None,
        like: Mapping[str, Any] | Likeness | None = None,
    ) -> SearchResult:
        """Search for the generation that one create submitted (``ent-v2``).

        If the list, or the query of a candidate, shows a payload, the marker decides. Otherwise the generation must be
        the only one that matches in model, prompt, images and time; several are returned as candidates.

        :param marker: the create's ``payload``; None if it had no marker.
        :param created_from: the earliest time at which it can have been created; if omitted, 7 days ago.
        :param created_to: the latest time at which it can have been created.
        :param like: the body of the create; if omitted, the marker alone decides.
        :return: its id or None; only with ``complete`` does None prove that there is none.
        :raises ViduError: when the list could not be read.
        """
        search = Search(
            marker,
            since=epoch_of("created_from", created_from),
            until=epoch_of("created_to", created_to),
            like=Likeness.of(like) if isinstance(like, Mapping) else like,
            now=time.time(),
        )
        return self._client.searched(search) if self.config.dialect.has_list else SearchResult()

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the connection works and one sentence about it, without the key; for the UI's test button."""
        try:
            wrong: ViduError | None = self._client.carry(lambda dialect: dialect.probe(), retries=0)
        except ViduError as error:
            wrong = error
        if wrong is not None:
            return False, problem(wrong, self._config)
        return True, success(self.config)

    async def aget_generation(
        self, generation_id: str, *, endpoint: str | None = None, retries: int | None = None
    ) -> Generation:
        """Return the state of a generation without blocking the event loop (see :meth:`get_generation`).

        All callers on one loop share a bounded HTTP session per connection.

        :param generation_id: the id at Vidu.
        :param endpoint: where it was submitted; only products with a query of their own (``one-click/mv``) need it.
        :param retries: how often a failed request is repeated; if omitted, the connection's ``max_retries``.
        :raises ViduError: for an error answer, or none.
        """
        from airflow_provider_vidu.api.clients.async_client import async_client

        async with async_client(self.vidu_conn_id) as client:
            return await client.get_generation(checked_id(generation_id), endpoint, retries)

    async def acancel_generation(self, generation_id: str, *, endpoint: str | None = None) -> Cancellation:
        """Cancel a generation with one request, without blocking the event loop (see :meth:`cancel_generation`).

        :param generation_id: the id at Vidu.
        :param endpoint: where it was submitted; only one-click products need it.
        :return: whether it was cancelled, and the service's reason.
        :raises ViduError: when the request failed.
        """
        from airflow_provider_vidu.api.clients.async_client import async_client

        async with async_client(self.vidu_conn_id) as client:
            return await client.cancel_generation(checked_id(generation_id), endpoint)

    def _upload(self, content: BinaryIO, size: int, content_type: str) -> str:
        """Upload a file to the service (``ent-v2``) at no cost; return its address for a request (``ssupload:?id=…``).

        :param content: the file, seekable; it is read from its beginning.
        :param size: its size in bytes; the service accepts up to 50 MB.
        :param content_type: its media type, such as ``image/png``.
        :raises ViduConfigError: when the connection's dialect has no upload service.
        :raises ViduError: when the upload failed.
        """
        return self._client.upload(content, size, content_type)
