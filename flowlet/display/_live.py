"""Runs shown in a terminal while they go on: a tree there, plain lines anywhere else.

Observers only put events into a queue. One thread of the display takes them out, at most ten times a
second and for at most a tenth of the time, so that a run of any size is not slowed by being watched.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from functools import partial
from typing import Protocol, TextIO
from weakref import WeakSet

from .._engine._threads import started
from ..events import Event, PluginFailed
from ..settings import process
from ._plain import Lines

__all__ = ["live"]

INTERVAL = 0.1
"""Seconds between two pictures, at least."""

PATIENCE = 2.0
"""Seconds that the end of a display waits for a terminal that takes no more text."""


class Painter(Protocol):
    """Where events become visible. Only the thread of the display calls it."""

    def show(self, events: Iterable[Event]) -> None:
        """Show what happened, and what goes on."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class Display:
    """An observer that hands events on to a painter, in a thread of its own, until it is closed."""

    def __init__(self, stream: TextIO, painter: Callable[[TextIO], Painter]) -> None:
        self.stream = stream
        self._events: deque[Event] = deque()
        self._over = threading.Event()
        self._thread = started(partial(self._work, painter), "flowlet display")

    def __call__(self, event: Event) -> None:
        if self._thread.is_alive():  # not after its end, nor in a forked process
            self._events.append(event)

    def close(self) -> None:
        """Show what is left and stop."""
        self._over.set()
        self._thread.join(PATIENCE)

    def _work(self, make: Callable[[TextIO], Painter]) -> None:
        try:
            with closing(make(self.stream)) as painter:
                self._paint(painter)
        except (OSError, ValueError):  # the stream is closed, or nobody reads it any more
            return
        except Exception as exc:  # noqa: BLE001 -- a display must never hurt a run
            process.notice(PluginFailed(None, time.time(), "display", f"{type(exc).__name__}: {exc}"))

    def _paint(self, painter: Painter) -> None:
        pause = INTERVAL
        while not self._over.wait(pause):
            began = time.perf_counter()
            painter.show(self._taken())
            pause = max(INTERVAL, 9 * (time.perf_counter() - began))
        painter.show(self._taken())

    def _taken(self) -> list[Event]:
        return [self._events.popleft() for _ in range(len(self._events))]


class Displays(WeakSet[Display]):
    """The displays of this process that may still be open at its end."""


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def _tree(stream: TextIO) -> Painter:
    from ._tree import Tree  # rich is loaded in the thread of the display

    return Tree(stream)


def live(*, quiet: bool = False, stream: TextIO | None = None) -> ExitStack:
    """Show runs from now on, or those of a block: ``with flowlet.live(): run(talk, "tea")``.

    In a terminal it is a tree of steps and child runs that changes as they go on, with times, tokens and
    cost; anywhere else a plain line for every change of state. A run's tree stays when it has ended. The end of
    the block ends it; without ``with`` it is ``close()`` of what is returned, or the end of the program.

    Args:
        quiet: show nothing.
        stream: where to (default: ``sys.stderr``). One stream has one display; a second does nothing.
    """
    shown_on: TextIO | None = stream or sys.stderr  # which is None where Python has no console
    shown = ExitStack()
    if not (quiet or shown_on is None or _shown_on(shown_on)):
        display = Display(shown_on, _tree if _is_terminal(shown_on) else Lines)
        process.of(Displays).add(display)
        process.observe(lambda observers: (*observers, display))
        shown.callback(_end, display)
    return shown


def _end(display: Display) -> None:
    process.observe(lambda observers: tuple(one for one in observers if one is not display))
    display.close()


def _end_all() -> None:
    for display in list(process.existing(Displays) or ()):
        display.close()


process.at_end(_end_all)


def _shown_on(stream: TextIO) -> bool:
    shown = (one.stream for one in process.settings.observers if isinstance(one, Display))
    return any(one is stream for one in shown)
