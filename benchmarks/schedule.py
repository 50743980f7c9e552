"""When to poll: the default schedule against fixed intervals, on generation times as they are reported."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.polling.watch import PollPolicy, Wait, Watch
from benchmarks import harness
from benchmarks.harness import Bar, median, percentile, table

TITLE: Final = "When to poll"
FIXED: Final = (5, 7, 10, 12, 15, 20, 25, 30, 40, 60, 90, 120, 180, 300)
SEED: Final = 20260722


@dataclass(frozen=True)
class Job:
    """One generation: seconds in the queue, seconds running, and how its progress is reported.

    :param told: whether the service says "waiting" while it waits (some gateways say "processing" throughout).
    :param progress: None (never reported), ``"stuck"`` (50 throughout), or an exponent: progress is the share of the
        time to this power.
    """

    queue: float
    run: float
    told: bool
    progress: float | str | None

    @property
    def done(self) -> float:
        return self.queue + self.run

    def answer(self, at: float) -> Generation:
        """Return what the service answers ``at`` seconds after the submit."""
        if at >= self.done:
            return _generation(GenerationStatus.SUCCEEDED, 100)
        if at < self.queue:
            return _generation(GenerationStatus.WAITING if self.told else GenerationStatus.RUNNING, None)
        if self.progress is None or self.progress == "stuck":
            return _generation(GenerationStatus.RUNNING, None if self.progress is None else 50)
        share = (at - self.queue) / self.run
        return _generation(GenerationStatus.RUNNING, min(int(100 * share ** float(self.progress)), 99))


@lru_cache(maxsize=1024)
def _generation(status: GenerationStatus, progress: int | None) -> Generation:
    url = "https://example.com/v.mp4" if status is GenerationStatus.SUCCEEDED else None
    return Generation(id="1", status=status, provider_status=status.value, video_url=url, progress=progress)


def _between(rng: random.Random, low: float, middle: float, high: float) -> float:
    """Draw log-normally with this median, 90 % of it between ``low`` and ``high`` as far as they are symmetric."""
    sigma = (math.log(high / middle) + math.log(middle / low)) / 2 / 1.645
    return rng.lognormvariate(math.log(middle), sigma)


def _progress(rng: random.Random) -> float | str | None:
    return rng.choices((None, "stuck", 0.7, 1.0, 1.5), (5, 1, 1, 1, 1))[0]


def _clip(rng: random.Random) -> Job:
    return Job(rng.uniform(1, 15), _between(rng, 60, 150, 360), rng.random() < 0.7, _progress(rng))


def _quick(rng: random.Random) -> Job:
    return Job(rng.uniform(0, 5), _between(rng, 20, 38, 70), rng.random() < 0.7, _progress(rng))


def _queue(rng: random.Random) -> Job:
    return Job(_between(rng, 1200, 3600, 9000), _clip(rng).run, True, _progress(rng))


def _mute_queue(rng: random.Random) -> Job:
    return Job(_between(rng, 1200, 3600, 9000), _clip(rng).run, False, None)


def _off_peak(rng: random.Random) -> Job:
    return Job(math.exp(rng.uniform(math.log(3600), math.log(47 * 3600))), _clip(rng).run, True, _progress(rng))


@dataclass(frozen=True)
class Kind:
    """A kind of generation, its share of all, and where its times come from."""

    name: str
    share: float
    draw: Callable[[random.Random], Job]
    source: str


KINDS: Final = (
    Kind(
        "clip",
        0.60,
        _clip,
        "1 to 6 minutes, median 2.5: the vendor's usual range (viduq3-turbo 2–4 min, viduq3-pro 3–6 min); a survey of "
        "30 models gives a median near 150 s ([vivideo.ai](https://vivideo.ai/research/ai-video-render-time-benchmark)"
        "), one of eight equal jobs 83 to 253 s "
        "([dev.to](https://dev.to/owen_fox/video-generation-api-polling-202-pollingurl-wait-times-2026-344c))",
    ),
    Kind(
        "quick clip",
        0.15,
        _quick,
        "20 to 70 s: short clips and turbo models "
        "([flowith.io](https://flowith.io/blog/vidu-faq-video-length-resolution-commercial-license), vivideo.ai)",
    ),
    Kind(
        "queue of an hour",
        0.15,
        _queue,
        "20 min to 2.5 h, median 1 h, in the state `queueing`, then a clip: the official API lets five generations "
        "of an organisation run at a time; the rest waits for an hour and more",
    ),
    Kind(
        "queue reported as processing",
        0.05,
        _mute_queue,
        "the same, through a gateway that says `processing` throughout and gives no progress (assumed)",
    ),
    Kind(
        "off-peak",
        0.05,
        _off_peak,
        "1 to 47 h (evenly on a logarithmic scale), then a clip: the official API promises `off_peak` within 48 h and "
        "does not say how the times are distributed",
    ),
)


def measure(quick: bool) -> dict[str, Any]:
    """Simulate the default and every fixed interval on the same generations."""
    rng = random.Random(SEED)
    count = 300 if quick else 2000
    crowd = {kind.name: [kind.draw(rng) for _ in range(count)] for kind in KINDS}
    policies: dict[str, PollPolicy] = {"default": PollPolicy.for_trigger(None)}
    policies |= {f"{seconds} s": PollPolicy.for_trigger(float(seconds)) for seconds in FIXED}
    curves: dict[str, Any] = {}
    for name, policy in policies.items():
        seen = {kind: [_wait(policy, job, random.Random(SEED)) for job in jobs] for kind, jobs in crowd.items()}
        curves[name] = {kind: _figures(found) for kind, found in seen.items()}
        curves[name]["all"] = _mixed(seen)
    return {"count": count, "curves": curves, "versions": harness.versions("airflow-provider-vidu")}


def _wait(policy: PollPolicy, job: Job, seed: random.Random) -> tuple[int, float, float]:
    """Return polls, seconds late and seconds it took; as a deferred task does it: a poll, then the trigger."""
    rng = random.Random(hash((job.queue, job.run)) ^ seed.getrandbits(32)).random
    if not policy.adaptive:
        return _wait_fixed(policy, job, rng)
    Watch(policy, generation_id="1", since=0.0, rng=rng).saw(job.answer(0.0), 0.0)  # the worker's, forgotten
    watch = Watch(policy, generation_id="1", since=0.0, rng=rng)
    now, polls = policy.first_delay(None, rng), 2
    while isinstance(step := watch.saw(job.answer(now), now), Wait):
        now, polls = now + step.delay, polls + 1
    return polls, now - job.done, job.done


def _wait_fixed(policy: PollPolicy, job: Job, rng: Callable[[], float]) -> tuple[int, float, float]:
    now, polls = policy.first_delay(None, rng), 2
    while now < job.done:
        now, polls = now + policy.delay(polls, rng), polls + 1
    return polls, now - job.done, job.done


def _figures(found: list[tuple[int, float, float]], weights: list[float] | None = None) -> dict[str, float]:
    late = [seconds for _, seconds, _ in found]
    return {
        "polls": sum(polls for polls, _, _ in found) / len(found),
        "late_mean": sum(late) / len(late),
        "late_median": median(late),
        "late_p95": percentile(late, 95),
        "share_median": 100 * median(seconds / took for _, seconds, took in found),
        "share_p95": 100 * percentile((seconds / took for _, seconds, took in found), 95),
    }


def _mixed(seen: dict[str, list[tuple[int, float, float]]]) -> dict[str, float]:
    """Return the figures of all kinds together, each with its share of the generations."""
    mixed: list[tuple[int, float, float]] = []
    for kind in KINDS:
        found = seen[kind.name]
        mixed += found[: round(len(found) * kind.share / max(each.share for each in KINDS))]
    return _figures(mixed)


# -- reading ----------------------------------------------------------------------------------------

MEASURES: Final = {"late_mean": "mean", "late_median": "median", "late_p95": "95th percentile"}


def fixed_with(curves: dict[str, Any], kind: str, of: str, value: float, wanted: str) -> float | None:
    """Return ``wanted`` of the fixed interval whose ``of`` is ``value``, between the two nearest (log-linear)."""
    points = sorted((curves[f"{seconds} s"][kind][of], curves[f"{seconds} s"][kind][wanted]) for seconds in FIXED)
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= value <= x1 and x1 > x0:
            share = (math.log(value) - math.log(x0)) / (math.log(x1) - math.log(x0))
            return math.exp(math.log(y0) + share * (math.log(y1) - math.log(y0)))
    return None


def _beaten_by(curves: dict[str, Any], kind: str, measure_: str) -> list[str]:
    """Return the fixed intervals that need no more polls than the default and are no later."""
    ours = curves["default"][kind]
    return [
        f"{seconds} s"
        for seconds in FIXED
        if curves[f"{seconds} s"][kind]["polls"] <= ours["polls"]
        and curves[f"{seconds} s"][kind][measure_] <= ours[measure_]
    ]


def _gain(curves: dict[str, Any], kind: str, measure_: str) -> tuple[float | None, float | None]:
    """Return lateness and polls of the default over those of the fixed interval with as many polls, as late."""
    ours = curves["default"][kind]
    late = fixed_with(curves, kind, "polls", ours["polls"], measure_)
    polls = fixed_with(curves, kind, measure_, ours[measure_], "polls")
    return (ours[measure_] / late if late else None), (ours["polls"] / polls if polls else None)


def bars(result: dict[str, Any]) -> list[Bar]:
    """Return what issue 5 asks of the schedule."""
    curves = result["curves"]
    found = []
    for measure_, name in MEASURES.items():
        late, _ = _gain(curves, "all", measure_)
        beaten = _beaten_by(curves, "all", measure_)
        found.append(
            Bar(
                f"all generations: below the curve of the fixed intervals ({name} lateness)",
                "not on the curve" if late is None else f"{late:.2f} × as late at as many polls",
                not beaten and (late is None or late < 1),
            )
        )
    for kind in KINDS:
        late, _ = _gain(curves, kind.name, "late_mean")
        found.append(
            Bar(
                f"{kind.name}: below the curve (mean lateness)",
                "off the curve" if late is None else f"{late:.2f} × as late at as many polls",
                not _beaten_by(curves, kind.name, "late_mean") and (late is None or late < 1),
            )
        )
    return found


def section(result: dict[str, Any]) -> str:
    """Return curve, tables and sources."""
    curves = result["curves"]
    parts = [_METHOD.format(count=result["count"]), *(f"* **{k.name}**, {k.share:.0%}: {k.source}." for k in KINDS)]
    lines = ["\n".join([parts[0], "", *parts[1:]])]
    chart = harness.ROOT / "benchmarks" / "schedule.svg"
    chart.write_text(_svg(curves), "utf-8")
    lines.append(f"![Polls per generation against lateness]({chart.name})")
    kinds = ("all", *(kind.name for kind in KINDS))
    return "\n\n".join([*lines, *(f"### {kind[0].upper()}{kind[1:]}\n\n{_curve(curves, kind)}" for kind in kinds)])


_METHOD: Final = """\
**Method.** A simulation, {count} generations of each kind, the same for every schedule, with the decisions of the
provider's own code (`Watch` receives the answers): a poll in the worker, the trigger's first poll after the
first delay, then as the schedule says, jitter included, until an answer says that it is done. *Lateness* is the time
from the end of the generation to that answer. The default is compared with each fixed interval (`poll_interval=`) as
a point with a curve: *as late at as many polls* is its lateness over that of the fixed interval that would need as
many polls per generation (between two of the table on a logarithmic scale); below 1 it is better. A fixed interval
*beats* the default when it needs no more polls and is no later; none does where the verdict is "holds". The shares of
the kinds are an assumption; the tables per kind do not depend on it.

