"""What users call: run, arun, start, and a workflow as the function it is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from .._tracebacks import conceal
from ..context import Frame, RunRecord, current
from ..errors import BridgeError, RunStopped
from ..settings import process
from ..specs import Spec, bare, is_async, spec_of
from ._bodies import drive, inline
from ._bridge import driven, in_body, suspend
from ._crossing import asettled, in_thread, on_loop, settled
from ._exit import Background
from ._failures import ASYNC_CODE, check_callable, no_bridge
from ._launch import await_end, launch_task, launch_thread, outcome, waited
from ._loops import current_port, in_ipython, running_loop
from ._runs import break_off, cancel, expire, new_run
from ._runtimes import port_of
from ._steps import moved_step
from ._watch import Watch

Function = Callable[..., Any]


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
    check_callable("run", fn)
    frame = _enclosing()
    if frame is not None and frame.run is not None:
        return _run_inside(fn, args, kwargs, frame, frame.run)
    looping = running_loop() is not None
    if looping and not in_ipython():
        raise _not_here(fn)
    body, asynchronous = _body_of(fn)
    run = new_run(fn, args, kwargs, frame)
    if run.timeout is None and not looping and not asynchronous:
        run.fetched = True
        return inline(run, body, args, kwargs)
    try:
        return waited(launch_task if asynchronous else launch_thread, run, body, args, kwargs)
    except KeyboardInterrupt:
        cancel(run)  # it may come before the wait has begun
        raise
    finally:
        run.release()


def _not_here(fn: Function) -> BridgeError:
    name = getattr(fn, "__name__", "workflow")
    return BridgeError(
        "run(...) would block the event loop that runs in this thread.\n"
        f"    instead of:  run({name}, ...)\n"
        f"    write:       await arun({name}, ...)"
    )


def _body_of(fn: Function) -> tuple[Function, bool]:
    """The body of a workflow, and whether it is async; a step stays as it is, since the run records its call."""
    spec = spec_of(fn)
    if spec is None:
        return fn, is_async(fn)
    return (bare(fn, spec) if spec.kind == "workflow" else fn), spec.is_async


def _run_inside(
    fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame, run: RunRecord
) -> Any:
    if in_body() or running_loop() is not None:
        raise _not_here(fn)
    if is_async(fn):
        return on_loop(frame.below(frame.scope), port_of(run), fn, args, kwargs)
    return settled(fn(*args, **kwargs), frame)


def run_async(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    """Make what runs *fn* in the caller's own loop."""
    check_callable("arun", fn)
    frame = _enclosing()
    if frame is not None and frame.run is not None:
        return _arun_inside(fn, args, kwargs, frame)
    return _arun_new(fn, args, kwargs, frame)


def _arun_new(
    fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame | None
) -> Coroutine[Any, Any, Any]:
    run = new_run(fn, args, kwargs, frame)
    run.fetched = True
    body, asynchronous = _body_of(fn)
    if asynchronous:
        return drive(run, body, args, kwargs)
    return _in_thread_of_its_own(run, body, args, kwargs)


async def _in_thread_of_its_own(
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    await _ended_in_thread(run, fn, args, kwargs)
    return _handed_out(run)


def _handed_out(run: RunRecord) -> Any:
    try:
        return outcome(run)
    finally:
        run.release()


async def _ended_in_thread(
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    timer = None
    try:
        run.port = current_port()
        timer = None if run.deadline is None else process.of(Watch).at(run.deadline, partial(expire, run))
        launch_thread(run, fn, args, kwargs)
        await await_end(run)
    except BaseException as exc:
        if run.state == "pending":  # it never began
            break_off(run, exc)
        raise
    finally:
        if timer is not None:
            timer.cancel()


async def _arun_inside(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame) -> Any:
    if is_async(fn):
        coroutine = fn(*args, **kwargs)
        return await (coroutine if in_body() else driven(coroutine, current_port()))
    spec = spec_of(fn)
    if spec is None:
        job = await in_thread(frame.below(frame.scope), fn, args, kwargs)
        return await asettled(job.outcome())
    if spec.kind == "step":
        return await moved_step(spec, bare(fn, spec), args, kwargs)
    return await _arun_new(fn, args, kwargs, frame)


def start_run(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RunRecord:
    """Start a run of *fn* and return its record at once; inside a run it is a child of that run."""
    check_callable("start", fn)
    process.of(Watch).start()  # it hears of the handle's end
    frame = _enclosing()
    run = new_run(fn, args, kwargs, frame)
    parent = run.parent
    if parent is not None:
        parent.wait_for(run)
    run.launched = True
    if run.deadline is not None:
        timer = process.of(Watch).at(run.deadline, partial(expire, run))
        run.on_end(timer.cancel)
    body, asynchronous = _body_of(fn)
    if asynchronous:
        launch_task(run, body, args, kwargs)
    else:
        if parent is None:
            process.of(Background).add(run)
        launch_thread(run, body, args, kwargs)
    return run


def sync_workflow(spec: Spec, fn: Function) -> Function:
    """Make the plain function that runs the sync workflow *fn* and waits for its result."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            frame = _enclosing()
            if frame is None or frame.run is None:
                return run_sync(call, args, kwargs)
            if in_body():
                return _child_of_async_body(new_run(call, args, kwargs, frame), fn, args, kwargs)
            if running_loop() is not None:
                raise no_bridge(spec.name)
            run = new_run(call, args, kwargs, frame)
            run.fetched = True
            if run.timeout is None:
                return inline(run, fn, args, kwargs)
            try:
                return waited(launch_thread, run, fn, args, kwargs)
            finally:
                run.release()
        except Exception as exc:
            conceal(exc)
            raise

    return call


def _child_of_async_body(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Wait in an async body for a sync child run; its outcome stays a value, so that a StopIteration survives."""
    run.fetched = True
    suspend(_ended_in_thread(run, fn, args, kwargs))
    return _handed_out(run)


def async_workflow(spec: Spec, fn: Function) -> Function:
    """Make the coroutine function that runs the async workflow *fn*."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            frame = _enclosing()
            run = new_run(call, args, kwargs, frame)
            run.fetched = True
            coroutine = drive(run, fn, args, kwargs)
            del args, kwargs
            return await coroutine
        except Exception as exc:
            conceal(exc)
            raise

    ASYNC_CODE.add(call.__code__)
    return call
