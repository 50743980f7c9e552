"""Waiting: thousands of generations on one trigger runner, over TLS, beside two providers and bare aiohttp."""

from __future__ import annotations

import json
import os
import pstats
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Final

from cryptography.fernet import Fernet

from benchmarks import harness
from benchmarks.harness import KIB, Bar, at_least, at_most, table

TITLE: Final = "Waiting"
INTERVAL: Final = 10.0
CROWD: Final = 5000
OURS, LOOK, HTTP, DBT, BARE, IDLE = (
    "ViduGenerationTrigger",
    "ViduGenerationTrigger, ent-v2",
    "HttpSensorTrigger",
    "DbtCloudRunJobTrigger",
    "bare aiohttp",
    "idle",
)
KEY: Final = "bench-key-0123456789"

RUNS: Final = (
    (1000, (OURS, LOOK, HTTP, DBT, BARE, IDLE)),
    (CROWD, (OURS, LOOK, HTTP, DBT, BARE, IDLE)),
    (10_000, (OURS, LOOK, BARE, IDLE)),
    (20_000, (LOOK, IDLE)),
)
"""Jobs, and who runs with them. At 10,000 the peers need more than the core they have, at 20,000 single polls do."""

TRIGGERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    OURS: (
        "airflow_provider_vidu.triggers.ViduGenerationTrigger",
        {"generation_id": "830674162707{number}", "vidu_conn_id": "bench_vidu", "poll_interval": INTERVAL},
    ),
    LOOK: (
        "airflow_provider_vidu.triggers.ViduGenerationTrigger",
        {"generation_id": "830674162707{number}", "vidu_conn_id": "bench_ent", "poll_interval": INTERVAL},
    ),
    HTTP: (
        "airflow.providers.http.triggers.http.HttpSensorTrigger",
        {"endpoint": "absent/{number}", "http_conn_id": "bench_http", "poke_interval": INTERVAL},
    ),
    DBT: (
        "airflow.providers.dbt.cloud.triggers.dbt.DbtCloudRunJobTrigger",
        {
            "run_id": "{number}",
            "account_id": 1,
            "conn_id": "bench_dbt",
            "end_time": 4e9,
            "poll_interval": INTERVAL,
        },
    ),
    IDLE: ("benchmarks.triggerer.IdleTrigger", {"interval": INTERVAL, "job": "{number}"}),
}


def measure(quick: bool) -> dict[str, Any]:
    """Measure every contestant at every size, one after the other, each in processes of its own."""
    folder = harness.RESULTS / "waiting"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    runs = []
    for jobs, contestants in RUNS[1:2] if quick else RUNS:
        for name in _asked_for(contestants):
            print(f"  {name}, {jobs} jobs", flush=True)
            runs.append({"name": name, **_run(name, jobs, 20.0 if quick else 60.0 if jobs == CROWD else 40.0)})
            print("   ", _in_short(runs[-1]), flush=True)
    profile = [] if quick or OURS not in _asked_for((OURS,)) else _profiled()
    return {
        "interval": INTERVAL,
        "runs": runs,
        "profile": profile,
        "versions": harness.versions(
            "apache-airflow",
            "airflow-provider-vidu",
            "apache-airflow-providers-http",
            "apache-airflow-providers-dbt-cloud",
            "aiohttp",
        ),
    }


def _asked_for(contestants: tuple[str, ...]) -> list[str]:
    """Return the contestants; ``BENCH_CONTESTANTS=idle,bare`` leaves only those that begin so (for development)."""
    chosen = [word.strip().lower() for word in os.environ.get("BENCH_CONTESTANTS", "").split(",") if word.strip()]
    return [name for name in contestants if not chosen or any(name.lower().startswith(word) for word in chosen)]


def _profiled() -> list[tuple[str, float]]:
    """Return where the runner's CPU time goes with our triggers: who wrote the code, and which part of the whole.

    A run of its own, because a profiler slows what it watches; it feeds no other figure.
    """
    print("  profile", flush=True)
    os.environ["BENCH_PROFILE"] = str(4 + 2 + 25 + 3)
    try:
        _run(OURS, CROWD, 16.0)
    finally:
        del os.environ["BENCH_PROFILE"]
    return _by_author(harness.RESULTS / "waiting" / f"{OURS}-{CROWD}.prof")