A fixed interval is better for one kind only: the hour in a queue that the gateway calls "processing". Without a
state and progress, such a wait looks like a slow clip, so the interval grows with the age, and the result is late by
a few percent of the time it took. If you know about the hour in advance, set an interval."""


def _curve(curves: dict[str, Any], kind: str) -> str:
    head = (
        "Schedule",
        "polls per generation",
        "late, mean (s)",
        "median (s)",
        "95 % (s)",
        "share of the time it took, median",
        "95 %",
    )
    rows = [
        (
            f"**{name}**" if name == "default" else name,
            f"{of[kind]['polls']:.1f}",
            f"{of[kind]['late_mean']:.1f}",
            f"{of[kind]['late_median']:.1f}",
            f"{of[kind]['late_p95']:.1f}",
            f"{of[kind]['share_median']:.1f} %",
            f"{of[kind]['share_p95']:.1f} %",
        )
        for name, of in curves.items()
    ]
    told = []
    for measure_, name in MEASURES.items():
        late, polls = _gain(curves, kind, measure_)
        if late is not None or polls is not None:
            told.append(
                f"{name}: "
                + ", ".join(
                    ([f"{late:.2f} × as late at as many polls"] if late is not None else [])
                    + ([f"{polls:.2f} × the polls when as late"] if polls is not None else [])
                )
            )
    return f"{table(head, rows)}\n\nThe default against the fixed interval beside it: {'; '.join(told) or '–'}."


def _svg(curves: dict[str, Any]) -> str:
    """Return the curve of the fixed intervals and the default's point, over all generations, on two log scales."""
    left, top, width, height = 60, 20, 560, 320
    points = {name: (of["all"]["polls"], of["all"]["late_mean"]) for name, of in curves.items()}
    xs, ys = [x for x, _ in points.values()], [y for _, y in points.values()]
    low_x, high_x, low_y, high_y = min(xs) / 1.3, max(xs) * 1.3, min(ys) / 1.3, max(ys) * 1.3

    def at(point: tuple[float, float]) -> tuple[float, float]:
        across = (math.log(point[0]) - math.log(low_x)) / (math.log(high_x) - math.log(low_x))
        up = (math.log(point[1]) - math.log(low_y)) / (math.log(high_y) - math.log(low_y))
        return round(left + width * across, 1), round(top + height * (1 - up), 1)

    fixed = [(f"{seconds} s", *at(points[f"{seconds} s"])) for seconds in FIXED]
    x, y = at(points["default"])
    marks = "".join(
        f'<circle cx="{cx}" cy="{cy}" r="3" fill="#666"/><text x="{cx + 6}" y="{cy - 5}" fill="#666">{name}</text>\n'
        for name, cx, cy in fixed
    )
    line = " ".join(f"{cx},{cy}" for _, cx, cy in fixed)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {top + height + 50}" '
        'font-family="sans-serif" font-size="11">\n'
        '<rect width="100%" height="100%" fill="white"/>\n'
        f'<path d="M{left},{top} V{top + height} H{left + width}" fill="none" stroke="#999"/>\n'
        f'<polyline points="{line}" fill="none" stroke="#999"/>\n{marks}'
        f'<circle cx="{x}" cy="{y}" r="6" fill="#6b3fd4"/>'
        f'<text x="{x + 9}" y="{y + 4}" fill="#6b3fd4" font-weight="bold">default</text>\n'
        f'<text x="{left + width / 2}" y="{top + height + 35}" text-anchor="middle">polls per generation (log)</text>\n'
        f'<text x="16" y="{top + height / 2}" text-anchor="middle" transform="rotate(-90 16 {top + height / 2})">'
        "mean lateness in seconds (log)</text>\n</svg>\n"
    )
