"""Calls of steps: recorded, and limited, retried, timed and checked as their options say.

A sync step runs where it is called, or on a worker thread when an async body calls it; an async
step runs in the task that awaits it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from time import perf_counter
from types import CoroutineType, ModuleType
from typing import Any

import anyio

from .._scope import Scope
from ..context import Frame, ModelStepRecord, RunRecord, StepRecord, current, describe
from ..errors import BridgeError, Failure, RunStopped, StepTimeout, attribute, failure_of
from ..events import StepFinished, StepRetried, StepStarted
from ..protocols import StepCall
from ..settings import process
from ..specs import Spec
from ._bridge import Drive, in_body, suspend
from ._crossing import in_other_thread, in_thread, park
from ._limits import Limits
from ._loops import current_port, running_loop
from ._middleware import athrough, through, wrapping
from ._retry import Policy, aretry, retry
from ._runtimes import Runtimes
from ._threads import Latch

Function = Callable[..., Any]


def sync_step(spec: Spec, fn: Function) -> Function:  # noqa: C901 -- the hot path, in one piece
    """Make the plain function that calls the sync step *fn*."""
    name, plain = spec.name, spec.plain

    def call(*args: Any, **kwargs: Any) -> Any:
        frame = current.get()
        if frame is None:
            return fn(*args, **kwargs)
        run = frame.run
        if run is None or frame.scope.reason is not None:
            if frame.outside:
                return fn(*args, **kwargs)
            raise RunStopped(frame.scope.run_id, frame.scope.reason or "over")
        if in_body():
            return _from_async_body(spec, fn, frame, run, args, kwargs)
        if running_loop() is not None:
            raise no_bridge(name)
        for arg in (*args, *kwargs.values()) if kwargs else args:
            if type(arg) is CoroutineType:
                refuse_unawaited(arg, name)  # pyright: ignore[reportUnknownArgumentType]
        if not (plain and run.simple):
            return _sync_in_full(spec, fn, frame, run, args, kwargs)
        record = StepRecord(frame, run, name)
        current.set(record)
        try:
            result = fn(*args, **kwargs)
        except BaseException as exc:
            failed(record, run, exc)
            raise
        finally:
            current.set(frame)
        record.ended = perf_counter()
        record.state = "completed"
        return result

    return call


def async_step(spec: Spec, fn: Function) -> Function:
    """Make the coroutine function that calls the async step *fn*."""
    name, plain = spec.name, spec.plain

    async def call(*args: Any, **kwargs: Any) -> Any:
        frame = current.get()
        if frame is None:
            return await fn(*args, **kwargs)
        run = frame.run
        if run is None or frame.scope.reason is not None:
            if frame.outside:
                return await fn(*args, **kwargs)
            raise RunStopped(frame.scope.run_id, frame.scope.reason or "over")
        if not in_body():
            return await Drive(call(*args, **kwargs), current_port())
        for arg in (*args, *kwargs.values()) if kwargs else args:
            if type(arg) is CoroutineType:
                refuse_unawaited(arg, name)  # pyright: ignore[reportUnknownArgumentType]
        if not (plain and run.simple):
            return await in_full(spec, fn, frame, run, args, kwargs)
        record = StepRecord(frame, run, name)
        current.set(record)
        try:
            result = await fn(*args, **kwargs)
        except BaseException as exc:
            failed(record, run, exc)
            raise
        finally:
            current.set(frame)
        record.ended = perf_counter()
        record.state = "completed"
        return result

    ASYNC_CODE.add(call.__code__)
    return call


ASYNC_CODE: set[object] = set()
"""The code of async wrappers, by which a coroutine that nobody awaited is known."""


def refuse_unawaited(value: object, where: str) -> None:
    """Refuse a coroutine of an async step or workflow in the place of its result.

    Raises:
        BridgeError: naming the step that was not awaited.
    """
    if isinstance(value, CoroutineType) and value.cr_code in ASYNC_CODE:
        name = value.__qualname__.rpartition(".")[2]
        value.close()
        raise BridgeError(
            f"{name!r} is async and was not awaited: {where!r} was given a coroutine in place of its result.\n"
            f"    in an async def body:  await {name}(...)\n"
            f"    in a def body:         run({name}, ...)"
        )


def no_bridge(name: str) -> BridgeError:
    """The error of a plain call that would block an event loop."""
    return BridgeError(
        f"{name}(...) would block the event loop of this task, which flowlet did not start.\n"
        f"    instead of:  {name}(...)\n"
        f"    write:       await arun({name}, ...)"
    )


def failed(record: StepRecord, run: RunRecord, exc: BaseException) -> None:
    """Record how *exc* ended a step, and put the step's place on it."""
    record.ended = perf_counter()
    if isinstance(exc, StepTimeout) and exc.step == record.name and failure_of(exc) is None:
        record.state = "timeout"
    elif isinstance(exc, Exception | SystemExit):
        record.state = "failed"
    else:
        record.state = "cancelled"
    record.error = describe(exc)
    old = failure_of(exc)
    if isinstance(exc, Exception) and (old is None or old.serial < record.started):
        attribute(exc, _failure(record, run, exc))


