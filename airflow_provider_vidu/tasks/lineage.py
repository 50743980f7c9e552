"""The facts about a stored file for other tools: an asset event's extra, and names for lineage. Decisions, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.url_parts import split_url
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.stores.schemes import canonical

PROMPT_CHARS: Final = 4000


def asset_uri(uri: str) -> str:
    """Return the URI of a stored object's asset, as ``Asset`` keeps it.

    Airflow drops everything after ``#`` and sorts everything after ``?``, so two objects could become one asset.
    Therefore both characters, and the escape character itself, are escaped in an object's name.
    """
    scheme, marked, rest = uri.partition("://")
    quoted = re.sub("[%#?]", lambda letter: quote(letter[0], safe=""), rest)
    # One name for an object, whatever the spelling of its scheme: Airflow's URI handlers accept only this one.
    return f"{canonical(scheme) or 'file'}://{quoted}" if marked else uri


def event_extra(record: Mapping[str, Any], generation: Generation | None, artifact: str) -> dict[str, Any]:
    """Return the extra of an asset event: a download's record, and the known facts about the generation; no signed URL.

    :param generation: as the service reports it; None if it was not (or could not be) fetched.
    """
    extra = {**record, "artifact": artifact}
    if generation is None:
        return extra
    known = {
        "prompt": generation.prompt and redacted(generation.prompt, PROMPT_CHARS),
        "enhanced_prompt": generation.enhanced_prompt and redacted(generation.enhanced_prompt, PROMPT_CHARS),
        "model": generation.model and redacted(generation.model),
    }
    return extra | {name: value for name, value in known.items() if value}


def object_name(uri: str) -> tuple[str, str]:
    """Return namespace and name of a stored object, as OpenLineage names the data sets of its store.

    A local file is ``("file", "/data/a.mp4")``, an object ``("s3://bucket", "clips/a.mp4")``.
    """
    scheme, _, rest = uri.partition("://")
    if not (scheme := canonical(scheme)):
        return "file", rest
    bucket, _, name = rest.partition("/")
    return f"{scheme}://{bucket}", name or "/"


def source_name(source: str) -> tuple[str, str]:
    """Return a URL's namespace and name, without user info and query: ``("https://cdn.example.com", "/v/a.mp4")``."""
    parts = split_url(source)
    return f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}", parts.path or "/"
