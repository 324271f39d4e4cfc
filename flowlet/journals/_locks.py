"""Locks on single bytes of a file, which the system takes back from a process that is gone.

They are of the kind that SQLite itself uses, so they work wherever a journal does. The process that made one
has it, not its children; there, closing any descriptor of the file gives all of its locks back.
"""

from __future__ import annotations

import os
import struct
import sys

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

    PLACES = 2**62

    # struct flock, whose members every system puts in an order of its own
    _FORMAT, _ORDER = (
        ("hhqqi", ("kind", "whence", "start", "length", "process"))
        if sys.platform.startswith("linux")
        else ("qqihh", ("start", "length", "process", "kind", "whence"))
    )

    def lock(file: int, place: int) -> bool:
        """Lock the byte at *place*; False when another process has it."""
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def unlock(file: int, place: int) -> None:
        """Unlock the byte at *place*."""
        fcntl.lockf(file, fcntl.LOCK_UN, 1, place)

    def holder(file: int, place: int, length: int = 1) -> int | None:
        """Tell the id of another process that has locked a byte there, or 0 when that can't be told.

        A *length* of 0 is all bytes from *place* on.
        """
        asked = {"kind": fcntl.F_WRLCK, "whence": os.SEEK_SET, "start": place, "length": length, "process": 0}
        packed = struct.pack(_FORMAT, *(asked[name] for name in _ORDER))
        found = struct.unpack(_FORMAT, fcntl.fcntl(file, fcntl.F_GETLK, packed))
        told = dict(zip(_ORDER, found, strict=True))
        return None if told["kind"] == fcntl.F_UNLCK else max(told["process"], 0)
