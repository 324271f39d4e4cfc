"""Runs that go on elsewhere, on a worker thread or a loop, and the wait for their end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import anyio

from ..context import Frame, RunRecord
from ..errors import RunCancelled, RunStopped
from ..events import LoopRetired
from ..settings import process
from ..specs import is_async
from ._bodies import drive, inline
from ._crossing import SETTLE, abandon, grace_of
from ._loops import current_port, library
from ._runs import cancel, end, expire
from ._runtimes import Runtimes, port_of
from ._threads import Job, Latch, Threads
from ._watch import Watch

Function = Callable[..., Any]


def launch(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Start *run* on a worker thread or a loop, by the colour of *fn*, and return at once."""
    if is_async(fn):
        _launch_task(run, fn, args, kwargs)
    else:
        launch_thread(run, fn, args, kwargs)


def launch_thread(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    def body() -> None:
        library.set(None)
        with suppress(BaseException):  # kept in the record
            inline(run, fn, args, kwargs)

    def force() -> None:
        if not job.finished:
            abandon(job, Frame(run, run.scope, _running(run)))
            end(run, "cancelled", error=RunCancelled(run.workflow, run.id, run.metrics()))

    def stopped() -> None:
        grace = grace_of(run.scope)
        if job.busy and grace:
            process.of(Watch).after(grace, force)
        else:
            force()

    job = Job(copy_context(), body, (), _nothing)
    run.scope.on_stop(stopped)
    process.of(Threads).submit(job)


def _nothing() -> None:
    return


def _running(run: RunRecord) -> int | None:
    return next((i for i in range(len(run.steps) - 1, -1, -1) if not run.steps[i].ended), None)


def _launch_task(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    finished = False
    begun = False

    async def body() -> None:
        nonlocal finished, begun
        begun = True
        library.set(port.library)
        try:
            await drive(run, fn, args, kwargs)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException:  # noqa: BLE001, S110 -- kept in the record
            pass
        finally:
            finished = True

    def check() -> None:
        if finished:
            return
        error = RunCancelled(run.workflow, run.id, run.metrics())
        port = run.port
        end(run, "cancelled", error=error)
        runtimes = process.of(Runtimes)
        if port is not None and runtimes.owns(port):
            step = _running(run)
            name = None if step is None else run.steps[step].name
            runtimes.retire(port)
            process.notice(LoopRetired(run.info, time.time(), run.backend, name))

    def stopped() -> None:
        process.of(Watch).after(grace_of(run.scope) + SETTLE, check)

    port = run.port = port_of(run)
    context = copy_context()
    run.scope.on_stop(stopped)
    if not port.call(lambda: port.spawn(body, (), context)):
        raise RunStopped(run.id, "its event loop has ended")


def wait(run: RunRecord) -> Any:
    """Wait in this thread for a launched run of the caller's, and give its result or raise its error."""
    latch = Latch()
    run.on_end(latch.set)
    parent = run.scope.parent
    threads = process.of(Threads)
    lent = threads.lend()
    try:
        deadline = run.deadline
        if not latch.wait(None if deadline is None else deadline - time.monotonic()):
            expire(run)
    except BaseException:
        cancel(run)  # Ctrl-C; a second one ends the wait
        latch.wait(grace_of(run.scope) + SETTLE)
        raise
    finally:
        threads.reclaim(lent)
    if parent is not None:
        parent.check()
    return outcome(run)


async def await_end(run: RunRecord) -> None:
    """Wait in this task for a launched run of the caller's."""
    waiter = current_port().waiter()
    run.on_end(waiter.wake)
    try:
        await waiter.wait()
    except BaseException:
        grace = grace_of(run.scope)
        run.scope.stop("cancelled")
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
        raise error
    finally:
        del error
