"""The one connection to a journal's file: opened when it is needed, closed after a fault and before a fork."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Literal
from weakref import WeakSet

from .._forks import at_fork
from ..settings import process
from ._faults import fault, told
from ._opening import check_free, connect, create, look, may_write, nothing
from ._trail import Trail

__all__ = ["JournalFile"]

_SEEN = 1000
"""How many trails are remembered at most."""

_files: WeakSet[JournalFile] = WeakSet()  # of this process and its children: a fork keeps them
_locked: list[JournalFile] = []  # while a fork goes on


class JournalFile:
    """The database at *path*, for one thread at a time. Whoever comes next after a fault opens it again.

    *seen* keeps the ends of trails, which then need not be read again; it is emptied when another connection
    has written, and when something went wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.seen: dict[str, Trail] = {}
        self._version: object = None
        self._db: sqlite3.Connection | None = None
        self._brief = False  # whether the connection is for one look
        self._inode: tuple[int, int] | None = None
        with process.lock:
            _files.add(self)

    @contextmanager
    def transaction(self, kind: Literal["IMMEDIATE", "DEFERRED"]) -> Generator[sqlite3.Connection]:
        """Do all that is done with the connection, or nothing of it.

        Raises:
            JournalError: something went wrong with the file.
        """
        with self.lock:
            try:
                db = self._opened(reading=kind == "DEFERRED")
                db.execute(f"BEGIN {kind}")
                self._look(db)
                yield db
                db.execute("COMMIT")
                if self._brief:
                    self.shut()
            except BaseException:
                self.shut()  # which takes back what was half done
                with told(self.path):
                    raise

    @property
    def is_there(self) -> bool:
        """Whether the file was there, or is there."""
        return self._inode is not None or self.path.exists()

    def close(self) -> None:
        """Close the connection, when nobody uses it any more."""
        with self.lock:
            self.shut()

    def shut(self) -> None:
        """Close the connection. The caller has the lock."""
        self.seen.clear()
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):  # what these could tell was told by the call that failed
                db.rollback()  # closing alone waits for cursors, which a traceback may hold
            with suppress(sqlite3.Error):
                db.close()

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
            found = os.stat(self.path)  # noqa: PTH116 -- asked with every write
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


def _before_fork() -> None:
    with process.lock:
        _locked[:] = _files
    for file in _locked:
        file.lock.acquire()
        file.shut()


def _after_fork() -> None:
    for file in _locked:
        file.lock.release()
    _locked.clear()


def _at_end() -> None:
    for file in list(_files):
        file.close()


process.at_end(_at_end)
at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
