"""A call of a step with all that its options and the run's middleware ask for.

In this order, from the outside: record, middleware, checks, attempts, a place, the time limit.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache, partial
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

import anyio

from .._raised import describe
from .._scope import Scope
from ..context import Frame, FullStepRecord, RunRecord, StepRecord, current, innermost
from ..errors import ProviderError, StepTimeout
from ..events import StepRetried, StepStarted
from ..protocols import StepCall
from ..settings import process
from ..specs import Spec
from ._crossing import in_other_thread, pause
from ._dropped import refuse_dropped
from ._failures import awaited, failed
from ._limits import Limiter, Limits
from ._middleware import athrough, through, wrapping
from ._retry import Policy, Raised, aretry, retry
from ._runtimes import port_of

if TYPE_CHECKING:
    from ._kept import Kept

Function = Callable[..., Any]


def _opened(spec: Spec, frame: Frame, run: RunRecord) -> FullStepRecord:
    refuse_dropped(run)
    record = FullStepRecord(frame, run, spec.name, spec.run.model)
    if not spec.plain:
        record.scope = Scope(run.id, frame.scope)
    if run.observers:
        assert record.index is not None
        run.emit(StepStarted(run.info, time.time(), spec.name, record.index, record.parent))
    return record


def _closed(record: StepRecord, run: RunRecord, frame: Frame) -> None:
    current.set(frame)
    if record.scope is not frame.scope:
        record.scope.leave()
    if run.observers:
        run.tell_finished(record)


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
        if isinstance(exc, ProviderError) and ProviderError not in spec.step.retry_on:
            return False  # the model call was tried again already
        retryable = getattr(exc, "retryable", True)
        return bool(retryable) and isinstance(exc, spec.step.retry_on) and record.scope.reason is None

    return Policy(spec.step.attempts, again, told)


def in_full(
    spec: Spec, fn: Function, frame: Frame, run: RunRecord, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    record = _opened(spec, frame, run)
    current.set(record)
    try:
        if _keeps(spec, run):
            kept = _kept()(spec, fn, frame, record, run, args, kwargs)
            result = kept.result(partial(_made, spec, fn, record, run, args, kwargs))
        else:
            result = _made(spec, fn, record, run, args, kwargs)
        _completed(record)
    except BaseException as exc:
        failed(record, run, exc)
        raise
    finally:
        _closed(record, run, frame)
    return result


def _made(
    spec: Spec,
    fn: Function,
    record: StepRecord,
    run: RunRecord,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Make a call, through the middleware of its run."""
    wraps = wrapping(run.middleware, StepCall) if run.middleware else ()
    if not wraps:
        if spec.plain:
            return awaited(fn(*args, **kwargs), spec.name)
        return _attempts(spec, fn, record, run, args, kwargs)

    def last(call: StepCall) -> Any:
        return _attempts(spec, fn, record, run, call.args, dict(call.kwargs))

    call = StepCall(spec.name, args, kwargs, run.info)
    return awaited(through(wraps, call, last, record, lambda: port_of(run)), spec.name)


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
        with limiter.place(innermost(record).scope):
            return _one(spec, fn, record, args, kwargs)

    if spec.step.attempts == 1:
        result = attempt(1)
    else:
        result = retry(
            _policy(spec, record, run), attempt, lambda seconds: pause(innermost(record).scope, seconds)
        )
    awaited(result, spec.name)
    if spec.step.check:
        check_result(fn, result)
    return result


