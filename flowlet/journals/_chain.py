"""The entries of a run as a chain: each is sealed on the one before it, and the run's row tells the last seal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import fields, frozen

from ..entries import Entry, JournalledRun
from ._faults import damaged
from ._lines import grown
from ._sealed import data, facts, packed, proven, seal

__all__ = ["Chain", "Link", "read"]

_DEFAULTS = tuple((a.name, a.default) for a in fields(Entry) if a.name != "run_id")

Link = tuple[bytes, int, bytes, bytes]
"""A row: the run, the number of the entry in it, its seal, and its body."""


@frozen
class Chain:
    """The *run*, None before its first entry; which *number* it has in its journal; the *last* seal of *entries*."""

    run: JournalledRun | None
    number: int
    last: bytes
    entries: int = 0

    @staticmethod
    def new(run_id: str, number: int) -> Chain:
        """Begin a chain."""
        return Chain(None, number, _ground(run_id))

    @staticmethod
    def of(run_id: str, row: dict[str, Any]) -> Chain:
        """Make it from the row of its run."""
        last, number = bytes.fromhex(row.pop("last")), row.pop("number")
        run = JournalledRun(run_id, **row)
        return Chain(run, number, last, run.entries)

    def row(self) -> dict[str, object]:
        """Tell the row of its run."""
        run = self.run
        assert run is not None, "a chain is kept once it has an entry"
        return {
            "workflow": run.workflow,
            "state": run.state,
            "started": run.started,
            "ended": run.ended,
            "entries": self.entries,
            "number": self.number,
            "last": self.last.hex(),
        }

    def with_entries(self, entries: Sequence[Entry]) -> tuple[Chain, list[Link]]:
        """Add *entries*, all of this run; tell the longer chain, and their rows.

        Raises:
            JournalError: the first is about a call, and nothing is known of the run.
        """
        run, last = grown(self.run, entries), self.last
        name, links = data(run.run_id), list[Link]()
        for number, entry in enumerate(entries, self.entries + 1):
            body = _packed(entry)
            last = seal(last, body)
            links.append((name, number, last, body))
        return Chain(run, self.number, last, self.entries + len(entries)), links


def read(
    path: Path, run_id: str, chain: Chain | None, links: Iterable[tuple[Any, Any, Any]]
) -> tuple[Entry, ...]:
    """Make the entries of a run from the number, seal and body of each.

    Raises:
        JournalError: one has changed, is lost, or is another's.
    """
    entries, last = list[Entry](), _ground(run_id)
    for number, found, body in links:
        if number != len(entries) + 1 or not proven(body, last, found):
            raise damaged(path, f"entry {len(entries) + 1} of run {run_id!r}")
        entries.append(Entry(run_id, **facts(body)))
        last = found
    known = 0 if chain is None else chain.entries
    if len(entries) != known or (chain is not None and chain.last != last):
        raise damaged(path, f"run {run_id!r} (it has {len(entries)} entries, and should have {known})")
    return tuple(entries)


def _ground(run_id: str) -> bytes:
    return seal(b"entries", data(run_id))


def _packed(entry: Entry) -> bytes:
    return packed({name: value for name, default in _DEFAULTS if (value := getattr(entry, name)) != default})
