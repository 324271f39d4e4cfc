"""How many calls of a step may run at once in this process, from threads and loops alike."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

from .._scope import Scope
from ._crossing import park
from ._loops import current_port
from ._threads import Latch


class _Turn:
    __slots__ = ("granted", "wake")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.granted = False
        self.wake = wake


class _Place:
    """A place that somebody holds, and the ones held around it."""

    __slots__ = ("around", "held", "limiter")

    def __init__(self, limiter: Limiter, around: _Place | None) -> None:
        self.limiter = limiter
        self.around = around
        self.held = True


_innermost: ContextVar[_Place | None] = ContextVar("flowlet_place", default=None)


class Limiter:
    """*places* places, handed on in the order of asking.

    Whoever is called, however deep, by one who holds a place goes in with him: he waits for it.
    """

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._queue: deque[_Turn] = deque()

    def _ask(self, wake: Callable[[], object]) -> _Turn | None:
        with self._lock:
            if self._free:
                self._free -= 1
                return None
            turn = _Turn(wake)
            self._queue.append(turn)
            return turn

    def _give_up(self, turn: _Turn) -> None:
        with self._lock:
            if not turn.granted:
                self._queue.remove(turn)
                return
        self.release()

    @contextmanager
    def place(self, scope: Scope) -> Generator[None]:
        """Hold a place, waiting for it in this thread.

        Raises:
            RunStopped: *scope* was stopped.
        """
        if self._held_around():
            yield
            return
        self.acquire(scope)
        with self._taken():
            yield

    @asynccontextmanager
    async def aplace(self) -> AsyncGenerator[None]:
        """Hold a place, waiting for it in this task."""
        if self._held_around():
            yield
            return
        await self.aacquire()
        with self._taken():
            yield

    def _held_around(self) -> bool:
        place = _innermost.get()
        while place is not None and not (place.held and place.limiter is self):
            place = place.around
        return place is not None

    @contextmanager
    def _taken(self) -> Generator[None]:
        place = _Place(self, around := _innermost.get())
        _innermost.set(place)
        try:
            yield
        finally:
            place.held = False  # for those who go on in a copy of this context
            _innermost.set(around)
            self.release()

    def acquire(self, scope: Scope) -> None:
        """Wait in this thread for a place.

        Raises:
            RunStopped: *scope* was stopped.
        """
        latch = Latch()
        turn = self._ask(latch.set)
        if turn is None:
            return
        try:
            park(latch, scope)
            scope.check()
        except BaseException:
            self._give_up(turn)
            raise

    async def aacquire(self) -> None:
        """Wait in this task for a place."""
        waiter = current_port().waiter()
        turn = self._ask(waiter.wake)
        if turn is None:
            return
        try:
            await waiter.wait()
        except BaseException:
            self._give_up(turn)
            raise

    def release(self) -> None:
        """Give the place to whoever asked first."""
        with self._lock:
            if not self._queue:
                self._free += 1
                return
            turn = self._queue.popleft()
            turn.granted = True
        turn.wake()


class Limits:
    """The limiters of this process: one for each function and number of places."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limiters: weakref.WeakKeyDictionary[Callable[..., Any], dict[int, Limiter]] = (
            weakref.WeakKeyDictionary()
        )

    def of(self, fn: Callable[..., Any], places: int) -> Limiter:
        """The limiter of *fn*."""
        with self._lock:
            by_places = self._limiters.setdefault(fn, {})
            return by_places.setdefault(places, Limiter(places))
