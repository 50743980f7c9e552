"""Invisible characters make no second id that looks like the first."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.api.dialects.base import is_safe_id
from airflow_provider_vidu.common.text import sanitized
from fault_table import REFUSED

INVISIBLE = ["\u200b", "\ufeff", "\xad", "\U000e0041", "\u2060", "\u180e", "\u3164", "\ufff9"]


@pytest.mark.fault("attacks", "a gateway puts invisible characters into an id", outcome=REFUSED, seen="no such id")
@pytest.mark.parametrize("char", INVISIBLE, ids=[f"U+{ord(char):04X}" for char in INVISIBLE])
def test_invisible_characters(char):
    """They are in no id, and a message shows a blank in their place."""
    assert not is_safe_id(f"g{char}7")
    assert sanitized(f"g{char}7") == "g 7"


def test_emoji_stay_whole():
    """A joined emoji and a Persian word are shown as they are written."""
    for text in ("\U0001f469\u200d\U0001f680", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u2764\ufe0f"):
        assert sanitized(text) == text
