"""What people see of runs: a live tree in a terminal, a notebook's output, a page to hand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._live import live

if TYPE_CHECKING:
    from ._report import report

__all__ = ["live", "report"]


def __getattr__(name: str) -> object:
    """Import what draws pages when a page is asked for: showing a run starts without it."""
    if name == "report":
        from ._report import report

        return report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
