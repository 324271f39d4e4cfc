"""The one connection to a journal's file: opened when it is needed, closed after a fault and before a fork."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from stat import S_ISDIR
from typing import Literal, TypeVar, TypeVarTuple
from weakref import WeakSet

from .._doors import Door
from .._forks import at_fork
from ..settings import process
from ._faults import BUSY, fault, told
from ._opening import LOG, VERSION, check_free, connect, create, look, may_write, nothing
from ._trail import Trail

__all__ = ["JournalFile"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_SEEN = 1000
"""How many trails are remembered at most."""
_LONG = LOG * 3 // 4
"""Pages of a log for whose end those who write have to wait, since they would never let it come to one."""
_UNSEEN = LOG // 4
"""Writes, of some pages each, after which a thread has to see how long the log is."""

_files: WeakSet[JournalFile] = WeakSet()  # of this process and its children: a fork keeps them
_forking = threading.Lock()  # one thread at a time
_locked: list[JournalFile] = []  # while it forks


class JournalFile:
    """The database at *path*, for one thread at a time. Whoever comes next after a fault opens it again.

    *seen* keeps the ends of trails, which then need not be read again; it is emptied when another connection
    has written, and when something went wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = str(path)
        self.door = Door(threading.Lock())
        self._tidying = threading.Lock()
        self.seen: dict[str, Trail] = {}
        self._version: object = None
        self._db: sqlite3.Connection | None = None
        self._brief = False  # whether the connection is for one look
        self._waits = True
        self._unseen = 0  # writes since a thread has seen that
        self._inode: tuple[int, int] | None = None
        with process.lock:
            _files.add(self)

    def read(self, look: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        """Look at the file, as it is at one moment, by *look*, which gets a connection and *args*.

        Raises:
            JournalError: something went wrong with it.
        """

        def looked(db: sqlite3.Connection) -> T:
            db.execute("BEGIN")
            found = look(db, *args)
            db.execute("COMMIT")
            if self._brief:
                self.shut()
            return found

        return self.door.enter(self._connected, "reading", looked)

    def write(self, change: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        """Make a change, all of it or nothing.

        Raises:
            JournalError: something went wrong with the file.
        """
        return self.use(self.transact, change, *args)

    def use(self, work: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        """Do *work*, which makes its changes by single statements or by :meth:`transact`.

        Raises:
            JournalError: something went wrong with the file.
        """
        return self.door.enter(self._connected, "writing", work, *args)

    def use_nowait(self, work: Callable[[sqlite3.Connection, *Ts], object], *args: *Ts) -> bool:
        """Do *work*, where the file is open, nobody else uses it and its log is short; False: nothing was done.

        Raises:
            JournalError: something went wrong with the file.
        """
        return self.door.enter_nowait(self._connected_nowait, work, *args)

    def _connected_nowait(self, work: Callable[[sqlite3.Connection, *Ts], object], *args: *Ts) -> bool:
        if self._db is None or self._unseen > _UNSEEN:
            return False
        try:
            self._connected("nowait", work, *args)
        except _BusyError:
            return False
        self._unseen += 1
        return True

    def tidy(self) -> None:
        """Write the log back, beside those who write.

        Who writes next after its end begins the log anew, which waits for the disk: where loops write, that is here.

        Raises:
            JournalError: something went wrong with the file.
        """
        with self._tidying, told(self.path):
            with closing(connect(self.path)) as db:
                pages, left = _written_back(db)
            if pages > _LONG or not (left or self._waits):
                self.door.enter(self._end_log)

    def _end_log(self) -> None:
        if self._db is not None:
            _written_back(self._db)
            if not self._waits:
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            self._unseen = 0

    def transact(
        self, db: sqlite3.Connection, change: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts
    ) -> T:
        """Make a change in a transaction, after a look whether another connection has written."""
        db.execute("BEGIN IMMEDIATE")
        version = db.execute("PRAGMA data_version").fetchone()
        if version != self._version or len(self.seen) > _SEEN:
            self.seen.clear()
            self._version = version
        found = change(db, *args)
        db.execute("COMMIT")
        return found

    def _connected(
        self,
        how: Literal["reading", "writing", "nowait"],
        work: Callable[[sqlite3.Connection, *Ts], T],
        *args: *Ts,
    ) -> T:
        """Do *work* with the connection, which is opened where it has to be, and closed after a fault."""
        waits = how != "nowait"
        try:
            db = self._opened(reading=how == "reading", waits=waits)
            if waits is not self._waits:
                self._wait(db, waits)
            found = work(db, *args)
        except _BusyError:
            raise
        except BaseException as exc:
            if not waits and self._is_busy(exc):
                raise _BusyError from exc
            self.shut()  # which takes back what was half done
            with told(self.path):
                raise
        return found

    def _is_busy(self, exc: BaseException) -> bool:
        """Whether *exc* says that somebody else writes, and no transaction is open, so that nothing was done."""
        code = exc.sqlite_errorcode if isinstance(exc, sqlite3.OperationalError) else 0
        return code & 0xFF == sqlite3.SQLITE_BUSY and self._db is not None and not self._db.in_transaction

    def _wait(self, db: sqlite3.Connection, waits: bool) -> None:
        """Wait for the locks of others, and see to it that the log does not grow long, or not."""
        db.execute(f"PRAGMA busy_timeout = {BUSY * 1000 if waits else 0:.0f}")
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG if waits else 0}")
        self._waits, self._unseen = waits, 0

    @property
    def is_there(self) -> bool:
        """Whether the file was there, or is there."""
        return self._inode is not None or self.path.exists()

    def close(self) -> None:
        """Close the connection, when nobody uses it any more."""
        with self._tidying:
            self.door.enter(self.shut)

    def shut(self) -> None:
        """Close the connection. The caller is alone."""
        self.seen.clear()
        self._waits = True
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):  # what these could tell was told by the call that failed
                db.rollback()  # closing alone waits for cursors, which a traceback may hold
            with suppress(sqlite3.Error):
                db.close()

    def hold(self) -> None:
        """Let nobody at the file, and close it."""
        self._tidying.acquire()
        self.door.hold()
        self.shut()

    def let_go(self, *, alone: bool) -> None:
        """Let others at the file again."""
        self.door.let_go(alone=alone)
        self._tidying.release()

    def __del__(self) -> None:
        self.shut()

    def _opened(self, *, reading: bool, waits: bool = True) -> sqlite3.Connection:
        """Give the connection, if it is still one to the file of that name.

        Raises:
            _BusyError: it is not, and to open it waits.
        """
        try:
            found = os.stat(self._name)  # noqa: PTH116 -- asked with every write
        except (FileNotFoundError, NotADirectoryError):
            if not waits:
                raise _BusyError from None
            return self._anew(reading=reading)
        inode = found.st_dev, found.st_ino
        if self._db is None or inode != self._inode:
            if not waits:
                raise _BusyError
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
    """It would wait: another process has the file locked, or it has to be opened."""


def _written_back(db: sqlite3.Connection) -> tuple[int, int]:
    """Write the log back as far as nobody hinders that; tell how many pages are in it, and how many are left."""
    _, pages, written = db.execute("PRAGMA wal_checkpoint").fetchone()
    return pages, pages - written


def _before_fork() -> None:
    _forking.acquire()
    with process.lock:
        _locked[:] = _files
    for file in _locked:
        file.hold()


def _after_fork(*, alone: bool) -> None:
    for file in _locked:
        file.let_go(alone=alone)
    _locked.clear()
    _forking.release()


def _at_end() -> None:
    for file in list(_files):
        file.close()


process.at_end(_at_end)
at_fork(
    before=_before_fork,
    after_in_parent=partial(_after_fork, alone=False),
    after_in_child=partial(_after_fork, alone=True),
)
