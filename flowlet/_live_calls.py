"""Live calls in tests: none, unless pytest was asked for them, which its plugin says in the environment."""

from __future__ import annotations

import os

from .errors import ConfigError

__all__ = ["LIVE", "check_live"]

LIVE = "PYTEST_FLOWLET_LIVE"
"""The variable by which the pytest plugin says whether live calls are allowed; subprocesses inherit it."""


def check_live(what: str, *, key: bool = True, also: str = "", instead: str = "") -> None:
    """Let a test make a live call of *what* where that was asked for; other code may make it anyway.

    *key* is whether it has one, or needs none. *also* is what else allows it, *instead* one more way to do without.

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
            f"to allow it, {also}run pytest --flowlet-live (--flowlet-record=once records it)",
            f"to do without, use a recording, a mock, or FLOWLET_MODEL=offline{instead}",
        ),
    )
