"""How many examples a property is tried with: a share of them each time, all of them at night."""

from __future__ import annotations

import os
from typing import Any, Final

from hypothesis import settings

ALL: Final = "ALL_EXAMPLES"
"""Set by `make faults` and by the whole matrix."""
SHARE: Final = 4


def properties(examples: int, **more: Any) -> settings:
    """Return the settings of a property's test.

    :param examples: how many are tried at night; by day a quarter of them.
    """
    some = examples if os.environ.get(ALL) else max(examples // SHARE, 10)
    return settings(**{"database": None, "deadline": None, "max_examples": some, **more})