AUTHORS: Final = (
    ("/airflow_provider_vidu/", "this provider"),
    ("/pydantic", "this provider"),
    ("/json/", "this provider"),
    ("/aiohttp/", "aiohttp and its libraries"),
    ("/yarl/", "aiohttp and its libraries"),
    ("/multidict/", "aiohttp and its libraries"),
    ("/asyncio/", "asyncio and TLS"),
    ("/ssl.py", "asyncio and TLS"),
    ("/selectors.py", "asyncio and TLS"),
    ("/benchmarks/", "the lag meter"),
    ("/airflow/", "Airflow's runner"),
    ("/greenback/", "Airflow's runner"),
    ("/outcome/", "Airflow's runner"),
)


def _by_author(path: Path) -> list[tuple[str, float]]:
    """Return each author's part of a profile's time; what is written in C counts for who calls it."""
    spent: Counter[str] = Counter()
    for (file, _, name), (_, _, own, _, callers) in pstats.Stats(str(path)).stats.items():  # type: ignore[attr-defined]
        if "select.epoll" in name:
            continue  # waiting is no work
        if file != "~":
            spent[_author(file)] += own
            continue
        for (caller, _, _), (_, _, of_it, _) in callers.items():
            spent[_author(caller)] += of_it
    whole = sum(spent.values())
    return [(author, seconds / whole) for author, seconds in spent.most_common()]


def _author(file: str) -> str:
    return next((author for part, author in AUTHORS if part in file.replace("\\", "/")), "the rest of Python")


def _run(name: str, jobs: int, window: float) -> dict[str, Any]:
    folder = harness.RESULTS / "waiting"
    stem = f"{name.replace(' ', '-')}-{jobs}"
    log = folder / f"{stem}.log"
    with harness.serving(["benchmarks.poll_server", str(folder)], log=folder / f"{stem}.server.log") as (_, ready):
        port = ready["port"]
        spec: dict[str, Any] = {
            "jobs": jobs,
            "server": f"https://localhost:{port}",
            "settle": 4.0,
            # Our first polls come 10 to 20 s after the start; by then every trigger must have been created.
            "ramp": 25.0 if jobs <= CROWD else 35.0 if jobs <= 2 * CROWD else 60.0,
            "window": window,
            "interval": INTERVAL,
            "headers": {"Authorization": f"Bearer {KEY}", "Accept": "application/json"},
            "lag_file": str(folder / f"{stem}.lag"),
            "connections": _connections(port),
        }
        module = "benchmarks.bare"
        if name != BARE:
            module = "benchmarks.triggerer"
            spec["classpath"], spec["arguments"] = TRIGGERS[name]
        path = folder / f"{stem}.json"
        path.write_text(json.dumps(spec), "utf-8")
        environment = {
            # Whatever the machine sets: the service's own authority is the only one trusted, by everybody.
            **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), str(folder / "ca.pem")),
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONASYNCIODEBUG": "",
        }
        found = harness.run_child([module, str(path)], environment=environment, log=log)
    found["busiest"] = _busiest(found["steady"].pop("bins"), found["steady"]["now"])
    found["ramp"].pop("bins")
    return found


def _connections(port: int) -> dict[str, dict[str, Any]]:
    return {
        "bench_vidu": {"conn_type": "vidu", "host": f"https://localhost:{port}", "password": KEY},
        "bench_ent": {
            "conn_type": "vidu",
            "host": f"https://localhost:{port}",
            "password": KEY,
            "extra": json.dumps({"dialect": "ent-v2"}),
        },
        "bench_http": {
            "conn_type": "http",
            "host": f"https://localhost:{port}",
            "extra": json.dumps({"Authorization": f"Bearer {KEY}"}),
        },
        "bench_dbt": {"conn_type": "dbt_cloud", "host": f"localhost:{port}", "password": KEY},
    }


def _busiest(bins: list[list[int]], now: float) -> dict[str, float]:
    """Return the polls in the busiest 100 ms (at any offset of 10 ms) against the mean of all 100 ms."""
    if not bins:
        return {"most": 0, "mean": 0.0, "ratio": 0.0}
    counts = Counter(dict(bins))
    first, last = bins[0][0], bins[-1][0]
    running = most = 0
    for at in range(first, last + 1):
        running += counts[at] - counts[at - 10]
        most = max(most, running)
    mean = sum(counts.values()) / max((last - first + 1) / 10, 1)
    return {"most": most, "mean": mean, "ratio": most / mean}


