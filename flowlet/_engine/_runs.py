"""Runs: from being asked for to their end, in the caller's thread or task, on a worker thread or a background loop.

Whoever ends a run first decides its outcome: its body, its deadline or a cancellation. What comes
later is fenced off.
"""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any

import anyio

from .. import _signature
from ..context import MAX_DEPTH, Frame, RunRecord, current, describe
from ..errors import BridgeError, DefinitionError, RunCancelled, RunStopped, WorkflowTimeout
from ..events import FailureUnfetched, LoopRetired, RunFinished, RunStarted
from ..protocols import RunCall, StepCall
from ..settings import process
from ..specs import RunOptions, Spec, bare, spec_of
from ..usage import RunState
from ._bridge import Drive, in_body, suspend
from ._crossing import SETTLE, abandon, grace_of, in_thread, on_loop, park
from ._loops import Port, current_port, is_cancellation, running_loop, task_identity
from ._middleware import athrough, through, wrapping
from ._runtimes import Runtimes
from ._steps import ASYNC_CODE, moved_step, no_bridge, port_of, refuse_unawaited
from ._threads import Job, Latch, Threads
from ._watch import Watch

Function = Callable[..., Any]


class Recent:
    """The newest runs of this process, started by its own code (child runs hang on them)."""

    def __init__(self) -> None:
        self.runs: deque[RunRecord] = deque(maxlen=256)

    def of_here(self) -> RunRecord | None:
        """The newest run that this thread or task asked for."""
        origin = _origin()
        return next((run for run in reversed(self.runs.copy()) if run.origin == origin), None)


def _origin() -> tuple[int, object]:
    return threading.get_ident(), task_identity()


# --- making and ending ---------------------------------------------------------------------------


def new_run(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame | None) -> RunRecord:
    """Make the record of a run of *fn*, with its inputs checked.

    Raises:
        InputError: arguments don't fit the hints of a workflow.
        DefinitionError: child runs nest too deeply.
    """
    spec = spec_of(fn)
    parent = None if frame is None else frame.run
    options = RunOptions() if spec is None else spec.run
    name = spec.name if spec is not None else getattr(fn, "__qualname__", type(fn).__qualname__)
    if spec is not None and spec.kind == "workflow":
        _signature.check_inputs(bare(fn, spec), args, kwargs)
    run = RunRecord(name, options, parent, None if frame is None else frame.scope)
    if run.depth > MAX_DEPTH:
        raise DefinitionError(f"child runs nest {MAX_DEPTH} deep: {_lineage(run)}; does a workflow call itself?")
    run.simple = not run.observers and not (run.middleware and wrapping(run.middleware, StepCall))
    if parent is None:
        run.origin = _origin()
        process.of(Recent).runs.append(run)
    else:
        parent.children.append(run)
    return run


def _lineage(run: RunRecord) -> str:
    names: list[str] = []
    above: RunRecord | None = run
    while above is not None and len(names) < 4:
        names.append(above.workflow)
        above = above.parent
    return "… → " + " → ".join(reversed(names))


def _begin(run: RunRecord, frame: Frame) -> None:
    current.set(frame)
    run.begin()
    if run.observers:
        run.emit(RunStarted(run.info, time.time()))


def end(run: RunRecord, state: RunState, result: object = None, error: BaseException | None = None) -> bool:
    """End *run*, unless it is over."""
    if not run.end(state, result, error):
        return False
    if run.observers:
        text = None if error is None else describe(error)
        run.emit(RunFinished(run.info, time.time(), state, run.duration(), text))
    if run.parent is not None and run.parent.open_children is not None:
        run.parent.open_children.discard(run)
    return True


def expire(run: RunRecord) -> None:
    """End *run* as timed out, with the figures of this moment, and stop what is left of it."""
    if run.over or run.timeout is None:
        return
    error = WorkflowTimeout(run.workflow, run.timeout, run.id, run.metrics())
    if end(run, "timeout", error=error):
        run.scope.stop("timeout")


