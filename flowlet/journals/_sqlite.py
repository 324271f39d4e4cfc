"""A journal in one file of SQLite, which survives its process and can be shared with others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from operator import attrgetter
from os import PathLike
from pathlib import Path
from sqlite3 import Connection, IntegrityError
from typing import Any

from attrs import evolve

from ..entries import Entry, JournalledRun
from ..errors import DamagedRuns, JournalError
from ._claims import Claims
from ._faults import damaged, told
from ._file import JournalFile
from ._lines import by_run
from ._sealed import data
from ._table import Table
from ._trail import Trail, numbers, read, whole

__all__ = ["SQLiteJournal"]

_ALL = "runs"
_AT_ONCE = 10_000
_LARGE = 1 << 13
"""Characters in entries that an event loop does not write itself."""
_INSERT = "INSERT INTO entries VALUES (?, ?, ?, ?)"
_NEXT = """\
INSERT INTO entries VALUES (IFNULL((SELECT number + 1 FROM entries WHERE number = ? AND digest = ?), 'none'), ?, ?, ?)
"""
"""Adds behind an entry that is there; else ``none``, which is no number, is an IntegrityError."""
_UNLISTED = " (it has entries, and is not among the runs)"
_LOST = "SELECT run FROM entries WHERE run IS NOT NULL AND run NOT IN (SELECT name FROM runs)"
_OF_RUN = "FROM entries WHERE number BETWEEN ? AND ?"


class SQLiteJournal:
    """Keeps runs in the file *path*, which is made when something is first written; to read is to change nothing.

    What :meth:`append` has taken survives a kill of the process, at any moment; a loss of power may cost the
    last moments, never more. Other processes may use the same file, on the same machine. What has changed
    since it was written, is cut off or lost is found when it is read, and an error. All that goes wrong is a
    ``JournalError``; when the fault has passed, the same call works.

    Raises:
        JournalError: *path* is SQLite's ``":memory:"``, which is no file.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        if path == ":memory:":
            raise JournalError("the journal ':memory:' is no file; for one in memory write MemoryJournal()")
        self.path = Path(path).expanduser().resolve()
        self._file = JournalFile(self.path)
        self._runs = Table(self.path, "runs", "run")
        self._cache = Table(self.path, "cache", "the cached value of")
        self._counts = Table(self.path, "counts", "the number of")

    def __repr__(self) -> str:
        return f"SQLiteJournal({str(self.path)!r})"

    def append(self, entries: Sequence[Entry], /) -> None:
        """Add *entries*, all or none; when this returns they survive a kill of the process.

        Raises:
            JournalError: they could not be written, or the first entry of a run does not say that it begins.
        """
        self._file.use(self._append, entries)

    def append_nowait(self, entries: Sequence[Entry], /) -> bool:
        """Add *entries*, if nobody else is at the file and they are not large; False says that nothing was added.

        Raises:
            JournalError: they could not be written, or the first entry of a run does not say that it begins.
        """
        if sum(len(entry.value) + len(entry.inputs) + len(entry.error) for entry in entries) > _LARGE:
            return False
        return self._file.use_nowait(self._append, entries)

    def tidy(self) -> None:
        """Write SQLite's log back, beside those who write.

        Raises:
            JournalError: the file can't be written.
        """
        self._file.tidy()

    def read(self, run_id: str, /) -> Sequence[Entry]:
        """Tell all entries of a run in their order; nothing for a run that is not known.

        Raises:
            JournalError: they can't be read, or are not as they were written.
        """
        trail, rows = self._file.read(self._rows, run_id)
        return () if trail is None else read(self.path, run_id, trail, rows)

    def runs(self) -> Sequence[JournalledRun]:
        """Tell the runs, the newest first.

        Raises:
            DamagedRuns: some are not as they were written; it has the others.
            JournalError: they can't be read.
        """
        ends, faults = self._file.read(self._ends)
        faults += (f"the end of run {run_id!r}" for run_id, trail in ends.items() if trail is None)
        trails = [trail for trail in ends.values() if trail is not None]
        trails.sort(key=attrgetter("number"), reverse=True)
        found = self._owned(trails)
        if faults:
            raise DamagedRuns(damaged(self.path, *faults).message, found)
        return found

    def run(self, run_id: str, /) -> JournalledRun | None:
        """Tell how one run stands, whatever has become of others; None for a run that is not known.

        Raises:
            JournalError: it can't be read, or is not as it was written.
        """
        trail = self._file.read(self._whole, run_id)
        return None if trail is None else next(iter(self._owned([trail])))

    def claim(self, run_id: str, /) -> str | None:
        """Take a run for this process, until it gives it back or ends; None is success, else it is who has it.

        Raises:
            JournalError: the file of claims can't be used.
        """
        with told(self.path):
            return Claims.of(self.path).take(run_id)

    def release(self, run_id: str, /) -> None:
        """Give a run back.

        Raises:
            JournalError: the file of claims can't be used.
        """
        with told(self.path):
            Claims.of(self.path).release(run_id)

    def forget(self, run_ids: Sequence[str], /) -> None:
        """Drop runs with all their entries, damaged ones too, and count the others anew; the file becomes smaller.

        Raises:
            JournalError: the file can't be written.
        """
        if self._file.is_there:
            self._file.write(self._drop, run_ids)
            self._give_back()

    def kept(self, key: str, now: float, /) -> str | None:
        """Tell the cached value of *key*, unless it has expired at *now*.

        Raises:
            JournalError: it can't be read, or is not as it was written.
        """
        row = self._file.read(self._cache.get, key)
        value: str | None = None if row is None or _is_over(now, row) else row["value"]
        return value

    def keep(self, key: str, value: str, expires: float | None, /) -> None:
        """Cache *value* under *key* until *expires*, or for good.

        Raises:
            JournalError: it can't be written.
        """
        self._file.write(self._cache.put, key, {"value": value, "expires": expires})

    def expire(self, now: float, /) -> None:
        """Drop the cached values that have expired at *now*, and damaged ones. While it looks, others may write.

        Raises:
            JournalError: the file can't be read or written.
        """
        ended = self._file.read(self._cache.ended, partial(_is_over, now))
        for at in range(0, len(ended), _AT_ONCE):  # between them others write
            self._file.write(self._cache.drop_as_told, ended[at : at + _AT_ONCE])
        self._give_back()

    def close(self) -> None:
        """Close the file; a later call opens it again. Claims stay."""
        self._file.close()

    def _give_back(self) -> None:
        """Give the pages that hold nothing any more back to the system."""
        free = self._file.read(_free)
        for at in range(0, free, _AT_ONCE):  # between them others write
            self._file.write(_vacuum, min(free - at, _AT_ONCE))

    def _append(self, db: Connection, entries: Sequence[Entry]) -> None:
        if len(entries) != 1 or not self._add_one(db, entries):
            self._file.transact(db, self._add, entries)

    def _add_one(self, db: Connection, entries: Sequence[Entry]) -> bool:
        """Add an entry by one statement, of which SQLite makes a transaction, if the run ends as it was seen."""
        run_id = entries[0].run_id
        seen = self._file.seen.get(run_id)
        if seen is None:
            return False
        trail, ((number, _, seal, body),) = seen.with_entries(entries)
        if trail.due:
            return False
        try:
            db.execute(_NEXT, (number - 1, seen.last, None, seal, body))
        except IntegrityError:  # the last row has changed or is lost, or there is another behind it
            return False
        self._file.seen[run_id] = trail
        return True

    def _add(self, db: Connection, entries: Sequence[Entry]) -> None:
        for run_id, group in by_run(entries).items():
            seen = self._file.seen.get(run_id)
            known = seen or self._whole(db, run_id)
            trail, rows = (known or self._new(db, run_id)).with_entries(group)
            db.executemany(_INSERT, rows)
            if known is not seen:
                self._check_place(db, run_id, trail)
            if trail.due:
                self._runs.put(db, run_id, trail.row())
                trail = trail._replace(told=trail.entries)
            self._file.seen[run_id] = trail

    def _rows(self, db: Connection, run_id: str) -> tuple[Trail | None, list[Any]]:
        """Tell the trail of a run, and its rows."""
        trail = self._trail(db, run_id)
        return trail, [] if trail is None else db.execute(f"SELECT * {_OF_RUN}", trail.numbers).fetchall()

    def _ends(self, db: Connection) -> tuple[dict[str, Trail | None], list[str]]:
        """Tell the trails of all runs to their ends, and what is damaged otherwise."""
        rows, faults = self._runs.all(db)
        faults += self._lost(db, len(rows) + len(faults))
        return {run_id: self._to_its_end(db, Trail.of(run_id, row)) for run_id, row in rows.items()}, faults

    def _drop(self, db: Connection, run_ids: Sequence[str]) -> None:
        self._file.seen.clear()
        for run_id in run_ids:
            number = self._number(db, run_id)
            if number is not None:
                db.execute(f"DELETE {_OF_RUN}", numbers(number))
            self._runs.drop(db, run_id)
        self._recount(db)

    def _trail(self, db: Connection, run_id: str) -> Trail | None:
        row = self._runs.get(db, run_id)
        if row is None and self._begun(db, run_id) is not None:
            raise damaged(self.path, f"run {run_id!r}{_UNLISTED}")
        return None if row is None else Trail.of(run_id, row)

    def _begun(self, db: Connection, run_id: str) -> int | None:
        """Tell which number a run has by its first entry."""
        found = db.execute("SELECT number FROM entries WHERE run = ?", (data(run_id),)).fetchone()
        return None if found is None else found[0] >> 32

    def _number(self, db: Connection, run_id: str) -> int | None:
        """Tell which number a run has, damaged or not."""
        with suppress(JournalError):
            trail = self._trail(db, run_id)
            return None if trail is None else trail.number
        return self._begun(db, run_id)

    def _owned(self, trails: Sequence[Trail]) -> tuple[JournalledRun, ...]:
        """Tell the runs of *trails*, with who executes each."""
        runs = [evolve(trail.run, entries=trail.entries) for trail in trails if trail.run is not None]
        with told(self.path):
            owners = Claims.of(self.path).owners(run.run_id for run in runs)
        return tuple(evolve(run, owner=owners.get(run.run_id)) for run in runs)

    def _lost(self, db: Connection, count: int) -> list[str]:
        """Say which runs are not listed where their number is not *count*, as far as that can be told."""
        try:
            known, _ = self._counted(db)
        except JournalError:
            return ["the number of runs"]
        if count == known:
            return []
        lost = db.execute(_LOST).fetchall()
        return [self._runs.shown(name) + _UNLISTED for (name,) in lost] or [
            f"the list of runs (it has {count}, and should have {known})"
        ]

    def _whole(self, db: Connection, run_id: str) -> Trail | None:
        """Tell the trail of a run to its end, which its row may not tell of yet.

        Raises:
            JournalError: it is not as it was written.
        """
        trail = self._trail(db, run_id)
        found = None if trail is None else self._to_its_end(db, trail)
        if trail is not None and found is None:
            raise damaged(self.path, f"the end of run {run_id!r}")
        return found

    def _check_place(self, db: Connection, run_id: str, trail: Trail) -> None:
        """See that what was added to a run is where it is looked for: a damaged tree may lead elsewhere.

        Raises:
            JournalError: it is not.
        """
        found = self._whole(db, run_id)
        if found is None or (found.entries, found.last) != (trail.entries, trail.last):
            raise damaged(self.path, f"the end of run {run_id!r}")

    def _to_its_end(self, db: Connection, trail: Trail) -> Trail | None:
        first, last = trail.numbers
        rows = db.execute(f"SELECT * {_OF_RUN}", (first + trail.entries - 1, last))
        return whole(trail, rows.fetchall())

    def _new(self, db: Connection, run_id: str) -> Trail:
        """Begin a run."""
        runs, ever = self._counted(db)
        self._count(db, runs + 1, ever + 1)
        return Trail.new(run_id, ever + 1)

    def _counted(self, db: Connection) -> tuple[int, int]:
        """Tell how many runs there are, and how many there ever were."""
        row = self._counts.get(db, _ALL) or {"runs": 0, "ever": 0}
        return row["runs"], row["ever"]

    def _recount(self, db: Connection) -> None:
        """Count the runs that are there; those that were lost before are not missed any more."""
        (listed,) = db.execute("SELECT COUNT(*) FROM runs").fetchone()
        self._count(db, listed + len(db.execute(_LOST).fetchall()), self._ever(db))

    def _ever(self, db: Connection) -> int:
        """Tell how many runs there ever were, or, where that is not known, what may stand for it."""
        with suppress(JournalError):
            known = self._counts.get(db, _ALL)
            if known is not None:
                return int(known["ever"])
        rows, _ = self._runs.all(db)
        (newest,) = db.execute("SELECT MAX(number) FROM entries").fetchone()
        found: list[int] = [row["number"] for row in rows.values()]
        return max([(newest or 0) >> 32, *found])

    def _count(self, db: Connection, runs: int, ever: int) -> None:
        self._counts.put(db, _ALL, {"runs": runs, "ever": ever})


def _free(db: Connection) -> int:
    (pages,) = db.execute("PRAGMA freelist_count").fetchone()
    return int(pages)


def _vacuum(db: Connection, pages: int) -> None:
    for _ in range(pages):
        db.execute("PRAGMA incremental_vacuum(1)")  # of more, execute() would do the first


def _is_over(now: float, row: dict[str, Any]) -> bool:
    return row["expires"] is not None and row["expires"] <= now