# -- reading a run ----------------------------------------------------------------------------------


def _polls_per_cpu_second(run: dict[str, Any]) -> float:
    return run["steady"]["polls"] / run["window"]["cpu_seconds"] if run["window"]["cpu_seconds"] else 0.0


def _fresh_connections(run: dict[str, Any]) -> float:
    return 1000 * run["steady"]["opened"] / run["steady"]["polls"] if run["steady"]["polls"] else 0.0


def _in_short(run: dict[str, Any]) -> str:
    return (
        f"{100 * run['window']['core_share']:.1f} % of a core, {run['steady']['polls']} polls in "
        f"{run['steady']['requests']} requests, "
        f"{_polls_per_cpu_second(run):.0f} per CPU-second, {run['memory_per_job']['rss'] / KIB:.1f} KiB per job, "
        f"lag {run['lag'].get('worst', 0):.0f} ms, p99 {run['lag'].get('p99', 0):.1f}, "
        f"{run['lag'].get('worst_without', 0):.0f} without "
        f"{run['lag'].get('collections', 0)} collections (ramp {run['lag_ramp'].get('worst', 0):.0f}), "
        f"{_fresh_connections(run):.1f} connections per 1,000 polls, busiest {run['busiest']['ratio']:.1f} x, "
        f"{run['running']} running, {run['failed']} failed, server {100 * run['server_share']:.0f} %"
    )


def _find(result: dict[str, Any], name: str, jobs: int) -> dict[str, Any] | None:
    return next((run for run in result["runs"] if run["name"] == name and run["jobs"] == jobs), None)


def bars(result: dict[str, Any]) -> list[Bar]:
    """Return what issue 5 asks of waiting, at 5,000 jobs."""
    ours = _find(result, OURS, CROWD)
    if ours is None:
        return []
    share = ours["window"]["core_share"]
    peers = [run for name in (HTTP, DBT) if (run := _find(result, name, CROWD))]
    # For the same work: a peer that has used up its core polls less often than it should.
    by_peer = [_polls_per_cpu_second(run) / _polls_per_cpu_second(ours) for run in peers]
    by_core = [share / run["window"]["core_share"] for run in peers]
    bare = _find(result, BARE, CROWD)
    few = _find(result, OURS, 1000)
    looked_up = [sum(run["lookups"].values()) for run in (few, ours) if run]
    return [
        at_most(
            "at 5,000, at most 0.3 × the CPU of either peer for the same polls",
            max(by_peer, default=None),
            0.3,
            "{:.2f} ×" + (f" ({max(by_core):.2f} × the core's share, of peers that miss polls)" if by_core else ""),
        ),
        at_most("at 5,000, at most 20 % of one core", 100 * share, 20, "{:.1f} %"),
        at_most("at 5,000, worst loop lag below 50 ms", ours["lag"].get("worst"), 50, "{:.0f} ms"),
        at_most("at 5,000, at most 22 KiB per job", ours["memory_per_job"]["rss"] / KIB, 22, "{:.1f} KiB"),
        at_least(
            "at least 80 % of bare aiohttp's polls per CPU-second",
            100 * _polls_per_cpu_second(ours) / _polls_per_cpu_second(bare) if bare else None,
            80,
            "{:.0f} %",
        ),
        at_most("about 0 new connections per 1,000 polls", _fresh_connections(ours), 1, "{:.2f}"),
        at_most("open sockets within the pool's limit (32)", ours["steady"]["most_open"], 32, "{:.0f}"),
        Bar(
            "connection look-ups independent of the number of triggers",
            " and ".join(map(str, looked_up)) + (" at 1,000 and 5,000" if few else " at 5,000"),
            max(looked_up) <= 2,
        ),
        at_most("busiest 100 ms at most 3 × the mean", ours["busiest"]["ratio"], 3, "{:.2f} ×"),
        *_bars_of_looks(_find(result, LOOK, CROWD), ours, _find(result, IDLE, CROWD)),
    ]


