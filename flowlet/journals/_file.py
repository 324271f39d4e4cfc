"""The one connection to a journal's file: opened when it is needed, closed after a fault and before a fork."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Literal, TypeVar, TypeVarTuple
from weakref import WeakSet

from .._forks import at_fork
from ..settings import process
from ._faults import BUSY, fault, told
from ._opening import LOG, check_free, connect, create, look, may_write, nothing
from ._trail import Trail

__all__ = ["JournalFile"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_SEEN = 1000
"""How many trails are remembered at most."""
_LONG = LOG * 3 // 4
"""Pages of a log for whose end those who write have to wait, since they would never let it come to one."""

_files: WeakSet[JournalFile] = WeakSet()  # of this process and its children: a fork keeps them
_locked: list[JournalFile] = []  # while a fork goes on


class JournalFile:
    """The database at *path*, for one thread at a time. Whoever comes next after a fault opens it again.

    *seen* keeps the ends of trails, which then need not be read again; it is emptied when another connection
    has written, and when something went wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = str(path)
        self.lock = threading.Lock()
        self._tidying = threading.Lock()
        self.seen: dict[str, Trail] = {}
        self._version: object = None
        self._db: sqlite3.Connection | None = None
        self._brief = False  # whether the connection is for one look
        self._waits = True
        self._inode: tuple[int, int] | None = None
        with process.lock:
            _files.add(self)

    def read(self, look: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        """Look at the file, as it is at one moment, by *look*, which gets a connection and *args*.

        Raises:
            JournalError: something went wrong with it.
        """
        with self.lock:
            return self._transact("DEFERRED", True, look, *args)

    def write(self, change: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        """Make a change, all of it or nothing.

        Raises:
            JournalError: something went wrong with the file.
        """
        with self.lock:
            return self._transact("IMMEDIATE", True, change, *args)

    def write_nowait(self, change: Callable[[sqlite3.Connection, *Ts], object], *args: *Ts) -> bool:
        """Make a change, where the file is open and nobody else uses it; False says that nothing was done.

        Raises:
            JournalError: something went wrong with the file.
        """
        if self._db is None or self.lock.locked():
            return False
        with self.lock:  # whoever took it just now is waited for: a bare acquire() is not safe from Ctrl-C
            try:
                self._transact("IMMEDIATE", False, change, *args)
            except _BusyError:
                return False
        return True

    def tidy(self) -> None:
        """Write the log back, beside those who write.

        Raises:
            JournalError: something went wrong with the file.
        """
        with self._tidying, told(self.path):
            with closing(connect(self.path)) as db:
                pages = _written_back(db)
            if pages > _LONG:
                with self.lock:
                    if self._db is not None:
                        _written_back(self._db)

    def _transact(
        self,
        kind: Literal["IMMEDIATE", "DEFERRED"],
        waits: bool,
        work: Callable[[sqlite3.Connection, *Ts], T],
        *args: *Ts,
    ) -> T:
        try:
            db = self._opened(reading=kind == "DEFERRED")
            if waits is not self._waits:
                self._wait(db, waits)
            try:
                db.execute(f"BEGIN {kind}")
            except sqlite3.OperationalError as exc:
                if waits or exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                raise _BusyError from exc
            self._look(db)
            found = work(db, *args)
            db.execute("COMMIT")
            if self._brief:
                self.shut()
        except _BusyError:
            raise
        except BaseException:
            self.shut()  # which takes back what was half done
            with told(self.path):
                raise
        return found

    def _wait(self, db: sqlite3.Connection, waits: bool) -> None:
        """Wait for the locks of others and for the disk, or not."""
        db.execute(f"PRAGMA busy_timeout = {BUSY * 1000 if waits else 0:.0f}")
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG if waits else 0}")
        self._waits = waits

    @property
    def is_there(self) -> bool:
        """Whether the file was there, or is there."""
        return self._inode is not None or self.path.exists()

    def close(self) -> None:
        """Close the connection, when nobody uses it any more."""
        with self._tidying, self.lock:
            self.shut()

    def shut(self) -> None:
        """Close the connection. The caller has the lock."""
        self.seen.clear()
        self._waits = True
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):  # what these could tell was told by the call that failed
                db.rollback()  # closing alone waits for cursors, which a traceback may hold
            with suppress(sqlite3.Error):
                db.close()

    def hold(self) -> None:
        """Let nobody at the file."""
        self._tidying.acquire()
        self.lock.acquire()

    def let_go(self) -> None:
        """Let others at the file again."""
        self.lock.release()
        self._tidying.release()

    def _look(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA data_version").fetchone()
        if version != self._version or len(self.seen) > _SEEN:
            self.seen.clear()
            self._version = version

    def __del__(self) -> None:
        self.shut()

    def _opened(self, *, reading: bool) -> sqlite3.Connection:
        """Give the connection, if it is still one to the file of that name."""
        try:
            found = os.stat(self._name)  # noqa: PTH116 -- asked with every write
        except (FileNotFoundError, NotADirectoryError):
            return self._anew(reading=reading)
        inode = found.st_dev, found.st_ino
        if self._db is None or inode != self._inode:
            self.shut()
            if S_ISDIR(found.st_mode):
                raise fault(self.path, "it is a directory", "name a file")
            if not found.st_size:
                raise fault(
                    self.path,
                    "it is empty, so it has lost what it held",
                    "restore it, or remove it for a new one",
                )
            self._brief = reading and not may_write(self.path)
            self._db = look(self.path) if self._brief else connect(self.path)
            self._inode = inode
        return self._db

    def _anew(self, *, reading: bool) -> sqlite3.Connection:
        """Make the file, or read as if it were there."""
        self.shut()
        if self._inode is not None:
            raise fault(self.path, "it has vanished", "put it back, or start anew to begin another")
        if reading:
            check_free(self.path)
            self._brief, self._db = True, nothing()
            return self._db
        create(self.path)
        return self._opened(reading=False)


class _BusyError(Exception):
    """Another process has the file locked."""


def _written_back(db: sqlite3.Connection) -> int:
    """Write the log back as far as nobody hinders that; tell how many pages are in it."""
    _, pages, _ = db.execute("PRAGMA wal_checkpoint").fetchone()
    return int(pages)


def _before_fork() -> None:
    with process.lock:
        _locked[:] = _files
    for file in _locked:
        file.hold()
        file.shut()


def _after_fork() -> None:
    for file in _locked:
        file.let_go()
    _locked.clear()


def _at_end() -> None:
    for file in list(_files):
        file.close()


process.at_end(_at_end)
at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
