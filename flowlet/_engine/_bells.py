"""What wakes a thread that waits: a counter of the kernel where there are some (Linux), elsewhere a lock.

A lock wakes its waiter while the other thread has the interpreter lock, so it wakes, waits again and is woken
twice. Who writes to a file has let go of the interpreter lock: a hop takes half the time.
"""

from __future__ import annotations

import os
import select
import threading
from typing import Protocol

from .._forks import at_fork, this_process

MOST = 64
"""How many counters there are at most, and no more than a quarter of the files that the process may open."""

_LONGEST = 2**31 - 1
"""Milliseconds that the kernel lets somebody wait at most."""

_open: set[int] = set()  # the counters of this process
at_fork(after_in_child=_open.clear)


class Bell(Protocol):
    """Wakes its owner, the one thread that waits for it. Rung before the wait, or many times, it wakes once."""

    process: object
    """Where it was made: a child of a fork shares the counter with its parent, and must make one of its own."""

    def ring(self) -> None:
        """Wake the owner, from any thread."""
        ...

    def wait(self, seconds: float | None) -> bool:
        """Wait until it is rung, *seconds* at most; whether it was. Signals get through."""
        ...


def bell() -> Bell:
    """Make one for this thread."""
    try:
        if len(_open) < min(MOST, os.sysconf("SC_OPEN_MAX") // 4):
            return _Counter(os.eventfd(0))
    except (AttributeError, OSError):  # there are none, or no more files may be open
        pass
    return _Lock()


class _Counter:
    """A counter in the kernel, closed with the last who could ring."""

    __slots__ = ("_file", "_poll", "process")

    def __init__(self, file: int) -> None:
        _open.add(file)
        self.process = this_process()
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
        _open.discard(self._file)
        os.close(self._file)


class _Lock:
    __slots__ = ("_lock", "process")

    def __init__(self) -> None:
        self.process = this_process()
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # it was rung before
            return

    def wait(self, seconds: float | None) -> bool:
        return self._lock.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))
