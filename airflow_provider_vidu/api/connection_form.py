"""The connection form, defined once for every Airflow version.

Airflow ≥ 3.2 reads it from the provider's metadata (``conn-fields``, ``ui-field-behaviour``), older
versions from two methods of the hook. Both are made from what stands here.
"""

from __future__ import annotations

from typing import Any, Final

CONNECTION_TYPE: Final = "vidu"
HOOK_NAME: Final = "Vidu (AI video)"

_TEXT: Final = {"type": ["string", "null"]}

CONN_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "dialect": {
        "label": "Dialect",
        "description": "vidu-native for gateways; ent-v2 for the official API and its resellers. The official API has "
        "two platforms with separate keys: https://api.vidu.com (global) and https://api.vidu.cn (China).",
        "schema": {**_TEXT, "enum": ["vidu-native", "ent-v2"], "default": "vidu-native"},
    },
    "auth_scheme": {
        "label": "Authorization scheme",
        "description": "The word before the key, or none where the gateway wants the key alone. Empty: Bearer for "
        "vidu-native, Token for ent-v2.",
        "schema": _TEXT,
    },
    "timeout": {
        "label": "Time-out (seconds)",
        "description": "Seconds to connect, and seconds of silence that are tolerated. Empty: 30.",
        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 3600},
    },
    "max_retries": {
        "label": "Retries of a request",
        "description": "How often a failed request is repeated; a create only when it surely was not carried out. "
        "Empty: 5.",
        "schema": {"type": ["integer", "null"], "minimum": 0, "maximum": 100},
    },
    "verify": {
        "label": "Verify TLS",
        "description": "true, false, or the path of a CA bundle on the workers. Empty: true.",
        "schema": _TEXT,
    },
    "proxy": {
        "label": "Proxy",
        "description": "URL of an HTTP proxy, such as http://proxy.example.com:3128.",
        # Hidden, because it may hold a password.
        "schema": {**_TEXT, "format": "password"},
    },
    "headers": {
        "label": "Further headers",
        "description": 'JSON object of headers sent with every API request, such as {"X-Team": "media"}.',
        "schema": {**_TEXT, "format": "password"},
    },
    "max_in_flight": {
        "label": "Generations in flight",
        "description": "How many generations may run at once; further tasks wait for a free slot. Empty: as many as "
        "the account accepts.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 100000},
    },
    "min_balance": {
        "label": "Least balance (credits)",
        "description": "With ent-v2: nothing is submitted while the account has fewer credits. Empty: no floor.",
        "schema": {"type": ["number", "null"], "minimum": 0},
    },
    "query_path": {
        "label": "Query path",
        "description": "For resellers: path of a query with {id}, such as /vidu/ent/v2/task/{id}/creations or "
        "/v1/video/query?id={id}.",
        "schema": _TEXT,
    },
    "create_path": {
        "label": "Create path",
        "description": "For resellers: path of a create, with {endpoint} where there are several.",
        "schema": _TEXT,
    },
    "allowed_hosts": {
        "label": "Allowed download hosts",
        "description": "Hosts or networks (198.18.0.0/15) that files may be fetched from although their address is "
        "private, comma separated.",
        "schema": _TEXT,
    },
}

UI_FIELD_BEHAVIOUR: Final[dict[str, Any]] = {
    "hidden-fields": ["login", "schema", "port", "extra"],
    "relabeling": {"host": "Host (base URL)", "password": "API key"},
    "placeholders": {
        "host": "https://gateway.example.com/prefix (empty with ent-v2: https://api.vidu.com; China: https://api.vidu.cn)",
        "password": "the key of your account",
    },
}


def ui_field_behaviour() -> dict[str, Any]:
    """Return the behaviour as ``get_ui_field_behaviour`` of Airflow < 3.2 wants it."""
    return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}


def form_widgets() -> dict[str, Any]:
    """Return the extras as WTForms fields for ``get_connection_form_widgets`` of Airflow < 3.2.

    Airflow 2 draws its form with them. Airflow 3.0 and 3.1 put classes of their own in the place of WTForms' and ask
    those; 3.0 does so only where WTForms is installed, which it does not do itself, so this provider does.
    """
    from wtforms import PasswordField, StringField
    from wtforms.validators import Optional, any_of

    label, text_widget, password_widget = _looks()

    def field(spec: dict[str, Any]) -> Any:
        schema = spec["schema"]
        secret = schema.get("format") == "password"
        kind, widget = (PasswordField, password_widget()) if secret else (StringField, text_widget())
        choice = [Optional(), any_of(schema["enum"])] if "enum" in schema else []
        return kind(
            label(spec["label"]),
            validators=choice,
            description=spec["description"],
            default=schema.get("default"),
            widget=widget,
        )

    return {name: field(spec) for name, spec in CONN_FIELDS.items()}


def _looks() -> tuple[Any, Any, Any]:
    """Return what translates a label, and the widgets of a text and of a password."""
    try:
        from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
        from flask_babel import lazy_gettext
    except ModuleNotFoundError:  # Airflow 3.0 without the FAB provider: its form knows no widgets
        from wtforms.widgets import PasswordInput, TextInput

        return str, TextInput, PasswordInput
    return lazy_gettext, BS3TextFieldWidget, BS3PasswordFieldWidget
