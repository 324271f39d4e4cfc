"""From a path to a connection: a journal is born whole, and known by its mark."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

from ._faults import BUSY, fault

__all__ = ["connect", "create"]

MARK = int.from_bytes(b"flow")
VERSION = 2

# A name is what is looked for; the body is JSON; the digest covers both, and for an entry the one before it.
# The number of an entry is that of its run and its own, so that one who adds to a run adds at one end of it.
_SCHEMA = f"""\
PRAGMA application_id = {MARK};
PRAGMA user_version = {VERSION};
CREATE TABLE counts (name BLOB PRIMARY KEY, digest BLOB, body BLOB) WITHOUT ROWID;
CREATE TABLE runs (name BLOB PRIMARY KEY, digest BLOB, body BLOB) WITHOUT ROWID;
CREATE TABLE cache (name BLOB PRIMARY KEY, digest BLOB, body BLOB) WITHOUT ROWID;
CREATE TABLE entries (number INTEGER PRIMARY KEY, run BLOB, digest BLOB, body BLOB);
CREATE INDEX firsts ON entries (run) WHERE run IS NOT NULL;
PRAGMA journal_mode = WAL;
"""
_SETTINGS = """\
PRAGMA synchronous = NORMAL;
PRAGMA cell_size_check = ON;
PRAGMA wal_autocheckpoint = 4000;
"""


def create(path: Path) -> None:
    """Make an empty journal at *path*, unless somebody else has just done so.

    It is made under another name, so that a file of that name is always a whole journal: one that is
    empty, or cut off, has lost something.

    Raises:
        JournalError: the directory does not exist, or there are remains of a journal.
        OSError: the file can't be made.
        sqlite3.Error: the same.
    """
    if not path.parent.is_dir():
        raise fault(path, f"there is no directory {path.parent}", "create it, or name another file")
    remains = path.with_name(f"{path.name}-wal")
    if remains.exists():
        raise fault(
            path, f"it is gone, but its log {remains.name} is there", "put it back, or remove the log"
        )
    draft = path.with_name(f"{path.name}-{uuid4().hex[:12]}.new")
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as db:
            db.executescript(_SCHEMA)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        for name in (draft, draft.with_name(f"{draft.name}-journal")):
            name.unlink(missing_ok=True)


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal at *path*, which exists.

    Raises:
        JournalError: it is none, or of a newer version.
        sqlite3.Error: it can't be opened.
    """
    uri = f"{path.as_uri()}?mode=rw"
    db = sqlite3.connect(uri, timeout=BUSY, isolation_level=None, check_same_thread=False, uri=True)
    db.text_factory = bytes  # damage may make text of anything
    try:
        _check(path, _asked(db, "application_id"), _asked(db, "user_version"))
        if _asked(db, "journal_mode") != b"wal":
            db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_SETTINGS)
    except BaseException:
        db.close()
        raise
    return db


def _asked(db: sqlite3.Connection, pragma: str) -> object:
    return db.execute(f"PRAGMA {pragma}").fetchone()[0]


def _check(path: Path, mark: object, version: object) -> None:
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
