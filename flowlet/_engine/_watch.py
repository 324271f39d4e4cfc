"""The clock of the engine: one daemon thread that calls functions at their time, whatever the loops do."""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable

from .._scope import call_all
from ._threads import started

FEW = 1000
"""Timers that are kept, cancelled or not, without a look."""


class Timer:
    """A call that will be made at its time, unless it is cancelled."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], object]) -> None:
        self.when = when
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Drop the call; what it refers to is released at once."""
        self.call = None


class Watch:
    """Calls functions when their time on the monotonic clock has come. They must be quick."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._asked: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._purge_at = FEW
        self._timers: list[tuple[float, int, Timer]] = []
        self._serial = itertools.count()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the clock, so that it goes when no thread can be had any more.

        Raises:
            FlowletError: the system refuses the clock its thread.
        """
        with self._lock:
            if self._thread is None:
                self._thread = started(self._run, "flowlet watch")

    def at(self, when: float, call: Callable[[], object]) -> Timer:
        """Call *call* at *when* (``time.monotonic()``).

        Raises:
            FlowletError: the system refuses the clock its thread.
        """
        timer = Timer(when, call)
        with self._lock:
            if len(self._timers) >= self._purge_at:  # at most half of many are cancelled ones
                self._timers = [entry for entry in self._timers if entry[2].call is not None]
                heapq.heapify(self._timers)
                self._purge_at = max(FEW, 2 * len(self._timers))
            if self._thread is None:
                self.start()
            heapq.heappush(self._timers, (when, next(self._serial), timer))
            if self._timers[0][2] is timer:
                self._asked.put(None)
        return timer

    def soon(self, call: Callable[[], object]) -> None:
        """Call *call* at once, in the thread of the clock. It takes no lock, so a destructor may ask for it."""
        self._asked.put(call)

    def after(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call *call* in *seconds*."""
        return self.at(time.monotonic() + seconds, call)

    def _run(self) -> None:
        while True:
            call_all((self._next(),))

    def _next(self) -> Callable[[], object]:
        while True:
            with self._lock:
                while self._timers and self._timers[0][2].call is None:
                    heapq.heappop(self._timers)
                wait = self._timers[0][0] - time.monotonic() if self._timers else None
                if wait is not None and wait <= 0:
                    call = heapq.heappop(self._timers)[2].call
                    if call is not None:
                        return call
                    continue
            try:
                call = self._asked.get(timeout=None if wait is None else min(wait, threading.TIMEOUT_MAX))
            except queue.Empty:
                continue
            if call is not None:
                return call
