"""Calls of steps, where the function is written as if it were not decorated.

A sync step runs where it is called, or on a worker thread when an async body calls it; an async
step runs in the task that awaits it. A step without options in a run without middleware or
observers needs a record and nothing else: that is the hot path.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from time import perf_counter
from types import CoroutineType
from typing import Any

from .._tracebacks import conceal
from ..context import Frame, RunRecord, StepRecord, current
from ..errors import RunStopped
from ..specs import Spec
from ._bridge import driven, in_body, suspend
from ._crossing import in_thread
from ._failures import ASYNC_CODE, awaited, failed, gave_coroutine, no_bridge, refuse_unawaited
from ._loops import current_port, running_loop
from ._options import ain_full, in_full
from ._retry import Raised

Function = Callable[..., Any]


def sync_step(spec: Spec, fn: Function) -> Function:  # noqa: C901 -- the hot path, in one piece
    """Make the plain function that calls the sync step *fn*."""
    name, plain = spec.name, spec.plain

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: C901
        try:
            frame = current.get()
            if frame is None:
                return fn(*args, **kwargs)
            run = frame.run
            if run is None or frame.scope.reason is not None:
                _check_outside(frame)
                return fn(*args, **kwargs)
            if in_body():
                return _from_async_body(spec, fn, frame, run, args, kwargs)
            if running_loop() is not None:
                raise no_bridge(name)
            for arg in (*args, *kwargs.values()) if kwargs else args:
                if type(arg) is CoroutineType:
                    refuse_unawaited(arg, name)  # pyright: ignore[reportUnknownArgumentType]
            if not (plain and run.simple):
                return in_full(spec, fn, frame, run, args, kwargs)
            record = StepRecord(frame, run, name)
            current.set(record)
            try:
                result = fn(*args, **kwargs)
                if type(result) is CoroutineType:
                    raise gave_coroutine(result, name)  # pyright: ignore[reportUnknownArgumentType]
                record.ended = perf_counter()
                record.state = "completed"
            except BaseException as exc:
                failed(record, run, exc)
                raise
            finally:
                current.set(frame)
                if not run.simple:  # somebody began to listen meanwhile
                    run.tell_finished(record)
            return result
        except Exception as exc:
            conceal(exc)
            raise

    return call


def async_step(spec: Spec, fn: Function) -> Function:  # noqa: C901 -- as above
    """Make the coroutine function that calls the async step *fn*."""
    name, plain = spec.name, spec.plain

    async def call(*args: Any, **kwargs: Any) -> Any:  # noqa: C901
        try:
            frame = current.get()
            if frame is None:
                return await fn(*args, **kwargs)
            run = frame.run
            if run is None or frame.scope.reason is not None:
                _check_outside(frame)
                return await fn(*args, **kwargs)
            if not in_body():
                return await driven(call(*args, **kwargs), current_port())
            for arg in (*args, *kwargs.values()) if kwargs else args:
                if type(arg) is CoroutineType:
                    refuse_unawaited(arg, name)  # pyright: ignore[reportUnknownArgumentType]
            if not (plain and run.simple):
                return await ain_full(spec, fn, frame, run, args, kwargs)
            record = StepRecord(frame, run, name)
            current.set(record)
            try:
                coroutine = fn(*args, **kwargs)
                arg = None
                del args, kwargs  # the function alone holds what it was given, and may let go of it
                result = await coroutine
                if type(result) is CoroutineType:
                    raise gave_coroutine(result, name)  # pyright: ignore[reportUnknownArgumentType]
                record.ended = perf_counter()
                record.state = "completed"
            except BaseException as exc:
                failed(record, run, exc)
                raise
            finally:
                current.set(frame)
                if not run.simple:  # somebody began to listen meanwhile
                    run.tell_finished(record)
            return result
        except Exception as exc:
            conceal(exc)
            raise

    ASYNC_CODE.add(call.__code__)
    return call


def _check_outside(frame: Frame) -> None:
    """Let a call go on that is in no run; one in a run that is over is ended.

    Raises:
        RunStopped: it is.
    """
    if not frame.outside:
        raise RunStopped(frame.scope.run_id, frame.scope.reason or "over")


def _from_async_body(
    spec: Spec, fn: Function, frame: Frame, run: RunRecord, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    for arg in (*args, *kwargs.values()):
        refuse_unawaited(arg, spec.name)
    if not (spec.plain and run.simple):
        return _out(suspend(ain_full(spec, _moved(fn), frame, run, args, kwargs, fn)))
    record = StepRecord(frame, run, spec.name)
    try:
        result = awaited(suspend(in_thread(record, fn, args, kwargs)).outcome(), spec.name)
        record.ended = perf_counter()
        record.state = "completed"
    except BaseException as exc:
        failed(record, run, exc)
        raise
    finally:
        if not run.simple:
            run.tell_finished(record)
    return result


def _moved(fn: Function) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Make a coroutine function of a sync one: it runs on a worker thread, in the frame of the caller."""

    async def moved(*args: Any, **kwargs: Any) -> Any:
        frame = current.get()
        assert frame is not None
        job = await in_thread(frame.below(frame.scope), fn, args, kwargs)
        error = job.error
        return Raised(error) if isinstance(error, StopIteration) else job.outcome()

    return moved


def _out(outcome: Any) -> Any:
    if not isinstance(outcome, Raised):
        return outcome
    try:
        raise outcome.error
    finally:
        del outcome  # no cycle from the traceback back to here


async def moved_step(spec: Spec, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Await a sync step, on a worker thread: what ``await arun(step, ...)`` does in a run."""
    frame = current.get()
    assert frame is not None
    if frame.run is None:
        raise RunStopped(frame.scope.run_id, frame.scope.reason or "over")
    frame.scope.check()
    return _out(await ain_full(spec, _moved(fn), frame, frame.run, args, kwargs, fn))
