"""Live calls in tests: none, unless pytest was asked for them, which its plugin says in the environment."""

from __future__ import annotations

import os

from .errors import ConfigError

__all__ = ["LIVE", "check_live"]

LIVE = "PYTEST_FLOWLET_LIVE"
"""The variable by which the pytest plugin says whether live calls are allowed; subprocesses inherit it."""


def check_live(what: str, first: str = "", *, key: bool = True, fake: str = "") -> None:
    """Let a test make a live call of *what* where that was asked for; other code may make it anyway.

    *first* is what else it needs, and *key* whether there is one. *fake* is what else would do without.

    Raises:
        ConfigError: pytest runs without --flowlet-live, or without a key.
    """
    live = os.environ.get(LIVE)
    if live is None or (live == "yes" and key):
        return
    missing = "has no key, which --flowlet-live needs" if live == "yes" else "was not asked for"
    raise ConfigError(
        f"a live call of {what} in a test {missing}:",
        (
            f"to allow it, {first}run pytest --flowlet-live (--flowlet-record=once records it)",
            f"to do without, use a recording, a mock, or FLOWLET_MODEL=offline{fake}",
        ),
    )
