"""What this process has used so far: tokens, calls and cost, over all runs and outside of them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, overload

from ._engine._ledger import Ledger
from .metrics import Usage
from .settings import process

__all__ = ["usage"]

OUTSIDE = "(outside)"
_PLACES = {"model": 0, "workflow": 1, "step": 2}


@overload
def usage(by: None = None, *, since: datetime | float | None = None) -> Usage: ...
@overload
def usage(
    by: Literal["model", "workflow", "step"], *, since: datetime | float | None = None
) -> dict[str, Usage]: ...
def usage(
    by: Literal["model", "workflow", "step"] | None = None, *, since: datetime | float | None = None
) -> Usage | dict[str, Usage]:
    """Sum up the model calls of this process, in all or by model, workflow or step.

    Args:
        by: what to sum up by; calls in no run or step are under ``"(outside)"``.
        since: only the calls that ended then or later (a Unix time or a datetime). The newest 10,000
            calls are remembered one by one; for more, take the difference of two ``usage()``.

    Raises:
        ValueError: *since* lies before the calls that are remembered, or *by* is something else.
    """
    sums = process.of(Ledger).sums(since.timestamp() if isinstance(since, datetime) else since)
    if by is None:
        return sum(sums.values(), Usage())
    if by not in _PLACES:
        raise ValueError(f"usage can't be summed up by {by!r}: by model, workflow or step")
    found: dict[str, Usage] = {}
    for key, one in sums.items():
        name = key[_PLACES[by]] or OUTSIDE
        found[name] = found.get(name, Usage()) + one
    return found
