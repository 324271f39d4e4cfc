"""A run as its entries make it: what a list of runs tells of it."""

from __future__ import annotations

from attrs import evolve

from ..entries import Entry, JournalledRun
from ..errors import JournalError

__all__ = ["grown"]


def grown(run: JournalledRun | None, entry: Entry) -> JournalledRun:
    """Tell the run after *entry*, where it was *run* before: None when nothing was known of it.

    Raises:
        JournalError: *entry* is about a call, and the run is not known.
    """
    if run is None:
        if entry.key:
            raise JournalError(
                f"run {entry.run_id!r} is not known here, so {entry.kind} {entry.name!r} was not added: "
                "its first entry is about the run itself and has an empty key"
            )
        run = JournalledRun(entry.run_id, entry.name, entry.state, entry.at - entry.duration)
    if entry.key:
        return evolve(run, entries=run.entries + 1)
    ended = None if entry.state in ("pending", "running") else entry.at
    return evolve(run, workflow=entry.name, state=entry.state, ended=ended, entries=run.entries + 1)
