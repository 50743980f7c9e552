"""The connection form, defined once for every Airflow version.

Airflow ≥ 3.2 reads it from the provider's metadata (``conn-fields``, ``ui-field-behaviour``), older versions from two
methods of the hook.
"""

from __future__ import annotations

from typing import Any, Final

CONNECTION_TYPE: Final = "vidu"
HOOK_NAME: Final = "Vidu (AI video)"


def _field(label: str, description: str, kind: str = "string", **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **schema}}


CONN_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "dialect": _field(
        "Dialect",
        "ent-v2 for the official API and its resellers, vidu-native for gateways. The official API has two platforms "
        "with separate keys: https://api.vidu.com (global) and https://api.vidu.cn (China). Empty: ent-v2 for these "
        "two hosts, vidu-native for any other.",
        enum=["vidu-native", "ent-v2"],
        # Airflow 3 shows a section's title without a click, and the fields without a section below it.
        section="Dialect: ent-v2 (api.vidu.com, api.vidu.cn) or vidu-native (gateways)",
    ),
    "auth_scheme": _field(
        "Authorization scheme",
        "The scheme before the key, or none to send the key without one. Empty: Bearer for vidu-native, Token "
        "for ent-v2.",
    ),
    "timeout": _field(
        "Timeout (seconds)",
        "Seconds to connect, and seconds without a byte, before a request fails. Empty: 30.",
        "number",
        minimum=1,
        maximum=3600,
    ),
    "max_retries": _field(
        "Retries of a request",
        "How often a failed request is retried; a create only if it was certainly not carried out. Empty: 5.",
        "integer",
        minimum=0,
        maximum=100,
    ),
    "verify": _field(
        "Verify TLS",
        "true, false, or the path of a CA bundle on the workers. Empty: true.",
        # Proposals, not an enum: Airflow 3 lists them in the field, which still accepts a path.
        examples=["true", "false", "/etc/ssl/certs/ca-certificates.crt"],
    ),
    # Not "proxy": Airflow shows *** for each extra whose name contains that word (its DEFAULT_SENSITIVE_FIELDS).
    "via": _field(
        "Proxy",
        "URL of an HTTP proxy, such as http://user@proxy.example.com:3128; enter its password below. Empty: the extra "
        "proxy, if it is set, or the environment's proxy.",
    ),
    "proxy_password": _field(
        "Proxy password", "The password of the user in the proxy's URL, not percent-encoded.", format="password"
    ),
    "headers": _field(
        "Further headers",
        'JSON object of headers sent with every API request, such as {"X-Team": "media"}.',
        format="password",
    ),
    "max_in_flight": _field(
        "Generations in flight",
        "How many generations may run at once; further tasks wait for a free slot. Empty: as many as the account "
        "accepts.",
        "integer",
        minimum=1,
        maximum=100_000,
    ),
    "min_balance": _field(
        "Least balance (credits)",
        "With ent-v2: nothing is submitted while the account has fewer credits. Empty: no floor.",
        "number",
        minimum=0,
    ),
    "query_path": _field(
        "Query path",
        "For resellers: path of a query, with {id}, such as /vidu/ent/v2/task/{id}/creations or "
        "/v1/video/query?id={id}.",
    ),
    "create_path": _field("Create path", "For resellers: path of a create, with {endpoint} if there are several."),
    "allowed_hosts": _field(
        "Allowed download hosts",
        "Hosts or networks (198.18.0.0/15) that files may be fetched from although their addresses are "
        "private, separated by commas.",
    ),
}

EXTRAS: Final = frozenset({*CONN_FIELDS, "proxy"})
"""Every extra that is read. ``proxy`` is ``via`` for connections that are written without the form."""

UI_FIELD_BEHAVIOUR: Final[dict[str, Any]] = {
    # The port is shown: Airflow 3.3.2 tests a stored connection without one as if its port were 0, and refuses that as
    # another destination (_same_endpoint in its core_api/routes/public/connections.py).
    "hidden-fields": ["login", "schema", "extra"],
    "relabeling": {"host": "Host (base URL)", "password": "API key"},
    "placeholders": {
        "host": "https://api.vidu.com, https://api.vidu.cn (China) or your gateway",
        "password": "the key of your account",
        "port": "443 (Airflow's Test button needs a port)",
    },
}


def ui_field_behaviour() -> dict[str, Any]:
    """Return the behaviour in the form of ``get_ui_field_behaviour`` of Airflow < 3.2."""
    return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}


def form_widgets() -> dict[str, Any]:
    """Return the extras as WTForms fields for ``get_connection_form_widgets`` of Airflow < 3.2.

    Airflow 2 draws its form with them. Airflow 3.0 and 3.1 replace WTForms' classes by their own; 3.0 does so only if
    WTForms is installed, which it does not require, so this provider does.
    """
    from wtforms import PasswordField, StringField
    from wtforms.validators import Optional, any_of

    label, text_widget, password_widget = _label_and_widgets()

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


def _label_and_widgets() -> tuple[Any, Any, Any]:
    """Return the function that translates a label, and the widgets of a text and of a password."""
    try:
        from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
        from flask_babel import lazy_gettext
    except ModuleNotFoundError:  # Airflow 3.0 without the FAB provider, whose form has no widgets
        from wtforms.widgets import PasswordInput, TextInput

        return str, TextInput, PasswordInput
    return lazy_gettext, BS3TextFieldWidget, BS3PasswordFieldWidget
