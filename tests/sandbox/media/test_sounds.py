"""MP3 files, taken apart frame by frame."""

from __future__ import annotations

from airflow_provider_vidu.sandbox.media import sounds


def frames(data: bytes) -> list[bytes]:
    """Return the MPEG frames behind the ID3 tag; AssertionError where a frame does not follow the one before it."""
    assert data[:3] == b"ID3"
    size = 0
    for byte in data[6:10]:
        assert byte < 0x80
        size = size << 7 | byte
    at, found = 10 + size, []
    while at < len(data):
        header = data[at : at + 4]
        assert header[0] == 0xFF
        assert header[1] & 0xE6 == 0xE2, "sync, Layer III"
        assert header[2] >> 4 == 9, "128 kbit/s in MPEG-1 Layer III"
        assert header[2] >> 2 & 3 == 0, "44.1 kHz"
        found.append(data[at : at + sounds.FRAME_BYTES])
        at += sounds.FRAME_BYTES + (header[2] >> 1 & 1)
    assert at == len(data)
    return found


def test_a_sound_has_the_length_that_was_asked_for() -> None:
    """Frames of 1,152 samples each, the last one whole."""
    for seconds in (0.01, 2.0, 3.5):
        length = len(frames(sounds.mp3("x", seconds=seconds))) * sounds.SAMPLES_PER_FRAME / sounds.SAMPLE_RATE
        assert seconds <= length < seconds + 0.03


def test_two_sounds_never_have_the_same_bytes() -> None:
    """The title is made from the seed, so that a digest tells them apart."""
    assert sounds.mp3("a") != sounds.mp3("b")
    assert sounds.mp3("a") == sounds.mp3("a")
