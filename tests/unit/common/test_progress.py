"""What the log says while something is under way."""

from __future__ import annotations

from base64 import encodebytes
from itertools import pairwise

import pytest

from airflow_provider_vidu.common.progress import ProgressLog, duration, finish_line, progress_line, request_lines, size
from tests.rows import each_row

MB = 1_000_000


def lines(
    telling: ProgressLog, *, rate: float, total: int | None, seconds: int, step: float = 0.1
) -> list[tuple[float, str]]:
    """Let bytes arrive at a steady rate; return when which line came."""
    telling.start(0, 0, total)
    found = []
    for number in range(1, int(seconds / step)):
        now = number * step
        if line := telling.line(now, int(now * rate), total):
            found.append((round(now, 1), line))
    return found


def test_a_short_transfer_needs_no_line():
    """Of a transfer that ends within three seconds, only the last line is logged."""
    assert lines(ProgressLog(), rate=10 * MB, total=20 * MB, seconds=2) == []


def test_the_first_line_comes_soon_and_the_others_by_quarters():
    """A minute's transfer is logged early, then at quarters and every ten seconds."""
    found = lines(ProgressLog(), rate=2 * MB, total=120 * MB, seconds=60)
    assert [at for at, _ in found] == [3.0, 13.0, 16.0, 26.0, 30.0, 40.0, 45.0, 55.0]
    assert found[0][1] == "5 %: 6.0 MB of 120.0 MB, 2.0 MB/s, about 57 s left"


def test_the_last_byte_is_told_by_the_last_line():
    """When all has come, the line about the whole file follows at once: there is no "100 %, 0 s left"."""
    telling = ProgressLog()
    telling.start(0, 0, 10 * MB)
    assert telling.line(20, 10 * MB, 10 * MB) is None


def test_a_long_transfer_does_not_fill_the_log():
    """Ten hours make a few dozen lines, and the last ones are not farther apart than a tenth of it."""
    found = lines(ProgressLog(), rate=MB, total=None, seconds=36_000, step=1)
    assert 30 < len(found) < 80
    assert max(later - sooner for (sooner, _), (later, _) in pairwise(found)) <= 3600


def test_a_resumed_transfer_goes_on_from_where_it_was():
    """Bytes of an earlier answer count for the percentage, not for the rate."""
    telling = ProgressLog()
    telling.start(100, 50 * MB, 100 * MB)
    assert telling.line(102, 54 * MB, 100 * MB) is None
    assert telling.line(104, 58 * MB, 100 * MB) == "58 %: 58.0 MB of 100.0 MB, 2.0 MB/s, about 21 s left"


def test_the_rate_is_that_of_the_last_moments():
    """A transfer that became slow says so, and what that means for its end."""
    telling = ProgressLog()
    telling.start(0, 0, 100 * MB)
    telling.line(4, 40 * MB, 100 * MB)
    assert telling.line(14, 41 * MB, 100 * MB) == "41 %: 41.0 MB of 100.0 MB, 100.0 kB/s, about 9 min 50 s left"


@pytest.mark.parametrize("interval", [0.0, 0.5])
def test_a_shorter_interval(interval):
    """Tests may ask for more lines; a clock that stands still divides by nothing."""
    telling = ProgressLog(interval)
    telling.start(0, 0, 10)
    telling.line(0, 1, 10)
    assert telling.line(1, 5, 10)


def test_without_a_length_there_is_no_end():
    """Where no size was announced, neither share nor end is made up."""
    assert progress_line(5 * MB, None, MB) == "5.0 MB so far, 1.0 MB/s"
    assert "left" not in progress_line(5, 10, 0)


@each_row(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (37_400_000, "37.4 MB"), (5e15, "5000.0 TB")],
)
def test_sizes(count, text):
    """Sizes are short."""
    assert size(count) == text


@each_row(
    ("seconds", "text"),
    [(0, "0 s"), (-3, "0 s"), (0.4, "0.4 s"), (17.4, "17 s"), (200, "3 min 20 s"), (7_530, "2 h 5 min")],
)
def test_durations(seconds, text):
    """Durations have at most two parts."""
    assert duration(seconds) == text


def test_a_request_line_by_line():
    """Every field has a line; an inline image is named by kind and size, a signed URL loses its query."""
    body = {
        "model": "viduq3",
        "prompt": "a cat\nwith wings",
        "images": ["https://x.example.com/i.png?sig=hush", "data:image/png;base64," + "A" * 4000],
        "subjects": [{"images": ["Data:image/webp;base64," + "A" * 4000, "/9j/" + "A" * 4000]}],
        "image": encodebytes(bytes(range(256)) * 11).decode(),
        "settings": {"duration": 4, "audio": True},
        "callback_url": "https://me:hush@x.example.com/back?token=hush",
    }
    told = request_lines(body)
    assert told == [
        "model: viduq3",
        "prompt: a cat with wings",
        "images: [https://x.example.com/i.png, (inline image/png, 4.0 kB in the request)]",
        "subjects: [{images: [(inline image/webp, 4.0 kB in the request), (inline base64, 4.0 kB in the request)]}]",
        "image: (inline base64, 3.8 kB in the request)",
        "settings: {duration: 4, audio: True}",
        "callback_url: https://x.example.com/back",
    ]


@pytest.mark.parametrize("prompt", ["x" * 5001, "ha" * 2500, "7" * 600, "x" * 600 + " Take 1"])
def test_a_prompt_without_spaces_is_not_called_an_image(prompt):
    """A letter that was held down is the mistake that the log must show."""
    (line,) = request_lines({"prompt": prompt})
    assert line.startswith(f"prompt: {prompt[:200]}")
    assert "base64" not in line


def test_an_endless_field_is_cut():
    """No field makes the log unreadable, and none can forge a line of it."""
    (line,) = request_lines({"payload\n::endgroup::": "x" * 10_000})
    assert len(line) < 600
    assert "\n" not in line


@pytest.mark.fault("stores and files", "a transfer of 50 ms", outcome="survived", seen="size and time, no rate")
@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        (0.05, "Fetched 1.9 kB of video/mp4 in 0.1 s"),
        (0.99, "Fetched 1.9 kB of video/mp4 in 1.0 s"),
        (2.0, "Fetched 1.9 kB of video/mp4 in 2.0 s (950 B/s)"),
    ],
)
def test_a_short_transfer_has_no_rate(seconds, line):
    """A rate over less than a second would say more about the clock than about the line."""
    assert finish_line(1900, "video/mp4", seconds) == line


def test_the_token_of_a_callback_is_not_shown():
    """The line names the address, without what makes it work."""
    (line,) = request_lines({"callback_url": f"https://h.example/team/vidu/callbacks/{'a-_9' * 11}"})
    assert line == "callback_url: https://h.example/team/vidu/callbacks/…"
