"""What SQLite and the system say is wrong with a journal, told as one clear error."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import JournalError

__all__ = ["BUSY", "damaged", "fault", "told"]

BUSY = 5.0
"""Seconds to wait for a lock that another process holds."""

_WAYS: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: ("the disk is full", "make room"),
    sqlite3.SQLITE_IOERR: ("the disk fails", "check the disk"),
    sqlite3.SQLITE_READONLY: (
        "it can't be written",
        "make the file and its directory writable for this user",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "it can't be opened",
        "make the file and its directory readable and writable for this user: SQLite keeps two files beside it",
    ),
    sqlite3.SQLITE_PERM: ("it can't be opened", "give this user the right to read and write it"),
    sqlite3.SQLITE_BUSY: (
        f"another process has held it locked for {BUSY:g} s",
        "end what holds it (a backup, a shell of sqlite3)",
    ),
    sqlite3.SQLITE_NOTADB: (
        "it is not a journal, or its beginning is damaged",
        "name another file, or restore this one from a copy",
    ),
}
_DAMAGED = "it is damaged", "restore it from a copy, or move it away to begin a new one"
_SIGNS = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}
_GROWING = {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE}
_ROOM = 1 << 16  # bytes: the most that SQLite asks for at once, to begin a log
_OTHER = "SQLite fails", "try again"


def fault(path: Path, found: str, do: str) -> JournalError:
    """Make the error that says what was *found* at *path* and what to *do* about it."""
    return JournalError(f"journal {path}: {found}; {do}")


def damaged(path: Path, *what: str) -> JournalError:
    """Make the error for something in the file that is not as it was written."""
    return fault(
        path,
        f"{', '.join(what)} {'is' if len(what) == 1 else 'are'} damaged",
        "restore the file from a copy, or drop what is damaged (flowlet prune)",
    )


@contextmanager
def told(path: Path) -> Generator[None]:
    """Turn what sqlite3 and the system raise into a JournalError.

    Raises:
        JournalError: something went wrong with the journal at *path*.
    """
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as exc:  # the second where SQLite quotes what is damaged
        found, do = _way(path, getattr(exc, "sqlite_errorcode", None))
        raise fault(path, f"{found} ({exc})", do) from exc
    except OSError as exc:
        raise _of_system(path, exc) from exc


def _of_system(path: Path, exc: OSError) -> JournalError:
    """Say which file the system refuses, where it is another than that of *path*."""
    name, found = Path(exc.filename or path).name, str(exc.strerror or exc)
    found = found if name == path.name else f"its file {name} can't be used ({found})"
    if isinstance(exc, PermissionError):
        return fault(path, found, "make that and its directory readable and writable for this user")
    return fault(path, *(_WAYS[sqlite3.SQLITE_FULL] if exc.errno == errno.ENOSPC else (found, "mend that")))


def _way(path: Path, code: int | None) -> tuple[str, str]:
    """Tell what a code of SQLite means, and what to do."""
    kind = None if code is None else code & 0xFF
    if code in _GROWING:  # SQLite does not tell why
        limit = _most_bytes()
        if _is_full(path):
            kind = sqlite3.SQLITE_FULL
        elif limit is not None:
            found = (
                f"it can't grow: this process may write files of {limit:,} bytes at most, or the disk fails"
            )
            return found, "raise that limit (ulimit -f), or check the disk"
    return _DAMAGED if kind is None or kind in _SIGNS else _WAYS.get(kind, _OTHER)


def _is_full(path: Path) -> bool:
    with suppress(OSError):
        return shutil.disk_usage(path.parent).free < _ROOM
    return False


def _most_bytes() -> int | None:
    """How large a file of this process may be, where that is limited."""
    with suppress(ImportError):  # there are other systems
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        return None if limit == resource.RLIM_INFINITY else limit
    return None