def _one(spec: Spec, fn: Function, record: StepRecord, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    timeout = spec.step.timeout
    if timeout is None:
        return fn(*args, **kwargs)
    place = innermost(record)
    part = place.below(place.scope)
    job = in_other_thread(part, fn, args, kwargs, timeout)
    if not job.finished or part.scope.reason == "timeout":  # it may have ended since, as it was told to
        raise StepTimeout(record.name, timeout)
    return job.outcome()


async def ain_full(
    spec: Spec,
    fn: Callable[..., Coroutine[Any, Any, Any]],
    frame: Frame,
    run: RunRecord,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    original: Function | None = None,
) -> Any:
    """Await a call of a step with all that its options and the run's middleware ask for.

    *original* is the sync function that *fn* moves to a thread; a StopIteration out of it comes as a value.
    """
    record = _opened(spec, frame, run)
    current.set(record)
    try:
        call = partial(_amade, spec, fn, original or fn, record, run, args, kwargs)
        if _keeps(spec, run):
            result = await _kept()(spec, original or fn, frame, record, run, args, kwargs).aresult(call)
        else:
            result = await call()
        if isinstance(result, Raised):
            failed(record, run, result.error)
        else:
            _completed(record)
    except BaseException as exc:
        failed(record, run, exc)
        raise
    finally:
        _closed(record, run, frame)
    return result


async def _amade(
    spec: Spec,
    fn: Callable[..., Coroutine[Any, Any, Any]],
    original: Function,
    record: StepRecord,
    run: RunRecord,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Make a call, through the middleware of its run."""
    wraps = wrapping(run.middleware, StepCall) if run.middleware else ()
    if not wraps:
        if spec.plain:
            return awaited(await fn(*args, **kwargs), spec.name)
        return await _aattempts(spec, fn, original, record, run, args, kwargs)

    async def last(call: StepCall) -> Any:
        result = await _aattempts(spec, fn, original, record, run, call.args, dict(call.kwargs))
        if isinstance(result, Raised):
            raise result.error
        return result

    call = StepCall(spec.name, args, kwargs, run.info)
    return awaited(await athrough(wraps, call, last, record), spec.name)


async def _aattempts(
    spec: Spec,
    fn: Callable[..., Awaitable[Any]],
    original: Function,
    record: StepRecord,
    run: RunRecord,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if spec.step.check:
        check_inputs(original, args, kwargs)
    limiter = None if spec.step.max_concurrency is None else _limiter(original, spec.step.max_concurrency)

    async def attempt(number: int) -> Any:
        record.attempts = number
        if limiter is None:
            return await _aone(spec, fn, record, args, kwargs)
        async with limiter.aplace():
            return await _aone(spec, fn, record, args, kwargs)

    if spec.step.attempts == 1:
        result = await attempt(1)
    else:
        result = await aretry(_policy(spec, record, run), attempt, anyio.sleep)
    awaited(result, spec.name)
    if spec.step.check and not isinstance(result, Raised):
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
        with anyio.move_on_after(timeout):
            result = await fn(*args, **kwargs)
            if not record.scope.timed_out or outer.timed_out:
                return result
        record.scope.stop("timeout")
        raise StepTimeout(record.name, timeout)
    finally:
        record.scope.leave()
        record.scope = outer


def check_inputs(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check arguments against the hints of *fn*."""
    _signatures().check_inputs(fn, args, kwargs)


def check_limits(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check arguments against the limits in the settings; what plainly keeps to them takes no time."""
    limits = process.settings.inputs
    left = limits.size
    for value in args if not kwargs else (*args, *kwargs.values()):
        kind = type(value)  # pyright: ignore[reportUnknownVariableType]
        if kind is str and value.isprintable():
            left -= len(value)
        elif kind not in _PLAIN:
            break
    else:
        if left >= 0:
            return
    from .. import _inputs

    _inputs.check_limits(fn, args, kwargs, limits)


_PLAIN = frozenset({int, float, bool, type(None)})


def check_result(fn: Function, result: object) -> None:
    """Check a result against the hint of *fn*."""
    _signatures().check_result(fn, result)


def _keeps(spec: Spec, run: RunRecord) -> bool:
    return run.place is not None or spec.step.cache is not False


@cache
def _kept() -> type[Kept]:
    """What keeps outcomes, imported when first needed."""
    from ._kept import Kept

    return Kept


@cache
def _signatures() -> ModuleType:
    """What reads hints, imported when first needed."""
    from .. import _signature

    return _signature


def _limiter(fn: Function, places: int) -> Limiter:
    return process.of(Limits).of(fn, places)
