"""``vidu-native``: the dialect of the gateways (new-api/one-api derivatives).

A dialect makes the requests; answers are read by their shape (``answers``), the same way in all dialects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.calls import Call
from airflow_provider_vidu.api.dialects.base import Dialect
from airflow_provider_vidu.api.dialects.errors import GATEWAY, is_error
from airflow_provider_vidu.api.dialects.levels import state_word
from airflow_provider_vidu.api.messages import ApiAnswer
from airflow_provider_vidu.exceptions import ViduAPIError, ViduNotFoundError, ViduRequestError, ViduResponseError

PROBE_ID: Final = "airflow-connection-test"


class ViduNative(Dialect):
    """``GET /vidu-native/video/generations/{task_id}`` with ``Authorization: Bearer KEY``."""

    name: ClassVar[str] = "vidu-native"
    auth_scheme: ClassVar[str] = "Bearer"
    root: ClassVar[str] = "/vidu-native"
    default_query_path: ClassVar[str] = "/vidu-native/video/generations/{id}"
    default_create_path: ClassVar[str] = "/vidu-native/video/generations"

    def _target(self, body: Mapping[str, Any], endpoint: str | None) -> str:
        """Return the path of a create; the gateways have one endpoint, so any other must be given as a path."""
        if endpoint is not None and not endpoint.startswith("/"):
            raise exceptions.ViduConfigError(
                "The vidu-native dialect has a single create endpoint: omit endpoint, or set it to a path such as "
                f"/vidu-native/video/generations (got {endpoint!r})."
            )
        return endpoint or self.create_path

    def probe(self) -> Call[ViduAPIError | ViduResponseError | None]:
        """Query an id that no gateway has: only a gateway that accepts the key answers "not found"."""
        return Call(self.query(PROBE_ID).request, self.probe_verdict)

    def _is_expected(self, answer: ApiAnswer, payload: Mapping[str, Any]) -> bool:
        """Whether the answer is "no such task" (400 or 404), which means that host and key are right."""
        if answer.ok and (state_word(payload) or not is_error(payload)):
            return bool({"id", "status", "data"} & payload.keys())
        error = self.error(answer)
        if isinstance(error, ViduNotFoundError) and (error.code or "").lower() in GATEWAY:
            return True
        # Task endpoints answer {"code": "<string>", "message": …}; other paths do not.
        is_of_a_task = isinstance(payload.get("code"), str) and isinstance(payload.get("message"), str)
        return is_of_a_task and isinstance(error, (ViduNotFoundError, ViduRequestError))
