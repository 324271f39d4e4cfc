"""The entries of a run as a trail: each is sealed on the one before it, and the run's row tells the last seal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import fields, frozen

from ..entries import Entry, JournalledRun
from ._faults import damaged
from ._lines import grown
from ._sealed import data, facts, packed, proven, seal

__all__ = ["Trail", "Row", "read"]

_DEFAULTS = tuple((a.name, a.default) for a in fields(Entry) if a.name != "run_id")

Row = tuple[bytes, int, bytes, bytes]
"""A row: the run, the number of the entry in it, its seal, and its body."""


@frozen
class Trail:
    """The *run*, None before its first entry; which *number* it has in its journal; the *last* seal of *entries*."""

    run: JournalledRun | None
    number: int
    last: bytes
    entries: int = 0

    @staticmethod
    def new(run_id: str, number: int) -> Trail:
        """Begin a trail."""
        return Trail(None, number, _ground(run_id))

    @staticmethod
    def of(run_id: str, row: dict[str, Any]) -> Trail:
        """Make it from the row of its run."""
        last, number = bytes.fromhex(row.pop("last")), row.pop("number")
        run = JournalledRun(run_id, **row)
        return Trail(run, number, last, run.entries)

    def row(self) -> dict[str, object]:
        """Tell the row of its run."""
        run = self.run
        assert run is not None, "a trail is kept once it has an entry"
        return {
            "workflow": run.workflow,
            "state": run.state,
            "started": run.started,
            "ended": run.ended,
            "entries": self.entries,
            "number": self.number,
            "last": self.last.hex(),
        }

    def with_entries(self, entries: Sequence[Entry]) -> tuple[Trail, list[Row]]:
        """Add *entries*, all of this run; tell the longer trail, and their rows.

        Raises:
            JournalError: the first is about a call, and nothing is known of the run.
        """
        run, last = grown(self.run, entries), self.last
        name, rows = data(run.run_id), list[Row]()
        for number, entry in enumerate(entries, self.entries + 1):
            body = _packed(entry)
            last = seal(last, body)
            rows.append((name, number, last, body))
        return Trail(run, self.number, last, self.entries + len(entries)), rows


def read(
    path: Path, run_id: str, trail: Trail | None, rows: Iterable[tuple[Any, Any, Any]]
) -> tuple[Entry, ...]:
    """Make the entries of a run from the number, seal and body of each.

    Raises:
        JournalError: one has changed, is lost, or is another's.
    """
    entries, last = list[Entry](), _ground(run_id)
    for number, found, body in rows:
        if number != len(entries) + 1 or not proven(body, last, found):
            raise damaged(path, f"entry {len(entries) + 1} of run {run_id!r}")
        entries.append(Entry(run_id, **facts(body)))
        last = found
    known = 0 if trail is None else trail.entries
    if len(entries) != known or (trail is not None and trail.last != last):
        raise damaged(path, f"run {run_id!r} (it has {len(entries)} entries, and should have {known})")
    return tuple(entries)


def _ground(run_id: str) -> bytes:
    return seal(b"entries", data(run_id))


def _packed(entry: Entry) -> bytes:
    return packed({name: value for name, default in _DEFAULTS if (value := getattr(entry, name)) != default})
