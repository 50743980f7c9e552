"""Write the tables of parameters in the manual from the docstrings; ``make tables`` calls it.

Pages are read on a forge, too, where the directives of Sphinx are not executed. So each page of a class has a table
between two marks. A test compares the tables with the docstrings.

    python scripts/parameters.py
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]

PAGES: Final = {
    "generate.md": "operators.ViduGenerateOperator",
    "batch.md": "operators.ViduBatchOperator",
    "download.md": "operators.ViduDownloadOperator",
    "sensor.md": "sensors.ViduGenerationSensor",
    "ecosystem.md": "event_triggers.ViduGenerationFinishedTrigger",
}
"""The class of each page with a table."""

BEGIN: Final = "<!-- parameters:begin -->"
END: Final = "<!-- parameters:end -->"

_PARAM = re.compile(r"^:param (\w+): (.*(?:\n[ \t]+.*)*)", re.MULTILINE)
_OF_AIRFLOW: Final = {"deferrable": "`[operators] default_deferrable`"}
"""Defaults that Airflow's configuration sets, so that the signature holds those of this machine."""


def described(kind: type) -> dict[str, str]:
    """Return the parameters of a class and what its docstring says about each, as Markdown in one line."""
    return {name: _markdown(text) for name, text in _PARAM.findall(inspect.getdoc(kind) or "")}


def _markdown(text: str) -> str:
    line = re.sub(r"``(.+?)``", r"`\1`", " ".join(text.split()))
    line = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", line)
    line = re.sub(r" *(?:\(templated\)|Templated(?:; may be mapped)?\.)$", "", line).replace("|", r"\|")
    return line[:1].upper() + line[1:] if re.match(r"[a-z]+\b[^_`]", line) else line


def table(kind: type) -> str:
    """Return the table of a class's parameters: name, default, meaning.

    :raises KeyError: if the docstring does not describe a parameter.
    """
    texts, templated = described(kind), getattr(kind, "template_fields", ())
    rows = ["| parameter | default | meaning |", "|---|---|---|"]
    for name, parameter in inspect.signature(inspect.unwrap(kind.__init__)).parameters.items():  # type: ignore[misc]
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD:
            mark = " *Templated.*" if name in templated else ""
            rows.append(f"| `{name}` | {_default(name, parameter.default)} | {texts[name]}{mark} |")
    return "\n".join(rows)


def _default(name: str, value: object) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    return _OF_AIRFLOW.get(name, f"`{value!r}`".replace("'", '"'))


def rendered(page: Path) -> str:
    """Return the text of a page with its table renewed."""
    module, _, name = PAGES[page.name].rpartition(".")
    kind = getattr(importlib.import_module(f"airflow_provider_vidu.{module}"), name)
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"{page} has no {BEGIN} … {END}"
    return f"{before}{BEGIN}\n{table(kind)}\n{END}{after}"


def main() -> int:
    """Renew every table; return 0."""
    for name in PAGES:
        page = ROOT / "docs" / name
        page.write_text(rendered(page), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