def cancel(run: RunRecord) -> bool:
    """Ask *run* to stop; False when it is over."""
    if run.over:
        return False
    if run.state == "pending":
        end(run, "cancelled", error=RunCancelled(run.workflow, run.id, run.metrics()))
    run.scope.stop("cancelled")
    return True


def _conclude(run: RunRecord, result: object, exc: BaseException | None) -> None:
    """End *run* as its body did, unless it was ended before; then close what hangs on it."""
    if not run.over:
        if run.scope.reason is not None:
            end(run, "cancelled", error=RunCancelled(run.workflow, run.id, run.metrics()))
        elif run.deadline is not None and time.monotonic() >= run.deadline:
            expire(run)
        elif exc is None:
            end(run, "completed", result)
        elif is_cancellation(exc):
            end(run, "cancelled", error=RunCancelled(run.workflow, run.id, run.metrics()))
        else:
            end(run, "failed", error=exc)
    _close(run)


def _close(run: RunRecord) -> None:
    run.scope.unhook()
    run.scope.stop(run.state)
    run.scope.leave()
    for step in run.steps:
        step.run = None  # no cycles: a run that nobody holds goes at once


def _raise(run: RunRecord, exc: BaseException | None) -> None:
    """Raise what *run* ended with, if it did not complete; *exc* is what its body raised.

    What is no mere exception (Ctrl-C, a cancellation from outside) goes on unchanged.
    """
    if isinstance(exc, RunStopped):
        if run.scope.parent is not None:
            run.scope.parent.check()
    elif exc is not None and (exc is run.error or not isinstance(exc, Exception)):
        raise exc
    if run.error is not None:
        raise run.error from (exc if isinstance(exc, Exception) else None)


# --- in this thread ------------------------------------------------------------------------------


def inline(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Execute the sync body *fn* in this thread."""
    previous = current.get()
    frame = Frame(run, run.scope)
    _begin(run, frame)
    exc = None
    try:
        run.scope.check()
        if run.middleware:
            result = _through_runs(run, fn, args, kwargs, frame)
        else:
            result = fn(*args, **kwargs)
        refuse_unawaited(result, run.workflow)
        if run.open_children:
            _join(run)
    except BaseException as caught:
        exc = caught
        if run.open_children:
            _stop_children(run)
    finally:
        current.set(previous)
        frame.run = None
    if exc is None and run.scope.reason is None and run.deadline is None:
        end(run, "completed", result)
        _close(run)
        return result
    try:
        _conclude(run, None if exc is not None else result, exc)
        _raise(run, exc)
    finally:
        exc = None
    return result


def _through_runs(
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame
) -> Any:
    wraps = wrapping(run.middleware, RunCall)
    call = RunCall(run.workflow, args, kwargs, run.info)
    return through(wraps, call, lambda call: fn(*call.args, **call.kwargs), frame, lambda: port_of(run))


def _join(run: RunRecord) -> None:
    for child in tuple(run.open_children or ()):
        latch = Latch()
        child.on_end(latch.set)
        park(latch, run.scope)
        run.scope.check()


def _stop_children(run: RunRecord) -> None:
    until = time.monotonic() + grace_of(run.scope) + SETTLE
    children = tuple(run.open_children or ())
    for child in children:
        cancel(child)
    for child in children:
        latch = Latch()
        child.on_end(latch.set)
        latch.wait(until - time.monotonic())


# --- in this task --------------------------------------------------------------------------------


async def drive(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Execute the async body *fn* in this task."""
    previous = current.get()
    port = run.port = current_port()
    frame = Frame(run, run.scope)
    _begin(run, frame)
    limit = anyio.CancelScope()
    run.scope.on_stop(partial(port.call, limit.cancel))
    timer = None if run.deadline is None else process.of(Watch).at(run.deadline, partial(expire, run))
    exc = result = None
    try:
        with limit:
            result = await _body(run, fn, args, kwargs, frame, port)
    except BaseException as caught:
        exc = caught
    finally:
        current.set(previous)
        frame.run = None
        if timer is not None:
            timer.cancel()
    try:
        _conclude(run, result, exc)
        _raise(run, exc)
    finally:
        exc = None
    return result


async def _body(
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame, port: Port
) -> Any:
    try:
        if run.middleware:
            call = RunCall(run.workflow, args, kwargs, run.info)
            coroutine = athrough(wrapping(run.middleware, RunCall), call, _last(fn), frame)
        else:
            coroutine = fn(*args, **kwargs)
        result = await (coroutine if in_body() else Drive(coroutine, port))
        refuse_unawaited(result, run.workflow)
        if run.open_children:
            await _ajoin(run, port)
    except BaseException:
        if run.open_children:
            for child in tuple(run.open_children):
                cancel(child)
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + grace_of(run.scope) + SETTLE):
                await _ajoin(run, port)
        raise
    return result


