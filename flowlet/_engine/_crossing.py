"""Calls that change sides: between an event loop and worker threads, and from thread to thread.

The caller waits, and stops waiting when its scope is stopped: what is inside flowlet (a model call,
a wait) may end within the grace, anything else is left behind, unless a time limit has passed;
then nothing is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any, TypeGuard

import anyio

from .._scope import Scope
from ..context import Frame, current
from ..errors import FlowletError, RunStopped
from ..events import ThreadAbandoned
from ..settings import process
from ._bridge import driven, in_body
from ._loops import Port, current_port, library
from ._runtimes import Runtimes, port_of
from ._threads import Job, Latch, Threads
from ._watch import Watch

SETTLE = 1.0
"""Seconds beyond the grace after which a task that ignores its cancellation is given up."""

COURTESY = 0.05
"""Seconds that a thread outside flowlet gets to end by itself before it is left behind, or before that is told."""


def _enter(frame: Frame, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    current.set(frame)
    library.set(None)
    return fn(*args, **kwargs)


def _carry_back(context: Context) -> None:
    for variable, value in context.items():
        if variable not in _OF_THE_PLACE and variable.get(_MISSING) is not value:
            variable.set(value)


_MISSING: Any = object()
_OF_THE_PLACE = frozenset((current, library))


def grace_of(scope: Scope) -> float:
    """Seconds that what is in flight in *scope* may still take; a deadline leaves none."""
    return min(process.settings.grace, scope.left)


def abandon(job: Job, frame: Frame) -> None:
    """Leave the thread of *job* behind, and tell it, unless the thread ends soon all the same."""
    threads = process.of(Threads)
    if threads.abandon(job):
        info = None if frame.run is None else frame.run.info
        step = None if frame.step is None else frame.step.name
        event = ThreadAbandoned(info, time.time(), step, threads.abandoned)

        def tell() -> None:
            if not job.finished and process.existing(Threads) is threads:  # else a test has begun anew
                process.notice(event)

        try:
            process.of(Watch).after(COURTESY, tell)
        except FlowletError:  # the clock can't have a thread any more
            tell()
    if job.finished:  # before, or in this moment
        job.discard()


async def in_thread(
    frame: Frame, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Job:
    """Call *fn* on a worker thread in *frame*, while the loop goes on; answer the finished job."""
    waiter = current_port().waiter()
    scope = frame.scope = Scope(frame.scope.run_id, frame.scope)
    job = Job(copy_context(), _enter, (frame, fn, args, kwargs), waiter.wake)
    process.of(Threads).submit(job)
    try:
        await waiter.wait()
    except BaseException:
        scope.stop("timeout" if scope.timed_out else "cancelled")
        grace = grace_of(scope)
        if job.busy and grace and not job.finished:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + grace):
                await waiter.wait()
        abandon(job, frame)
        raise
    finally:
        scope.leave()
    if job.error is None:
        _carry_back(job.context)
    return job


def park(latch: Latch, scope: Scope, timeout: float | None = None) -> bool:
    """Wait in this thread until *latch* is set, *scope* is stopped or *timeout* seconds have passed."""
    try:
        scope.on_stop(latch.set)
        return idle(latch, timeout)
    finally:
        scope.forget(latch.set)


def idle(latch: Latch, timeout: float | None) -> bool:
    """Wait in this thread for *latch*, and lend its place to others meanwhile."""
    threads = process.of(Threads)
    lent = None
    try:
        lent = threads.lend()
        return latch.wait(timeout)
    finally:
        threads.reclaim(lent)


def port_at(frame: Frame) -> Port:
    """The loop of the run at *frame*, or outside a run the background loop."""
    if frame.run is not None:
        port: Port = port_of(frame.run)
        return port
    return process.of(Runtimes).port(process.settings.backend)


def in_other_thread(
    frame: Frame,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    timeout: float | None = None,
    *,
    patient: bool = True,
) -> Job:
    """Call *fn* on another thread in *frame* and wait in this one; answer the job, finished unless time ran out.

    A Ctrl-C waits for what is in flight there only when *patient*.

    Raises:
        RunStopped: the scope of *frame* was stopped meanwhile.
    """
    latch = Latch()
    scope = frame.scope = Scope(frame.scope.run_id, frame.scope)
    job = Job(copy_context(), _enter, (frame, fn, args, kwargs), latch.set)
    try:
        process.of(Threads).submit(job)
        park(latch, scope, timeout)
        if not job.finished:
            if scope.reason is None:
                scope.stop("timeout")
                abandon(job, frame)
                return job
            scope.stop(scope.reason)  # it may be fenced alone so far
            settle([job], latch, frame)
            scope.check()
    except (FlowletError, RunStopped):  # no thread could be had, or the work was stopped
        raise
    except BaseException:  # Ctrl-C
        scope.stop("cancelled")
        settle([job], latch, frame) if patient else abandon(job, frame)
        raise
    finally:
        scope.leave()  # last, since what the other thread waits for is told of a stop by this scope
    if job.error is None:
        _carry_back(job.context)
    return job


def settle(jobs: list[Job], latch: Latch, frame: Frame) -> None:
    """Let those of *jobs* that are inside flowlet end within the grace, and leave the others behind."""
    grace = grace_of(frame.scope)
    begun = time.monotonic()
    for job in jobs:
        while not job.finished:
            left = begun + (grace if job.busy else min(grace, COURTESY)) - time.monotonic()
            if left <= 0:
                break
            idle(latch, min(left, COURTESY))
        abandon(job, frame)


class LoopCall:
    """A coroutine function called in a task of the engine's own; its outcome is kept as a value."""

    def __init__(self, frame: Frame, fn: Callable[..., Coroutine[Any, Any, Any]], port: Port) -> None:
        self.frame = frame
        self.scope = frame.scope = Scope(frame.scope.run_id, frame.scope)
        self.fn = fn
        self.port = port
        self.finished = False
        self.result: Any = None
        self.error: BaseException | None = None

    def start(self, done: Callable[[], object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Start the task from any thread.

        Raises:
            RunStopped: the loop has ended.
        """
        self.context = context = copy_context()

        def begin(port: Port) -> None:
            self.port = port
            port.spawn(self._run, (done, args, kwargs), context)

        if not process.of(Runtimes).send(self.port, begin):
            raise RunStopped(self.scope.run_id, "its event loop has ended")

    async def _run(self, done: Callable[[], object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        current.set(self.frame)
        library.set(self.port.library)
        cancel_scope = anyio.CancelScope()
        self.scope.on_stop(lambda: self.port.call(cancel_scope.cancel))
        try:
            with cancel_scope:
                await self._call(args, kwargs)
        finally:
            if not self.finished:
                self.error = RunStopped(self.scope.run_id, self.scope.reason or "cancelled")
                self.finished = True
            done()

    async def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self.result = await driven(self.fn(*args, **kwargs), self.port)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as exc:  # noqa: BLE001 -- handed on to whoever waits
            self.error = exc
        self.finished = True

    def outcome(self) -> Any:
        """Give the result, or raise what the call raised."""
        if self.error is not None:
            raise self.error
        _carry_back(self.context)
        return self.result


def on_loop(
    frame: Frame,
    port: Port,
    fn: Callable[..., Coroutine[Any, Any, Any]],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
) -> Any:
    """Call the coroutine function *fn* on the loop of *port*, in *frame*, and wait in this thread.

    Raises:
        RunStopped: the scope of *frame* was stopped meanwhile.
    """
    latch = Latch()
    call = LoopCall(frame, fn, port)
    scope = call.scope
    call.start(latch.set, args, kwargs or {})
    try:
        park(latch, scope)
        if not call.finished and not scope.timed_out:
            idle(latch, grace_of(scope) + SETTLE)
        if not call.finished:
            scope.check()
    except BaseException:
        if scope.reason is None:  # Ctrl-C
            scope.stop("cancelled")
            idle(latch, grace_of(scope) + SETTLE)
        raise
    finally:
        scope.leave()
    return call.outcome()


def is_coroutine(result: object) -> TypeGuard[Coroutine[Any, Any, Any]]:
    """Whether *result* is one, and so no result yet."""
    return type(result) is CoroutineType


def settled(result: Any, frame: Frame) -> Any:
    """Give the *result* of a plain function; one that is a coroutine is awaited on the loop of the run at *frame*."""
    if is_coroutine(result):
        return on_loop(frame.below(frame.scope), port_at(frame), lambda: result)
    return result


async def asettled(result: Any) -> Any:
    """The same in this task, whose loop awaits it."""
    if is_coroutine(result):
        return await (result if in_body() else driven(result, current_port()))
    return result


def pause(scope: Scope, seconds: float) -> None:
    """Wait in this thread, unless *scope* is stopped.

    Raises:
        RunStopped: it was.
    """
    park(Latch(), scope, seconds)
    scope.check()
