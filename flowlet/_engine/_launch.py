"""Runs that go on elsewhere, on a worker thread or a loop, and the wait for their end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import anyio

from ..context import Frame, RunRecord
from ..errors import FlowletError, RunStopped
from ..settings import process
from ._bodies import drive, inline
from ._crossing import COURTESY, SETTLE, abandon, grace_of
from ._exit import Background
from ._loops import Port, current_port, library
from ._runs import break_off, cancel, end_stopped, expire
from ._runtimes import Runtimes, port_of
from ._threads import Job, Latch, Threads
from ._watch import Timer, Watch

Function = Callable[..., Any]
Done = Callable[[], object]


def _nothing() -> None:
    return


def launch_thread(
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], done: Done = _nothing
) -> None:
    """Start the sync *run* on a worker thread and return at once.

    *done* is called when the run is over, and the last thing that its thread does, unless that is left behind.
    """
    job = _RunJob(run, fn, args, kwargs, done)
    run.kept = True
    run.scope.on_stop(job.stopped)
    try:
        process.of(Threads).submit(job)
    except FlowletError as exc:
        break_off(run, exc)
        raise
    except BaseException:  # Ctrl-C, while the thread starts
        _abort(run)
        raise


def _in_thread(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    library.set(None)
    try:
        inline(run, fn, args, kwargs)
    except BaseException:  # noqa: BLE001 -- kept in the record
        return


class _RunJob(Job):
    """A run on a worker thread, which is left behind if it doesn't end soon after it was stopped."""

    __slots__ = ("record", "tell")

    def __init__(
        self, run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], tell: Done
    ) -> None:
        super().__init__(copy_context(), _in_thread, (run, fn, args, kwargs), self._ended)
        self.record = run
        self.tell = tell

    def _ended(self) -> None:
        if self.error is not None:  # no thread could be had; what a body raises is kept in the record
            break_off(self.record, self.error)
        self.tell()

    def stopped(self) -> None:
        if self.record.over:  # ended by somebody else
            self.tell()
        grace = grace_of(self.record.scope)
        if not grace:
            self._force()
        elif self.busy:
            self._later(grace, self._force)
        else:
            self._later(min(grace, COURTESY), self._late)

    def _late(self) -> None:
        if self.busy and not self.finished:
            self._later(grace_of(self.record.scope), self._force)
        else:
            self._force()

    def _force(self) -> None:
        if not self.finished:
            run = self.record
            abandon(self, Frame(run, run.scope, _running(run)))
            _give_up(run)
            self.tell()

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = process.of(Watch).after(seconds, call)

        def ended() -> None:
            if self.record.state != "timeout":  # which the thread itself may not have heard of
                timer.cancel()

        self.record.on_end(ended)


def _give_up(run: RunRecord) -> None:
    end_stopped(run)


def _abort(run: RunRecord) -> None:
    """Cancel *run* and wait within the grace, unless that is interrupted too."""
    latch = Latch()
    run.on_end(latch.set)
    cancel(run)
    try:
        latch.wait(grace_of(run.scope) + SETTLE)
    finally:
        _give_up(run)


def _running(run: RunRecord) -> int | None:
    return next((i for i in range(len(run.steps) - 1, -1, -1) if not run.steps[i].ended), None)


class _RunTask:
    """A run in a task of a loop, which is given up if it doesn't end soon after it was stopped."""

    def __init__(self, run: RunRecord) -> None:
        self.run = run
        self.port = port_of(run)
        self.context = copy_context()
        self.finished = False
        self.timer: Timer | None = None

    def start(self, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        def begin(port: Port) -> None:
            self.port = port
            port.spawn(self._body, (fn, args, kwargs), self.context)

        self.run.scope.on_stop(self._stopped)
        if not process.of(Runtimes).send(self.port, begin):
            raise RunStopped(self.run.id, "its event loop has ended")

    async def _body(self, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        library.set(self.port.library)
        try:
            await drive(self.run, fn, args, kwargs)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException:  # noqa: BLE001, S110 -- kept in the record
            pass
        finally:
            self.finished = True
            if self.timer is not None:
                self.timer.cancel()

    def _stopped(self) -> None:
        if self.finished:
            return
        if not process.of(Runtimes).send(self.port, lambda _: None, self._give_up):
            self._give_up()  # with its loop
        else:
            self.timer = process.of(Watch).after(grace_of(self.run.scope) + SETTLE, self._check)

    def _give_up(self) -> None:
        if not self.finished:
            _give_up(self.run)

    def _check(self) -> None:
        self._give_up()
        if not self.finished:
            step = _running(self.run)
            name = None if step is None else self.run.steps[step].name
            process.of(Runtimes).retire(self.port, self.run, name)


def launch_task(
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], done: Done = _nothing
) -> None:
    """Start the async *run* on a loop and return at once; *done* is called when it is over."""
    if run.parent is None:
        process.of(Background).add(run)
    run.kept = True
    run.on_end(done)
    try:
        _RunTask(run).start(fn, args, kwargs)
    except BaseException as exc:
        break_off(run, exc)
        raise


def waited(
    start: Callable[..., None], run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Launch a run of the caller's by *start*, wait for it in this thread, and give its result or raise its error.

    Either thread wakes the other as the last thing that it does itself: one that is woken earlier waits
    for the interpreter lock, and is woken twice.
    """
    latch = Latch()
    threads = process.of(Threads)
    lent = threads.lend()
    try:
        start(run, fn, args, kwargs, latch.set)
        deadline = run.deadline
        if not latch.wait(None if deadline is None else deadline - time.monotonic()):
            expire(run)
    except BaseException:
        _abort(run)  # Ctrl-C; a second one ends the wait
        raise
    finally:
        threads.reclaim(lent)
    if run.scope.parent is not None:
        run.scope.parent.check()
    return outcome(run)


async def await_end(run: RunRecord) -> None:
    """Wait in this task for a launched run of the caller's."""
    waiter = current_port().waiter()
    run.on_end(waiter.wake)
    try:
        await waiter.wait()
    except BaseException as exc:
        grace = grace_of(run.scope)
        run.scope.stop("cancelled")
        if isinstance(exc, GeneratorExit):  # which lets nothing be awaited
            raise
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + grace + SETTLE):
            await waiter.wait()
        raise


def outcome(run: RunRecord) -> Any:
    """Give the result of a run that is over, or raise its error."""
    run.fetched = True
    error = run.error
    if error is None:
        return run.result
    try:
        raise error.with_traceback(run.traceback)  # which else grows with each fetch
    finally:
        del error