def _failure(record: StepRecord, run: RunRecord, exc: Exception) -> Failure:
    path = [record.name]
    parent = record.parent
    while parent is not None:
        path.append(run.steps[parent].name)
        parent = run.steps[parent].parent
    text = describe(exc).partition(": ")[2]
    path.reverse()
    return Failure(
        record.name,
        tuple(path),
        record.attempts,
        run.workflow,
        run.id,
        type(exc).__qualname__,
        text,
        record.started,
    )


class Carried(Exception):
    """Takes a StopIteration across a coroutine, which would turn it into a RuntimeError."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def uncarried(call: Callable[[], Any]) -> Any:
    """Call, and let a carried exception out."""
    try:
        return call()
    except Carried as vehicle:
        error = vehicle.error
    try:
        raise error
    finally:
        del error


def _from_async_body(
    spec: Spec, fn: Function, frame: Frame, run: RunRecord, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    for arg in (*args, *kwargs.values()):
        refuse_unawaited(arg, spec.name)
    if not (spec.plain and run.simple):
        return uncarried(lambda: suspend(in_full(spec, _moved(fn), frame, run, args, kwargs)))
    record = StepRecord(frame, run, spec.name)
    try:
        result = suspend(in_thread(record, fn, args, kwargs)).outcome()
    except BaseException as exc:
        failed(record, run, exc)
        raise
    record.ended = perf_counter()
    record.state = "completed"
    return result


def _moved(fn: Function) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Make a coroutine function of a sync one: it runs on a worker thread, in the frame of the caller."""

    async def moved(*args: Any, **kwargs: Any) -> Any:
        frame = current.get()
        assert frame is not None
        job = await in_thread(frame.below(frame.scope), fn, args, kwargs)
        if isinstance(job.error, StopIteration):
            raise Carried(job.error)
        return job.outcome()

    moved.__wrapped__ = fn  # type: ignore[attr-defined]
    return moved


