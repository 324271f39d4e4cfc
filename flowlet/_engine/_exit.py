"""The end of the process: background runs are cancelled, with grace for their model calls, and failures are told."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from weakref import ref

from ..context import RunRecord
from ..events import RunsCancelledAtExit
from ..settings import process
from ._crossing import SETTLE
from ._runs import cancel, tell_unfetched
from ._runtimes import Runtimes
from ._threads import Latch
from ._watch import Watch

FAREWELL = 0.25
"""Seconds that a background loop gets to close itself; one that is blocked does not hold the exit."""


class Background:
    """The runs that go on without the caller: on worker threads and background loops."""

    def __init__(self) -> None:
        self._runs: set[RunRecord] = set()
        self._failed: set[ref[RunRecord]] = set()
        self.closers: list[Callable[[], object]] = []
        """Called when these runs have ended, before their loops do."""
        process.of(Watch).start()  # while the interpreter ends, no thread can be started any more

    def add(self, run: RunRecord) -> None:
        """Remember *run* until its end."""
        self._runs.add(run)
        run.on_end(partial(self._ended, run))

    def _ended(self, run: RunRecord) -> None:
        self._runs.discard(run)
        if run.error_text is not None:
            self._failed.add(ref(run, self._failed.discard))

    def going_on(self) -> tuple[RunRecord, ...]:
        """Those that have not ended."""
        return tuple(self._runs)

    def failed(self) -> list[RunRecord]:
        """Those that have failed, as far as anybody still holds them, the oldest first."""
        held = (known() for known in tuple(self._failed))
        return sorted((run for run in held if run is not None), key=attrgetter("started"))


@atexit.register
def say_farewell() -> None:
    """Cancel the background runs, wait for their model calls within the grace, tell failures, and close the loops."""
    background = process.existing(Background)
    runs = () if background is None else background.going_on()
    try:
        _hear_out()
        if runs:
            process.notice(RunsCancelledAtExit(tuple(run.info for run in runs), time.time()))
            _end(runs)
        for run in () if background is None else background.failed():
            tell_unfetched(run)
        for close in () if background is None else background.closers:
            close()
        _close_loops()
    except KeyboardInterrupt:  # whoever presses it now waits for nothing more
        return


def _hear_out() -> None:
    """Let what was just handed to the clock be told."""
    watch = process.existing(Watch)
    if watch is not None:
        latch = Latch()
        watch.soon(latch.set)
        latch.wait(FAREWELL)


def _end(runs: tuple[RunRecord, ...]) -> None:
    for run in runs:
        cancel(run)
    settled = time.monotonic() + SETTLE
    last = settled + process.settings.grace
    from ._attempts import InFlight  # not with this module, which every program loads

    calls = process.of(InFlight).calls
    for run in runs:
        latch = Latch()
        run.on_end(latch.set)
        while not run.over:
            now = time.monotonic()
            if now > last or (now > settled and not calls):
                return
            latch.wait(min(last, now + FAREWELL) - now)


def _close_loops() -> None:
    runtimes = process.existing(Runtimes)
    for thread in () if runtimes is None else runtimes.close():
        thread.join(FAREWELL)
