"""Locks on single bytes of a file, which the system takes back from a process that is gone.

Where it has them (Linux), they belong to the descriptor that made them, and end with that: a forked child closes its
copy. Elsewhere they are those that SQLite itself uses: a process has them, not its children, and gives all of them
back when it closes any descriptor of the file. A lock of this second kind, on another byte, tells who has one.
"""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["holder", "lock", "unlock", "PLACES"]

if sys.platform == "win32":
    import msvcrt

    PLACES = 2**31 - 1

    def lock(file: int, place: int) -> bool:
        """Lock the byte at *place*; False when another process has it."""
        os.lseek(file, place, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def unlock(file: int, place: int) -> None:
        """Unlock the byte at *place*."""
        os.lseek(file, place, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

    def holder(file: int, place: int, length: int = 1) -> int | None:
        """Tell the id of another process that has locked a byte there, or 0 when that can't be told."""
        if length != 1:
            return 0
        if not lock(file, place):
            return 0
        unlock(file, place)
        return None

else:
    import fcntl

    PLACES = 2**61
    _TELLING = PLACES + 1  # from a place to the byte that tells who has it

    # struct flock, whose members every system puts in an order of its own
    _FORMAT, _ORDER = (
        ("hhqqi", ("kind", "whence", "start", "length", "process"))
        if sys.platform.startswith("linux")
        else ("qqihh", ("start", "length", "process", "kind", "whence"))
    )

    def lock(file: int, place: int) -> bool:
        """Lock the byte at *place*; False when another process has it."""
        try:
            _do(file, fcntl.F_SETLK, fcntl.F_WRLCK, place + _TELLING)  # first: so who loses finds who wins
            try:
                _do(file, _commands()[0], fcntl.F_WRLCK, place)
            except OSError:
                _do(file, fcntl.F_SETLK, fcntl.F_UNLCK, place + _TELLING)
                raise
        except (BlockingIOError, PermissionError):
            return False
        return True

    def unlock(file: int, place: int) -> None:
        """Unlock the byte at *place*."""
        _do(file, _commands()[0], fcntl.F_UNLCK, place)
        _do(file, fcntl.F_SETLK, fcntl.F_UNLCK, place + _TELLING)

    def holder(file: int, place: int, length: int = 1) -> int | None:
        """Tell the id of another process that has locked a byte there, or 0 when that can't be told."""
        for command, start in ((fcntl.F_GETLK, place + _TELLING), (_commands()[1], place)):
            told = _do(file, command, fcntl.F_WRLCK, start, length)
            if told["kind"] != fcntl.F_UNLCK:
                return max(told["process"], 0)
        return None

    @cache
    def _commands() -> tuple[int, int]:
        """How locks of descriptors are set and looked at; those of processes where the system has no others."""
        if sys.platform.startswith("linux"):
            with Path(os.devnull).open() as file, suppress(OSError):  # an old system, or a sandbox
                _do(file.fileno(), fcntl.F_OFD_GETLK, fcntl.F_WRLCK, 0)
                return fcntl.F_OFD_SETLK, fcntl.F_OFD_GETLK
        return fcntl.F_SETLK, fcntl.F_GETLK

    def _do(file: int, command: int, kind: int, start: int, length: int = 1) -> dict[str, int]:
        asked = {"kind": kind, "whence": os.SEEK_SET, "start": start, "length": length, "process": 0}
        packed = struct.pack(_FORMAT, *(asked[name] for name in _ORDER))
        found = struct.unpack(_FORMAT, fcntl.fcntl(file, command, packed))
        return dict(zip(_ORDER, found, strict=True))
