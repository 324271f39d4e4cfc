"""What wakes a thread that waits: a counter of the kernel where there are some (Linux), elsewhere a lock.

A lock wakes its waiter while the other thread has the interpreter lock, so it wakes, waits again and is woken
twice. Who writes to a file has let go of the interpreter lock: a hop takes half the time.
"""

from __future__ import annotations

import os
import select
import threading
from typing import Protocol

_LONGEST = 2**31 - 1
"""Milliseconds that the kernel lets somebody wait at most."""


class Bell(Protocol):
    """Wakes its owner, the one thread that waits for it. Rung before the wait, or many times, it wakes once."""

    def ring(self) -> None:
        """Wake the owner, from any thread."""
        ...

    def wait(self, seconds: float | None) -> bool:
        """Wait until it is rung, *seconds* at most; whether it was. Signals get through."""
        ...


def bell() -> Bell:
    """Make one for this thread."""
    try:
        return _Counter(os.eventfd(0))
    except (AttributeError, OSError):  # there are none, or no more files may be open
        return _Lock()


class _Counter:
    """A counter in the kernel, closed with the last who could ring."""

    __slots__ = ("_file", "_poll")

    def __init__(self, file: int) -> None:
        self._file = file
        self._poll = select.poll()
        self._poll.register(file, select.POLLIN)

    def ring(self) -> None:
        os.eventfd_write(self._file, 1)

    def wait(self, seconds: float | None) -> bool:
        if seconds is not None and not self._poll.poll(min(seconds * 1000, _LONGEST)):
            return False
        os.read(self._file, 8)
        return True

    def __del__(self) -> None:
        os.close(self._file)


class _Lock:
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # it was rung before
            return

    def wait(self, seconds: float | None) -> bool:
        return self._lock.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))
