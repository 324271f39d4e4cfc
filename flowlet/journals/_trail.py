"""The entries of a run as a trail: each is sealed on the one before it, and the run's row tells how far it went."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from json.encoder import encode_basestring as _text
from pathlib import Path
from typing import Any, NamedTuple

from ..entries import Entry, JournalledRun
from ._faults import damaged
from ._lines import grown
from ._sealed import data, listed, proven, seal

__all__ = ["STEPS", "Row", "Trail", "numbers", "read", "whole"]

STEPS = 64
"""How many entries the run's row may lag behind: damage that takes the newest of them away is not found."""

Row = tuple[int, bytes | None, bytes, bytes]
"""A row: its number, of its first entry the run, the seal, and the body."""


class Trail(NamedTuple):
    """The *run*, None before its first entry; which *number* it has in its journal; the *last* seal of *entries*.

    *told* is how many of them the run's row tells of.
    """

    run: JournalledRun | None
    number: int
    last: bytes
    entries: int = 0
    told: int = 0

    @property
    def numbers(self) -> tuple[int, int]:
        """The first and the last number that rows of the run can have."""
        return numbers(self.number)

    def which(self, number: int | None) -> int:
        """Which entry of the run the row *number* is of; 0 where there is none."""
        return 0 if number is None else number - self.numbers[0] + 1

    @property
    def due(self) -> bool:
        """Whether the run's row has to be written anew."""
        return self.told == 0 or self.entries - self.told >= STEPS

    @staticmethod
    def new(run_id: str, number: int) -> Trail:
        """Begin a trail."""
        return Trail(None, number, _ground(run_id))

    @staticmethod
    def of(run_id: str, row: dict[str, Any]) -> Trail:
        """Make it from the row of its run."""
        last, number = bytes.fromhex(row.pop("last")), row.pop("number")
        run = JournalledRun(run_id, **row)
        return Trail(run, number, last, run.entries, run.entries)

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
            JournalError: nothing is known of the run, and the first does not say that it begins.
        """
        run, last = grown(self.run, entries), self.last
        rows: list[Row] = []
        name = None if self.entries else data(run.run_id)
        for number, entry in enumerate(entries, numbers(self.number)[0] + self.entries):
            body = _body(entry)
            last = seal(last, body)
            rows.append((number, name, last, body))
            name = None
        told = self.told if run is self.run else 0  # what lists tell of it has changed
        return Trail(run, self.number, last, self.entries + len(entries), told), rows


def _body(entry: Entry) -> bytes:
    """Write all facts but the run's id as a JSON list, in half of the time that :mod:`json` takes."""
    times = f"{entry.at!r},{entry.duration!r}"
    if "n" in times:  # of inf or nan, which JSON calls otherwise
        times = f"{json.dumps(entry.at)},{json.dumps(entry.duration)}"
    return data(
        f"[{_text(entry.key)},{_text(entry.kind)},{_text(entry.name)},{_text(entry.state)},{_text(entry.parent)},"
        f"{_text(entry.inputs)},{_text(entry.value)},{_text(entry.error)},{_text(entry.code)},"
        f"{times},{entry.attempts},{_text(entry.info)}]"
    )


def numbers(run: int) -> tuple[int, int]:
    """Tell the first and the last number that rows of *run* can have."""
    return run << 32 | 1, run << 32 | 0xFFFFFFFF


def read(
    path: Path, run_id: str, trail: Trail, rows: Iterable[tuple[Any, Any, Any, Any]]
) -> tuple[Entry, ...]:
    """Make the entries of a run from its rows.

    Raises:
        JournalError: one has changed, is lost, or is another's.
    """
    entries, last, name = list[Entry](), _ground(run_id), data(run_id)
    for expected, (number, run, found, body) in enumerate(rows, trail.numbers[0]):
        right = number == expected and run == (None if entries else name) and proven(body, last, found)
        if not right or (len(entries) + 1 == trail.entries and found != trail.last):
            raise damaged(path, f"entry {len(entries) + 1} of run {run_id!r}")
        entries.append(Entry(run_id, *listed(body)))
        last = found
    if len(entries) < trail.entries:
        raise damaged(
            path, f"run {run_id!r} (it has {len(entries)} entries, and should have {trail.entries})"
        )
    return tuple(entries)


def whole(trail: Trail, rows: Iterable[tuple[Any, Any, Any, Any]]) -> Trail | None:
    """Tell *trail* to its end, by its *rows* from the last one on that the run's row tells of.

    None says that one of them has changed, is lost, or is another's. Where there are none, it is for who reads to say.
    """
    count, last = trail.entries - 1, trail.last
    for expected, (number, _, found, body) in enumerate(rows, trail.numbers[0] + count):
        right = found == last if count < trail.entries else proven(body, last, found)
        if number != expected or not right:
            return None
        count, last = count + 1, found
    return trail if count < trail.entries else trail._replace(entries=count, last=last)


def _ground(run_id: str) -> bytes:
    return seal(b"entries", data(run_id))
