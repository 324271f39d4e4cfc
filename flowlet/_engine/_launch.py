"""Runs that go on elsewhere, on a worker thread or a loop, and the wait for their end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import anyio

from ..context import Frame, RunRecord
from ..errors import FlowletError, RunCancelled, RunStopped
from ..settings import process
from ..specs import is_async
from ._bodies import drive, inline
from ._crossing import COURTESY, SETTLE, abandon, grace_of
from ._exit import Background
from ._loops import Port, current_port, library
from ._runs import cancel, close, end, expire
from ._runtimes import Runtimes, port_of
from ._threads import Job, Latch, Threads
from ._watch import Timer, Watch

Function = Callable[..., Any]


def launch(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Start *run* on a worker thread or a loop, by the colour of *fn*, and return at once."""
    if run.parent is None:
        process.of(Background).add(run)
    if is_async(fn):
        _launch_task(run, fn, args, kwargs)
    else:
        launch_thread(run, fn, args, kwargs)


def launch_thread(  # noqa: C901 -- what may befall one job, told together
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
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
        if not grace:
            force()
        elif job.busy:
            later(grace, force)
        else:
            later(min(grace, COURTESY), late)

    def late() -> None:
        if job.busy and not job.finished:
            later(grace_of(run.scope), force)
        else:
            force()

    def later(seconds: float, call: Callable[[], None]) -> None:
        run.on_end(process.of(Watch).after(seconds, call).cancel)

    def done() -> None:
        if job.error is not None:  # no thread could be had; what a body raises is kept in the record
            _refused(run, job.error)

    job = Job(copy_context(), body, (), done)
    run.scope.on_stop(stopped)
    try:
        process.of(Threads).submit(job)
    except FlowletError as exc:
        _refused(run, exc)
        raise
    except BaseException:  # Ctrl-C, while the thread starts
        _abort(run)
        raise


def _abort(run: RunRecord) -> None:
    """Cancel *run* and wait within the grace, unless that is interrupted too."""
    latch = Latch()
    run.on_end(latch.set)
    cancel(run)
    try:
        latch.wait(grace_of(run.scope) + SETTLE)
    finally:
        end(run, "cancelled", error=RunCancelled(run.workflow, run.id, run.metrics()))


def _nothing(_: Port) -> None:
    return


def _refused(run: RunRecord, exc: BaseException) -> None:
    end(run, "failed", error=exc)
    close(run)


def _running(run: RunRecord) -> int | None:
    return next((i for i in range(len(run.steps) - 1, -1, -1) if not run.steps[i].ended), None)


def _launch_task(  # noqa: C901 -- what may befall one task, told together
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    finished = False
    timer: Timer | None = None

    async def body() -> None:
        nonlocal finished
        library.set(run.port.library)
        try:
            await drive(run, fn, args, kwargs)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException:  # noqa: BLE001, S110 -- kept in the record
            pass
        finally:
            finished = True
            if timer is not None:
                timer.cancel()

    def begin(port: Port) -> None:
        run.port = port
        port.spawn(body, (), context)

    def stopped() -> None:
        nonlocal timer
        if not finished:
            process.of(Runtimes).send(run.port, _nothing, give_up)
            timer = process.of(Watch).after(grace_of(run.scope) + SETTLE, check)

    def give_up() -> None:
        if not finished:
            end(run, "cancelled", error=RunCancelled(run.workflow, run.id, run.metrics()))

    def check() -> None:
        give_up()
        if not finished:
            step = _running(run)
            name = None if step is None else run.steps[step].name
            process.of(Runtimes).retire(run.port, run, name)

    context = copy_context()
    try:
        run.port = port_of(run)
        run.scope.on_stop(stopped)
        if not process.of(Runtimes).send(run.port, begin):
            raise RunStopped(run.id, "its event loop has ended")
    except BaseException as exc:
        _refused(run, exc)
        raise


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
        _abort(run)  # Ctrl-C; a second one ends the wait
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
