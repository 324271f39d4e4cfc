"""A run as its entries make it: what a list of runs tells of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import evolve

from ..entries import Entry, JournalledRun
from ..errors import JournalError

__all__ = ["by_run", "grown"]

_GOES_ON = ("pending", "running")


def by_run(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Sort *entries* by the run that they are about; of each their order stays."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.run_id, []).append(entry)
    return found


def grown(run: JournalledRun | None, entries: Sequence[Entry]) -> JournalledRun:
    """Tell the run after *entries*, which are of one run, where it was *run* before: None when not known.

    How many entries it has is for others to count.

    Raises:
        JournalError: the run is not known, and the first of them does not say that it begins.
    """
    if run is None:
        run = _first(entries[0])
    for entry in entries:
        if not entry.key:
            ended = None if entry.state in _GOES_ON else entry.at
            run = evolve(run, workflow=entry.name, state=entry.state, ended=ended)
    return run


def _first(entry: Entry) -> JournalledRun:
    if entry.key or entry.state not in _GOES_ON:
        what = f"{entry.kind} {entry.name!r}" if entry.key else f"its end, {entry.state},"
        raise JournalError(
            f"run {entry.run_id!r} is not known here, so {what} was not added: its first entry is about the run "
            "itself, which has begun, and has an empty key"
        )
    return JournalledRun(entry.run_id, entry.name, entry.state, entry.at - entry.duration)