def _last(fn: Function) -> Callable[[RunCall], Coroutine[Any, Any, Any]]:
    async def last(call: RunCall) -> Any:
        return await fn(*call.args, **call.kwargs)

    return last


async def _ajoin(run: RunRecord, port: Port) -> None:
    for child in tuple(run.open_children or ()):
        waiter = port.waiter()
        child.on_end(waiter.wake)
        await waiter.wait()


# --- elsewhere -----------------------------------------------------------------------------------


def launch(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Start *run* on a worker thread or a loop, by the colour of *fn*, and return at once."""
    if inspect.iscoroutinefunction(fn):
        _launch_task(run, fn, args, kwargs)
    else:
        _launch_thread(run, fn, args, kwargs)


def _launch_thread(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    def body() -> None:
        try:
            inline(run, fn, args, kwargs)
        except BaseException:  # noqa: BLE001, S110 -- kept in the record
            pass

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


async def await_end(run: RunRecord) -> Any:
    """Wait in this task for a launched run of the caller's, and give its result or raise its error."""
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
    return outcome(run)


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


# --- what users call -----------------------------------------------------------------------------


def in_ipython() -> bool:
    """Whether this is an IPython session, whose own loop may be blocked by a cell."""
    module = sys.modules.get("IPython")
    return module is not None and module.get_ipython() is not None


def _enclosing() -> Frame | None:
    """The frame of the run we are in.

    Raises:
        RunStopped: that run is over.
    """
    frame = current.get()
    if frame is None:
        return None
    if frame.run is None or frame.scope.reason is not None:
        if frame.outside:
            return None if frame.scope.root.reason == "completed" else frame
        raise RunStopped(frame.scope.run_id, frame.scope.reason or "over")
    return frame


def run_sync(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run *fn* from sync code and wait."""
    frame = _enclosing()
    if frame is not None and frame.run is not None:
        return _run_inside(fn, args, kwargs, frame, frame.run)
    looping = running_loop() is not None
    if looping and not in_ipython():
        raise _not_here(fn)
    run = new_run(fn, args, kwargs, frame)
    body = _bare_workflow(fn)
    if run.timeout is None and not looping and not inspect.iscoroutinefunction(body):
        run.fetched = True
        return inline(run, body, args, kwargs)
    launch(run, body, args, kwargs)
    try:
        return wait(run)
    finally:
        run.result = None


def _not_here(fn: Function) -> BridgeError:
    name = getattr(fn, "__name__", "workflow")
    return BridgeError(
        "run(...) would block the event loop that runs in this thread.\n"
        f"    instead of:  run({name}, ...)\n"
        f"    write:       await arun({name}, ...)"
    )


def _bare_workflow(fn: Function) -> Function:
    """The body of a workflow; a step stays as it is, since the run records its call."""
    spec = spec_of(fn)
    return bare(fn, spec) if spec is not None and spec.kind == "workflow" else fn


def _run_inside(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame, run: RunRecord) -> Any:
    if in_body() or running_loop() is not None:
        raise _not_here(fn)
    if inspect.iscoroutinefunction(fn):
        return on_loop(frame.below(frame.scope), port_of(run), fn, args, kwargs)
    return fn(*args, **kwargs)


async def run_async(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run *fn* in the caller's own loop."""
    frame = _enclosing()
    if frame is not None and frame.run is not None:
        return await _arun_inside(fn, args, kwargs, frame)
    return await _arun_new(fn, args, kwargs, frame)


async def _arun_new(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame | None) -> Any:
    run = new_run(fn, args, kwargs, frame)
    run.fetched = True
    body = _bare_workflow(fn)
    if inspect.iscoroutinefunction(body):
        return await drive(run, body, args, kwargs)
    return await _in_thread_of_its_own(run, body, args, kwargs)


async def _in_thread_of_its_own(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    run.port = current_port()
    timer = None if run.deadline is None else process.of(Watch).at(run.deadline, partial(expire, run))
    _launch_thread(run, fn, args, kwargs)
    try:
        return await await_end(run)
    finally:
        run.result = None
        if timer is not None:
            timer.cancel()


async def _arun_inside(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame) -> Any:
    if inspect.iscoroutinefunction(fn):
        return await fn(*args, **kwargs)
    spec = spec_of(fn)
    if spec is None:
        job = await in_thread(frame.below(frame.scope), fn, args, kwargs)
        return job.outcome()
    if spec.kind == "step":
        return await moved_step(spec, bare(fn, spec), args, kwargs)
    return await _arun_new(fn, args, kwargs, frame)


def start_run(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RunRecord:
    """Start a run of *fn* and return its record at once; inside a run it is a child of that run."""
    frame = _enclosing()
    run = new_run(fn, args, kwargs, frame)
    parent = run.parent
    if parent is not None:
        if parent.open_children is None:
            parent.open_children = set()
        parent.open_children.add(run)
    run.launched = True
    if run.deadline is not None:
        timer = process.of(Watch).at(run.deadline, partial(expire, run))
        run.on_end(timer.cancel)
    launch(run, _bare_workflow(fn), args, kwargs)
    return run


def dropped(run: RunRecord) -> None:
    """Release what nobody can fetch any more; a failure that nobody fetched is told."""
    if run.error is not None and not run.fetched and run.state in ("failed", "timeout"):
        process.notice(FailureUnfetched(run.info, time.time(), describe(run.error)))
    run.result = None
    run.launched = False


# --- workflows as functions ----------------------------------------------------------------------


def sync_workflow(spec: Spec, fn: Function) -> Function:
    """Make the plain function that runs the sync workflow *fn* and waits for its result."""

    def call(*args: Any, **kwargs: Any) -> Any:
        frame = _enclosing()
        if frame is None or frame.run is None:
            return run_sync(call, args, kwargs)
        if in_body():
            return suspend(_as_job(_arun_new(call, args, kwargs, frame))).outcome()
        if running_loop() is not None:
            raise no_bridge(spec.name)
        run = new_run(call, args, kwargs, frame)
        run.fetched = True
        if run.timeout is None:
            return inline(run, fn, args, kwargs)
        _launch_thread(run, fn, args, kwargs)
        try:
            return wait(run)
        finally:
            run.result = None

    return call


async def _as_job(coroutine: Coroutine[Any, Any, Any]) -> Job:
    """Await *coroutine* and keep its outcome as a value, so that a StopIteration survives."""
    job = Job(copy_context(), _nothing, (), _nothing)
    try:
        job.result = await coroutine
    except Exception as exc:  # noqa: BLE001 -- raised again by outcome()
        job.error = exc
    return job


def async_workflow(spec: Spec, fn: Function) -> Function:
    """Make the coroutine function that runs the async workflow *fn*."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        frame = _enclosing()
        run = new_run(call, args, kwargs, frame)
        run.fetched = True
        return await drive(run, fn, args, kwargs)

    ASYNC_CODE.add(call.__code__)
    return call