def _bars_of_looks(look: dict[str, Any] | None, ours: dict[str, Any], idle: dict[str, Any] | None) -> list[Bar]:
    """Return what issue 22 asks of one request for many waits, at 5,000 jobs."""
    if look is None:
        return []
    whole = look["window"]["core_share"]
    own = None if idle is None else whole - idle["window"]["core_share"]
    singly = None if idle is None else ours["window"]["core_share"] - idle["window"]["core_share"]
    polls = look["steady"]["polls"]
    return [
        at_most(
            "together: requests at most 1/50 of the polls", 50 * look["steady"]["requests"] / polls, 1, "{:.2f}/50"
        ),
        at_most(
            "together: at most 0.12 × the CPU of single polls, beside idle triggers'",
            None if own is None or not singly else own / singly,
            0.12,
            f"{{:.2f}} × ({whole / ours['window']['core_share']:.2f} × with it)",
        ),
        at_most(
            "together: at most 6 % of one core beside idle triggers'",
            None if own is None else 100 * own,
            6,
            f"{{:.1f}} % ({100 * whole:.1f} % with it)",
        ),
        at_most("together: loop lag, 99 %, at most 15 ms", look["lag"].get("p99"), 15, "{:.1f} ms"),
        at_most("together: at most 18 KiB per job", look["memory_per_job"]["rss"] / KIB, 18, "{:.1f} KiB"),
    ]


METHOD: Final = """\
**Method.** Airflow's own `TriggerRunner` in the process that Airflow's own `TriggerRunnerSupervisor` forks
(`benchmarks/triggerer.py`; only its queries of the metadata database are replaced), the same for every contestant. All
triggers come in one message, as after 5,000 tasks have deferred, each with its own encrypted arguments and task
instance; connection look-ups go over the supervisor's socket and are counted there. A service in a process of its own
(`benchmarks/poll_server.py`, HTTPS with keep-alive on loopback, verified certificate) answers each poll with "not
yet": to `HttpSensorTrigger` as the 404 that it waits on, to `DbtCloudRunJobTrigger` as dbt Cloud's API does, to this
provider's trigger with the dialect `ent-v2` for up to 100 generations in one answer, which counts as so many polls.
Poll interval 10 s for all; the peers' other settings are their defaults. *Bare
aiohttp* is one session on one loop without Airflow: sleep, GET, JSON. *Idle* is a trigger that only sleeps: the cost
of that many triggers to Airflow itself, which every other row except bare aiohttp's includes.

CPU is user and system time of the runner's process alone, over the window after the ramp-up; memory per job is its
RSS at the end of the window less its RSS before the first trigger, divided by the jobs (so it holds the import of
the HTTP client as well). Loop lag is how late a task that wants to run every 10 ms gets its turn. Connections, open
sockets and the busiest 100 ms are the server's record. The ramp-up (25 s: creating the triggers and their first polls)
is reported separately, because its worst moment is Airflow decoding one message with all triggers."""


def section(result: dict[str, Any]) -> str:
    """Return the tables and the method."""
    parts = [METHOD]
    for jobs in sorted({run["jobs"] for run in result["runs"]}):
        runs = [run for run in result["runs"] if run["jobs"] == jobs]
        parts += [f"### {jobs:,} jobs", table(_HEAD, [_row(run, _find(result, OURS, jobs)) for run in runs])]
    return "\n\n".join(filter(None, [*parts, _limits(result)]))


