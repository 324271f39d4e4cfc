"""From a path to a connection: a journal is born whole, and known by its mark."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from ._claims import Claims
from ._faults import BUSY, fault

__all__ = ["LOG", "PAGE", "VERSION", "check_free", "connect", "create", "look", "may_write", "nothing"]

_MOMENT = 0.002
"""Seconds between two looks whether somebody has made a journal."""

PAGE = 2048
"""Bytes of a page: a step writes one, and where its result is long, as many as that takes."""
MARK = int.from_bytes(b"flow")
VERSION = 2

# A name is what is looked for; the body is JSON; the digest covers both, and for an entry the one before it.
# The number of an entry is that of its run and its own, so that one who adds to a run adds at one end of it.
_SCHEMA = f"""\
PRAGMA page_size = {PAGE};
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA application_id = {MARK};
PRAGMA user_version = {VERSION};
CREATE TABLE counts (name BLOB PRIMARY KEY, digest BLOB, body BLOB) WITHOUT ROWID;
CREATE TABLE runs (name BLOB PRIMARY KEY, digest BLOB, body BLOB) WITHOUT ROWID;
CREATE TABLE cache (name BLOB PRIMARY KEY, digest BLOB, body BLOB) WITHOUT ROWID;
CREATE TABLE entries (number INTEGER PRIMARY KEY, run BLOB, digest BLOB, body BLOB);
CREATE INDEX firsts ON entries (run) WHERE run IS NOT NULL;
PRAGMA journal_mode = WAL;
"""
LOG = 8000
"""Pages that the log may have before who writes next writes them back."""
_SETTINGS = f"""\
PRAGMA synchronous = NORMAL;
PRAGMA cell_size_check = ON;
PRAGMA wal_autocheckpoint = {LOG};
PRAGMA journal_size_limit = 16777216;
"""


def create(path: Path) -> None:
    """Make an empty journal at *path*, unless somebody else has just done so.

    It is made under another name, so that a file of that name is always a whole journal: one that is
    empty, or cut off, has lost something. What a killed process left of that goes with the next one.

    Raises:
        JournalError: the directory does not exist, or there are remains of a journal.
        OSError: the file can't be made.
        sqlite3.Error: the same.
    """
    check_free(path)
    if not os.access(path.parent, os.W_OK):
        raise fault(path, "it can't be made", f"make {path.parent} writable for this user")
    draft = path.with_name(f"{path.name}-new")
    with _alone(path):
        _remove(draft)
        try:
            with closing(sqlite3.connect(draft, isolation_level=None)) as db:
                db.executescript(_SCHEMA)
            if not path.exists():
                draft.rename(path)
        finally:
            _remove(draft)


def check_free(path: Path) -> None:
    """Refuse to take it that there never was a journal at *path*.

    Raises:
        JournalError: the directory does not exist, or there are remains of a journal.
    """
    if not path.parent.is_dir():
        raise fault(path, f"there is no directory {path.parent}", "create it, or name another file")
    remains = path.with_name(f"{path.name}-wal")
    if remains.exists():
        raise fault(
            path, f"it is gone, but its log {remains.name} is there", "put it back, or remove the log"
        )


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Let no other thread or process make the journal meanwhile."""
    claims, began = Claims.of(path), time.monotonic()
    while not claims.take_birth():
        if time.monotonic() - began > BUSY:
            raise fault(path, "another process has been making it for some time", "end that process")
        time.sleep(_MOMENT)
    try:
        yield
    finally:
        claims.release_birth()


def _remove(draft: Path) -> None:
    for end in ("", "-journal", "-wal", "-shm"):
        draft.with_name(draft.name + end).unlink(missing_ok=True)


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal at *path*, which exists.

    Raises:
        JournalError: it is none, or of a newer version.
        sqlite3.Error: it can't be opened.
    """
    db = _opened(path, "mode=rw")
    try:
        _check(path, db)
        if _asked(db, "journal_mode") != b"wal":
            db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_SETTINGS)
    except BaseException:
        db.close()
        raise
    return db


def look(path: Path) -> sqlite3.Connection:
    """Open the journal at *path* for one look, by somebody who may not write it, or not beside it.

    Where nobody has written since it was closed, nobody's log has to be kept apart from the look.

    Raises:
        JournalError: it is none, or of a newer version.
        sqlite3.Error: it can't be opened.
    """
    log = path.with_name(f"{path.name}-wal")
    db = _opened(path, "mode=ro" if log.exists() and log.stat().st_size else "immutable=1")
    try:
        _check(path, db)
        db.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        db.close()
        raise
    return db


def nothing() -> sqlite3.Connection:
    """Open a journal that has nothing."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def may_write(path: Path) -> bool:
    """Whether this user may write the journal at *path*, and the files that SQLite keeps beside it."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _opened(path: Path, how: str) -> sqlite3.Connection:
    uri = f"{path.as_uri()}?{how}"
    db = sqlite3.connect(uri, timeout=BUSY, isolation_level=None, check_same_thread=False, uri=True)
    db.text_factory = bytes  # damage may make text of anything
    return db


def _asked(db: sqlite3.Connection, pragma: str) -> object:
    return db.execute(f"PRAGMA {pragma}").fetchone()[0]


def _check(path: Path, db: sqlite3.Connection) -> None:
    mark, version = _asked(db, "application_id"), _asked(db, "user_version")
    if mark != MARK:
        raise fault(
            path,
            f"it is the database of something else (its mark is {mark}, not {MARK})",
            "name another file",
        )
    if version != VERSION:
        raise fault(
            path,
            f"it is of version {version}, and this flowlet knows version {VERSION}",
            "update flowlet, or name another file" if _is_newer(version) else "name another file",
        )


def _is_newer(version: object) -> bool:
    return isinstance(version, int) and version > VERSION
