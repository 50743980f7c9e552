"""Where secrets would be found: files of an Airflow that hold a key in some spelling, or a signature."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

# How every sandbox of this session signs; 32 bytes in base64 behind the prefix.
SIGNATURE = re.compile(r"v1~[A-Za-z0-9~-]{43}_")


def spellings(key: str) -> list[bytes]:
    """Return the ways in which a key may be written."""
    encoded = base64.b64encode(key.encode()).rstrip(b"=")
    return [key.encode(), quote(key, safe="").encode(), encoded, key.encode("utf-16-le"), key[8:].encode()]


def files(folder: Path) -> list[Path]:
    """Return every file beneath a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def files_with(folder: Path, wanted: Iterable[bytes]) -> list[str]:
    """Return the names of the files that hold one of these words."""
    words = list(wanted)
    found = [path for path in files(folder) if any(word in path.read_bytes() for word in words)]
    return [str(path.relative_to(folder)) for path in found]


def signatures(text: str) -> set[str]:
    """Return the signatures in a text."""
    return {*SIGNATURE.findall(text), *SIGNATURE.findall(unquote(text))}


def signed_files(folder: Path) -> dict[str, set[str]]:
    """Return the signatures in the files of an Airflow, its database apart, by file."""
    searched = [path for path in files(folder) if not path.name.startswith("airflow.db")]
    found = {str(path): signatures(path.read_bytes().decode("utf-8", "replace")) for path in searched}
    return {name: held for name, held in found.items() if held}
