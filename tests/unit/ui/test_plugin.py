"""The plugin: every process of Airflow imports it, on every version, so it must be light and never fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from threading import Barrier

import pytest
from airflow import plugins_manager

from airflow_provider_vidu.get_provider_info import get_provider_info
from airflow_provider_vidu.links import has_pages
from airflow_provider_vidu.ui import plugin

ROOT = Path(__file__).parents[3]
HEAVY = ("fastapi", "starlette", "aiohttp", "requests", "uvicorn", "fsspec", "sqlalchemy")


def fresh(code: str, home: Path) -> object:
    """Run code in a new interpreter after ``plugin`` is imported; return what it prints last, decoded."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env |= {"AIRFLOW_HOME": str(home), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=home, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.processes
def test_importing_it_loads_no_server(tmp_path):
    """What Airflow has not loaded already stays unloaded: no web framework, no client, no database layer."""
    code = (
        "import sys, json\nimport airflow.plugins_manager\n"
        "from airflow.providers.common.compat import sdk, version_compat\n"
        "sdk.conf, sdk.XCom, sdk.BaseOperatorLink\nbefore = set(sys.modules)\n"
        "import airflow_provider_vidu.ui.plugin\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    )
    more = fresh(code, tmp_path)
    assert "airflow_provider_vidu.ui.plugin" in more
    assert not [
        name for name in more if name.partition(".")[0] in HEAVY or name.startswith("airflow_provider_vidu.ui.a")
    ]


REGISTERED = """
import json, sys
from airflow.providers.common.compat import version_compat

found = {}
for version in ((3, 1, 1), (3, 1, 0), (2, 11, 0)):
    version_compat.get_base_airflow_version_tuple = lambda: version
    for name in [name for name in sys.modules if name.startswith("airflow_provider_vidu")]:
        del sys.modules[name]
    from airflow_provider_vidu.ui.plugin import ViduPlugin
    # Airflow's own class has them since 3.0 and 3.1.
    apps, views = (getattr(ViduPlugin, name, []) for name in ("fastapi_apps", "external_views"))
    found[str(version)] = [[app["url_prefix"] for app in apps], [view["destination"] for view in views]]
print(json.dumps(found))
"""


@pytest.mark.processes
def test_what_it_registers(tmp_path):
    """On Airflow 3.1.1 and later one app, one tab and one page; before that nothing at all."""
    assert fresh(REGISTERED, tmp_path) == {
        "(3, 1, 1)": [["/vidu"], ["dag_run", "nav"]],
        "(3, 1, 0)": [[], []],
        "(2, 11, 0)": [[], []],
    }


@pytest.mark.processes
def test_the_tab_and_the_page_can_be_switched_off(tmp_path):
    """A deployment with few clips among many DAGs need not have them on every run and in everybody's navigation."""
    code = (
        "import json, os\nfrom airflow_provider_vidu.ui.plugin import _views\nfound = [_views()]\n"
        "os.environ['AIRFLOW__VIDU__RUN_TAB'] = 'False'\nfound.append(_views())\n"
        "os.environ['AIRFLOW__VIDU__SPENDING_PAGE'] = 'False'\nprint(json.dumps([*found, _views()]))"
    )
    (tab, page), without_tab, without_both = fresh(code, tmp_path)
    assert without_tab == [page]
    assert without_both == []
    assert page["destination"] == "nav"
    # Completed by the UI with the path of the deployment.
    assert not tab["href"].startswith(("/", "http"))
    assert "{DAG_ID}" in tab["href"]


def test_airflow_finds_it(monkeypatch):
    """The entry point leads to a class that Airflow takes for a plugin."""
    # Before 3.2 it compares with those it has loaded before.
    monkeypatch.setattr(plugins_manager, "plugins", [], raising=False)
    (found,) = [point for point in entry_points(group="airflow.plugins") if point.name == "vidu"]
    assert found.load() is plugin.ViduPlugin
    assert plugins_manager.is_valid_plugin(plugin.ViduPlugin)


def test_it_is_registered_once():
    """The metadata do not name it as well: Airflow would report the second one as an import error."""
    assert "plugins" not in get_provider_info()


@pytest.mark.skipif(not has_pages(), reason="this Airflow cannot have the pages")
def test_the_app_is_built_once(mocker):
    """Requests that come first at the same time build one application among them."""
    gate = Barrier(6, timeout=30)
    make = mocker.patch("airflow_provider_vidu.ui.app.make_app", side_effect=object)
    late = plugin.LateApp()

    def first_request() -> object:
        gate.wait()
        return late._real()

    with ThreadPoolExecutor(6) as pool:
        built = list(pool.map(lambda _: first_request(), range(6)))
    assert make.call_count == 1
    assert len(set(map(id, built))) == 1


def test_the_static_files_are_part_of_the_package():
    """Scripts and styles lie beside the code, so the wheel brings them."""
    static = files("airflow_provider_vidu.ui") / "static"
    names = {entry.name for entry in static.iterdir()}
    assert {
        "vidu.css",
        "theme.js",
        "common.js",
        "clip.js",
        "slot.js",
        "sheet.js",
        "spending.js",
        "refusal.js",
        "icon.svg",
    } <= names
    for name in names:
        text = (static / name).read_text("utf-8")
        assert "innerHTML" not in text
        assert not [word for word in ("http://", "https://") if word in text.replace("http://www.w3.org/2000/svg", "")]