async def moved_step(spec: Spec, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Await a sync step, on a worker thread: what ``await arun(step, ...)`` does in a run."""
    frame = current.get()
    assert frame is not None
    if frame.run is None:
        raise RunStopped(frame.scope.run_id, frame.scope.reason or "over")
    frame.scope.check()
    return await in_full(spec, _moved(fn), frame, frame.run, args, kwargs)


def _opened(spec: Spec, frame: Frame, run: RunRecord) -> StepRecord:
    model = spec.run.model
    record = (
        StepRecord(frame, run, spec.name) if model is None else ModelStepRecord(frame, run, spec.name, model)
    )
    record.scope = Scope(run.id, frame.scope)
    if run.observers:
        assert record.index is not None
        run.emit(StepStarted(run.info, time.time(), spec.name, record.index, record.parent))
    return record


def _closed(record: StepRecord, run: RunRecord, frame: Frame) -> None:
    current.set(frame)
    record.scope.leave()
    if run.observers:
        assert record.index is not None
        run.emit(
            StepFinished(
                run.info,
                time.time(),
                record.name,
                record.index,
                record.state,
                record.ended - record.started,
                record.attempts,
                record.error,
                record.parent,
            )
        )


def _completed(record: StepRecord) -> None:
    record.ended = perf_counter()
    record.state = "completed"


def _policy(spec: Spec, record: StepRecord, run: RunRecord) -> Policy:
    def told(attempt: int, wait: float, exc: Exception) -> None:
        if run.observers:
            assert record.index is not None
            reason = describe(exc)
            run.emit(StepRetried(run.info, time.time(), record.name, record.index, attempt, wait, reason))

    def again(exc: Exception) -> bool:
        retryable = getattr(exc, "retryable", True)
        return bool(retryable) and isinstance(exc, spec.step.retry_on) and record.scope.reason is None

    return Policy(spec.step.attempts, again, told)


def _sync_in_full(
    spec: Spec, fn: Function, frame: Frame, run: RunRecord, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    record = _opened(spec, frame, run)
    current.set(record)

    def last(call: StepCall) -> Any:
        return _attempts(spec, fn, record, run, call.args, dict(call.kwargs))

    try:
        wraps = wrapping(run.middleware, StepCall)
        call = StepCall(spec.name, args, kwargs, run.info)
        result = through(wraps, call, last, record, lambda: port_of(run))
        _completed(record)
    except BaseException as exc:
        failed(record, run, exc)
        raise
    finally:
        _closed(record, run, frame)
    return result


def _attempts(
    spec: Spec,
    fn: Function,
    record: StepRecord,
    run: RunRecord,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if spec.step.check:
        check_inputs(fn, args, kwargs)
    limiter = None if spec.step.max_concurrency is None else _limiter(fn, spec.step.max_concurrency)

    def attempt(number: int) -> Any:
        record.attempts = number
        if limiter is None:
            return _one(spec, fn, record, args, kwargs)
        limiter.acquire(record.scope)
        try:
            return _one(spec, fn, record, args, kwargs)
        finally:
            limiter.release()

    if spec.step.attempts == 1:
        result = attempt(1)
    else:
        result = retry(_policy(spec, record, run), attempt, lambda seconds: pause(record.scope, seconds))
    if spec.step.check:
        check_result(fn, result)
    return result


def pause(scope: Scope, seconds: float) -> None:
    """Wait in this thread, unless *scope* is stopped.

    Raises:
        RunStopped: it was.
    """
    park(Latch(), scope, seconds)
    scope.check()


def _one(spec: Spec, fn: Function, record: StepRecord, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    timeout = spec.step.timeout
    if timeout is None:
        return fn(*args, **kwargs)
    part = record.below(record.scope)
    job = in_other_thread(part, fn, args, kwargs, timeout)
    if not job.finished:
        raise StepTimeout(record.name, timeout)
    return job.outcome()


async def in_full(
    spec: Spec,
    fn: Callable[..., Coroutine[Any, Any, Any]],
    frame: Frame,
    run: RunRecord,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Await a call of a step with all that its options and the run's middleware ask for."""
    record = _opened(spec, frame, run)
    current.set(record)

    async def last(call: StepCall) -> Any:
        return await _aattempts(spec, fn, record, run, call.args, dict(call.kwargs))

    try:
        wraps = wrapping(run.middleware, StepCall)
        result = await athrough(wraps, StepCall(spec.name, args, kwargs, run.info), last, record)
        _completed(record)
    except BaseException as exc:
        failed(record, run, exc)
        raise
    finally:
        _closed(record, run, frame)
    return result


async def _aattempts(
    spec: Spec,
    fn: Callable[..., Awaitable[Any]],
    record: StepRecord,
    run: RunRecord,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    original = getattr(fn, "__wrapped__", fn)
    if spec.step.check:
        check_inputs(original, args, kwargs)
    limiter = None if spec.step.max_concurrency is None else _limiter(original, spec.step.max_concurrency)

    async def attempt(number: int) -> Any:
        record.attempts = number
        if limiter is None:
            return await _aone(spec, fn, record, args, kwargs)
        await limiter.aacquire()
        try:
            return await _aone(spec, fn, record, args, kwargs)
        finally:
            limiter.release()

    if spec.step.attempts == 1:
        result = await attempt(1)
    else:
        result = await aretry(_policy(spec, record, run), attempt, anyio.sleep)
    if spec.step.check:
        check_result(original, result)
    return result


async def _aone(
    spec: Spec,
    fn: Callable[..., Awaitable[Any]],
    record: StepRecord,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    timeout = spec.step.timeout
    if timeout is None:
        return await fn(*args, **kwargs)
    outer = record.scope
    record.scope = Scope(outer.run_id, outer, time.monotonic() + timeout)
    try:
        with anyio.move_on_after(timeout) as limit:
            return await fn(*args, **kwargs)
        if limit.cancelled_caught:
            record.scope.stop("timeout")
        raise StepTimeout(record.name, timeout)
    finally:
        record.scope.leave()
        record.scope = outer


def check_inputs(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check arguments against the hints of *fn*."""
    _signatures().check_inputs(fn, args, kwargs)


def check_result(fn: Function, result: object) -> None:
    """Check a result against the hint of *fn*."""
    _signatures().check_result(fn, result)


@cache
def _signatures() -> ModuleType:
    """What reads hints, imported when first needed."""
    from .. import _signature

    return _signature


def _limiter(fn: Function, places: int) -> Any:
    return process.of(Limits).of(fn, places)


def port_of(run: RunRecord) -> Any:
    """The run's loop; a run in a plain thread gets the background loop of its backend."""
    if run.port is None:
        run.port = process.of(Runtimes).port(run.backend)
    return run.port
