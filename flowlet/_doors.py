"""A lock for those who may wait and those who may not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Door:
    """Lets one thread in at a time. Whoever comes is noted before he takes *lock*, so that others need not try it."""

    def __init__(self, lock: threading.Lock | threading.RLock) -> None:
        self._lock = lock
        self._here: list[None] = []

    def enter(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Do *work* inside, when those who are there have left."""
        self._here.append(None)
        try:
            with self._lock:
                return work(*args)
        finally:
            self._here.pop()

    def enter_nowait(self, work: Callable[[*Ts], bool], *args: *Ts) -> bool:
        """Do *work* inside, if nobody else is there or waits; False, as *work* may say, too, is that it was not done."""
        self._here.append(None)
        try:
            if len(self._here) > 1:
                return False
            with self._lock:
                return work(*args)
        finally:
            self._here.pop()

    def hold(self) -> None:
        """Let nobody in until :meth:`let_go`."""
        self._here.append(None)
        self._lock.acquire()

    def let_go(self, *, alone: bool) -> None:
        """Let others in again; *alone* says that those who waited are of another process."""
        if alone:
            self._here.clear()
        else:
            self._here.pop()
        self._lock.release()
