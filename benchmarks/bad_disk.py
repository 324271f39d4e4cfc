"""A disk that fails at one write of a journal, once or until it is mended."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

from shapes import JOURNAL, did, execute
from sweeping import CHANGES

from flowlet import JournalError, recorded

FAULTS = {
    "EIO once": (sqlite3.SQLITE_IOERR_WRITE, False),
    "EIO sticky": (sqlite3.SQLITE_IOERR_WRITE, True),
    "ENOSPC once": (sqlite3.SQLITE_FULL, False),
    "ENOSPC sticky": (sqlite3.SQLITE_FULL, True),
}
SUSPENDED = 7
"""How a process ends whose run was suspended, as it should be."""


class Disk:
    """Fails with *code* at write number *at*; a sticky one at all that follow, too."""

    def __init__(self, code: int, sticky: bool, at: int) -> None:
        self.code, self.sticky, self.at = code, sticky, at
        self.writes = 0

    def use(self, statement: str, call: Callable[[], Any]) -> Any:
        """Do *call*, which executes *statement*, or fail."""
        if statement.startswith(CHANGES):
            self.writes += 1
            if self.at and (self.writes >= self.at if self.sticky else self.writes == self.at):
                error = sqlite3.OperationalError("of the disk")
                error.sqlite_errorcode = self.code
                raise error
        return call()


def connection(disk: Disk) -> type[sqlite3.Connection]:
    """Make the connections of SQLite that use *disk*."""

    class Connection(sqlite3.Connection):
        def execute(self, *statement: Any) -> Any:
            return disk.use(statement[0], partial(super().execute, *statement))

        def executemany(self, *statement: Any) -> Any:
            return disk.use(statement[0], partial(super().executemany, *statement))

        def executescript(self, script: str) -> Any:
            return disk.use(f"CREATE {script}", partial(super().executescript, script))

    return Connection


def fail_at(shape: str, backend: str, fault: str, at: int) -> None:
    """Run *shape* on a disk that fails; note the state that the journal has then, when the fault has passed."""
    disk = Disk(*FAULTS[fault], at)
    sqlite3.connect = partial(sqlite3.connect, factory=connection(disk))  # type: ignore[assignment]
    try:
        execute(shape, backend)
    except JournalError:
        disk.at = 0
        did("state", _state())
        os._exit(SUSPENDED)


def _state() -> str:
    try:
        return recorded("r", JOURNAL).run.state
    except JournalError as exc:
        if "there is no run 'r'" not in str(exc):
            raise
        return "unknown"