def _limits(result: dict[str, Any]) -> str:
    """Return what of a wait's cost is Airflow's and the GET's, from the rows of the same run."""
    ours, bare, idle = (_find(result, name, CROWD) for name in (OURS, BARE, IDLE))
    if ours is None or bare is None or idle is None or not ours["steady"]["polls"]:
        return ""

    def per_poll(run: dict[str, Any]) -> float:
        """Return the CPU in microseconds, for as many polls as ours made in the same time."""
        polls = run["steady"]["polls"] or ours["steady"]["polls"] * run["window"]["seconds"] / ours["window"]["seconds"]
        return 1e6 * run["window"]["cpu_seconds"] / polls

    mine, plain, airflow = per_poll(ours), per_poll(bare), per_poll(idle)
    told = (
        f"### Where the limits are\n\nAt {CROWD:,} jobs a poll costs {mine:.0f} µs of CPU. {airflow:.0f} µs "
        "are spent by Airflow's runner on triggers that only sleep (it checks each of them once a second, and each "
        f"wake-up passes through greenback), and {plain:.0f} µs by the plain GET of bare aiohttp over TLS. Both rows "
        f"sleep and wake up, which a wait does once, so their sum, {airflow + plain:.0f} µs and "
        f"{100 * (idle['window']['core_share'] + bare['window']['core_share']):.1f} % of a core, is no floor.\n\n"
        "The worst lag is Python's garbage collection: a full collection visits every object of the process, and "
        f"{CROWD:,} triggers that only sleep are enough for {idle['lag'].get('longest_collection', 0):.0f} ms "
        f"({idle['memory_per_job']['rss'] / KIB:.1f} KiB each are Airflow's own; the collections of all rows are in "
        "the table above). A provider must not switch the collection off in a process that it shares. Polls that were "
        "due in such a pause follow right after it, which is the busiest 100 ms.\n\n"
        f"Of the {ours['memory_per_job']['rss'] / KIB:.1f} KiB per job, {idle['memory_per_job']['rss'] / KIB:.1f} KiB "
        "are those of a trigger that only sleeps."
    )
    if few := _find(result, OURS, 1000):
        each = (ours["memory_per_job"]["rss"] * CROWD - few["memory_per_job"]["rss"] * 1000) / (CROWD - 1000)
        told += (
            f" One further wait, from 1,000 to {CROWD:,}, takes {each / KIB:.1f} KiB; the rest is the HTTP "
            "client's import and its pool, once for all jobs."
        )
    told += _memory_together(result)
    if result.get("profile"):
        rows = [[author, f"{100 * part:.0f} %"] for author, part in result["profile"]]
        told += (
            "\n\nThe same from inside, by cProfile over ten seconds of a run of its own (calls written in C count for "
            "who calls them; a profiler makes Python's part look larger than it is):\n\n"
            + table(("Whose code", "part of the CPU time"), rows)
        )
    return told


def _memory_together(result: dict[str, Any]) -> str:
    """Return what a wait with shared requests takes beside a trigger that only sleeps, at each size."""
    kib = {
        jobs: tuple(run["memory_per_job"]["rss"] / KIB for run in pair)
        for jobs, names in RUNS
        if all(pair := [_find(result, name, jobs) for name in (LOOK, IDLE)])
    }
    if not kib:
        return ""
    sizes = ", ".join(
        f"{ours:.1f} less {idle:.1f} at {jobs:,} ({ours - idle:.1f})" for jobs, (ours, idle) in kib.items()
    )
    return (
        f"\n\nA wait with shared requests takes, in KiB, less a trigger that only sleeps: {sizes}. What Airflow takes "
        "leaves less than 2 KiB of the bar; the client's import alone is more than that for few waits."
    )


_HEAD: Final = (
    "Contestant",
    "CPU, % of a core",
    "ours / theirs",
    "polls/s",
    "requests/s",
    "polls per CPU-s",
    "KiB per job (RSS; USS)",
    "lag, worst; 99.9 %; 99 % (ms)",
    "lag apart from full garbage collections, worst (ms)",
    "full garbage collections; longest (ms)",
    "lag in ramp-up (ms)",
    "new connections per 1,000 polls",
    "most open sockets",
    "look-ups",
    "log lines per 1,000 polls",
    "busiest 100 ms",
    "server, % of a core",
)


def _row(run: dict[str, Any], ours: dict[str, Any] | None) -> list[str]:
    lag, polls = run["lag"], run["steady"]["polls"]
    lookups = run.get("lookups")
    return [
        run["name"],
        f"{100 * run['window']['core_share']:.1f}",
        harness.ratio(ours["window"]["core_share"] if ours else None, run["window"]["core_share"]),
        f"{polls / run['window']['seconds']:.0f}",
        f"{run['steady']['requests'] / run['window']['seconds']:.1f}",
        f"{_polls_per_cpu_second(run):.0f}" if polls else "–",
        f"{run['memory_per_job']['rss'] / KIB:.1f}; {run['memory_per_job']['uss'] / KIB:.1f}",
        f"{lag.get('worst', 0):.0f}; {lag.get('p999', 0):.0f}; {lag.get('p99', 0):.0f}",
        f"{lag.get('worst_without', 0):.0f}",
        f"{lag.get('collections', 0):.0f}; {lag.get('longest_collection', 0):.0f}",
        f"{run['lag_ramp'].get('worst', 0):.0f}",
        f"{_fresh_connections(run):.2f}" if polls else "–",
        f"{run['steady']['most_open']}",
        f"{sum(lookups.values())}" if lookups else "–",
        f"{1000 * run['log_lines'] / polls:.0f}" if polls and "log_lines" in run else "–",
        f"{run['busiest']['ratio']:.2f} ×" if polls else "–",
        f"{100 * run['server_share']:.0f}",
    ]
