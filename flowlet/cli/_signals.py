"""Ctrl-C and SIGTERM: the first cancels the run, the second ends everything at once."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

from .._engine._handle import Run
from ..settings import process

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class AtOnce(BaseException):
    """A second signal came: nobody waits any longer. Its argument is the exit code."""


class Signals:
    """Cancels a run at the first signal, while its block lasts.

    Holds the signal that came, if any. The handler only notes it: what needs locks or writes is
    done by a thread of its own, since the handler may interrupt one that holds them.
    """

    def __init__(self) -> None:
        self.came: signal.Signals | None = None
        self._run: Run[Any] | None = None
        self._before: list[Any] = []

    @property
    def exit_code(self) -> int | None:
        """What a shell says of a program that the signal ended; None when none came."""
        return None if self.came is None else 128 + self.came

    def cancel(self, run: Run[Any]) -> None:
        """Cancel *run* when a signal comes, at once if one came."""
        self._run = run
        if self.came is not None:
            run.cancel()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = [signal.signal(number, self._handle) for number in _SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in zip(_SIGNALS, self._before, strict=False):
            signal.signal(number, before)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.came is not None:
            signal.signal(number, signal.SIG_DFL)  # a third one needs no Python
            raise AtOnce(128 + number)
        self.came = signal.Signals(number)
        threading.Thread(target=self._first, daemon=True).start()

    def _first(self) -> None:
        grace = process.settings.grace
        print(
            f"flowlet: cancelling; model calls in flight may finish within {grace:g} s. "
            "Once more ends it at once.",
            file=sys.stderr,
            flush=True,
        )
        if self._run is not None:
            self._run.cancel()
