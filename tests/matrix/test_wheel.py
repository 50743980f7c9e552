"""What the wheel brings, and what it says of itself."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution

DIST = distribution("airflow-provider-vidu")


def test_it_holds_the_package_alone() -> None:
    """Code, types, static files and licence; no tests, no scripts, no caches."""
    names = {str(path) for path in DIST.files or [] if "__pycache__" not in str(path)}
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"airflow_provider_vidu"}
    assert {
        "airflow_provider_vidu/py.typed",
        "airflow_provider_vidu/ui/static/clip.js",
        "airflow_provider_vidu/sandbox/__main__.py",
    } <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_its_metadata() -> None:
    """Licence, Python, a Markdown long description, and the two entry points that Airflow looks for."""
    told = DIST.metadata
    assert (told["License-Expression"], told["Requires-Python"]) == ("Apache-2.0", ">=3.11")
    assert told["Description-Content-Type"] == "text/markdown"
    assert "ViduGenerationSensor" in (told.get_payload() or told["Description"])
    assert {(point.group, point.name) for point in DIST.entry_points} == {
        ("apache_airflow_provider", "provider_info"),
        ("airflow.plugins", "vidu"),
    }


def test_extras_bring_what_they_say() -> None:
    """A storage extra is one provider, and without extras there is no storage provider at all."""
    wanted: dict[str, set[str]] = {}
    for line in DIST.requires or []:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        assert name is not None
        wanted.setdefault(extra[1] if extra else "", set()).add(name[0])
    assert wanted["s3"] == {"apache-airflow-providers-amazon"}
    assert wanted["gcs"] == {"apache-airflow-providers-google"}
    assert wanted["azure"] == {"apache-airflow-providers-microsoft-azure", "adlfs"}
    assert wanted["openlineage"] == {"apache-airflow-providers-openlineage"}
    assert wanted[""] == {
        "apache-airflow", "apache-airflow-providers-common-compat",
        "aiohttp", "certifi", "multidict", "pydantic", "requests", "urllib3", "wtforms", "yarl",
    }  # fmt: skip


def test_the_sandbox_starts_from_it() -> None:
    """`python -m airflow_provider_vidu.sandbox` is there after an install."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow_provider_vidu.sandbox", "--help"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--port" in done.stdout
