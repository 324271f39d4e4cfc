"""The body of a run, executed in this thread (sync) or in this task (async)."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache, partial
from types import ModuleType
from typing import Any

import anyio

from ..context import Frame, RunRecord, current
from ..protocols import RunCall
from ..settings import process
from ._bridge import driven, in_body
from ._crossing import SETTLE, grace_of, idle, is_coroutine, park, settled
from ._dropped import refuse_dropped
from ._failures import awaited, refuse_within
from ._loops import Port, current_port
from ._middleware import athrough, through, wrapping
from ._runs import begin, break_off, cancel, close, conclude, end, expire, late, raise_end
from ._runtimes import port_of
from ._threads import Latch
from ._watch import Watch

Function = Callable[..., Any]


def inline(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Execute the sync body *fn* in this thread."""
    previous, kept, frame = current.get(), run.kept, Frame(run, run.scope)
    result: Any = None
    exc: BaseException | None = None
    try:
        try:
            begin(run, frame)
            run.scope.check()
            if run.place is None:
                result = _executed(run, fn, args, kwargs, frame)
            else:
                args, kwargs = run.place.inputs or (args, kwargs)
                result = _kept().body(run, partial(_executed, run, fn, args, kwargs, frame))
        except BaseException as caught:  # noqa: BLE001 -- raised by raise_end()
            exc = caught
        finally:
            current.set(previous)
            frame.run = None
        if run.plugins is not None:
            exc = run.plugins.close(run.scope) or exc
        if exc is None and run.scope.reason is None and not late(run) and end(run, "completed", result):
            close(run)
            return result
        conclude(run, None if exc is not None else result, exc)
        if not kept:  # else it is raised where it is fetched, maybe at this moment
            raise_end(run, exc)
    except BaseException as raised:
        _left(run, raised, previous, kept)
        raise
    finally:
        exc = None
    return result


def _left(run: RunRecord, exc: BaseException, previous: Frame | None, kept: bool) -> None:
    """Leave *run* by *exc*: its own, or a Ctrl-C amidst the lines that begin and end it."""
    current.set(previous)
    break_off(run, exc)
    if not kept:
        run.release()


def _executed(
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame
) -> Any:
    try:
        if run.middleware:
            result = _through_runs(run, fn, args, kwargs, frame)
        else:
            result = settled(fn(*args, **kwargs), frame)
        _good(run, result)
        if run.open_children:
            _join(run)
    except BaseException:
        if run.open_children:
            _stop_children(run)
        raise
    return result


@cache
def _kept() -> ModuleType:
    """What keeps outcomes, imported when first needed."""
    from . import _kept

    return _kept


def _through_runs(
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame
) -> Any:
    wraps = wrapping(run.middleware, RunCall)
    call = RunCall(run.workflow, args, kwargs, run.info)

    def last(call: RunCall) -> Any:
        return settled(fn(*call.args, **call.kwargs), frame)

    return through(wraps, call, last, frame, lambda: port_of(run))


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
        idle(latch, until - time.monotonic())


async def drive(run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Execute the async body *fn* in this task."""
    previous, kept, frame = current.get(), run.kept, Frame(run, run.scope)
    exc = result = None
    try:
        try:
            port = _entered(run, frame)
            try:
                with run.limit:
                    run.scope.check()
                    if run.place is None:  # without a coroutine between, which many runs at once would feel
                        begun = _begun(run, fn, args, kwargs, frame, port)
                        del args, kwargs
                        result = _good(run, await begun)
                        if run.open_children:
                            await _ajoin(run, port)
                    else:
                        args, kwargs = run.place.inputs or (args, kwargs)
                        call = partial(_aexecuted, run, fn, args, kwargs, frame, port)
                        result = await _kept().abody(run, call)
            finally:
                if run.open_children:
                    await _astop_children(run, port)
        except BaseException as caught:  # noqa: BLE001 -- raised by raise_end()
            exc = _closed(caught) or caught
        finally:
            current.set(previous)
            frame.run = run.limit = None
        if run.plugins is not None and not isinstance(exc, GeneratorExit):  # which lets nothing be awaited
            exc = await run.plugins.aclose(run.scope) or exc
        conclude(run, result, exc)
        if not kept or isinstance(exc, anyio.get_cancelled_exc_class()):  # which is this task's own
            raise_end(run, exc)
    except BaseException as raised:
        _left(run, raised, previous, kept)
        raise
    finally:
        exc = None
    return result


def _entered(run: RunRecord, frame: Frame) -> Port:
    """Begin *run* in this task, where it can be stopped from now on."""
    begin(run, frame)
    port = run.port = current_port()
    run.limit = port.limit()
    run.scope.executed = run
    if run.deadline is not None:
        run.on_end(process.of(Watch).at(run.deadline, partial(expire, run)).cancel)
    return port


def _closed(exc: BaseException | None) -> GeneratorExit | None:
    """What says that the coroutine was closed, also where a loop that is gone could not be told."""
    if isinstance(exc, GeneratorExit):
        return exc
    behind = None if exc is None else exc.__context__
    return behind if isinstance(exc, RuntimeError) and isinstance(behind, GeneratorExit) else None


async def _aexecuted(
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame, port: Port
) -> Any:
    try:
        result = _good(run, await _begun(run, fn, args, kwargs, frame, port))
        if run.open_children:
            await _ajoin(run, port)
    except BaseException:
        if run.open_children:
            await _astop_children(run, port)
        raise
    return result


def _begun(
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame, port: Port
) -> Awaitable[Any]:
    """Make what is to be awaited for the result of the body."""
    given = _through_aruns(run, fn, args, kwargs, frame) if run.middleware else fn(*args, **kwargs)
    coroutine = given if is_coroutine(given) else _awaiting(given)
    return coroutine if in_body() else driven(coroutine, port)


async def _awaiting(awaitable: Awaitable[Any]) -> Any:
    """Await what a wrapper of an async function gives that is no coroutine, such as a future."""
    return await awaitable


def _good(run: RunRecord, result: Any) -> Any:
    """Give the *result* of the body, if nothing un-awaited is in it or was dropped."""
    awaited(result, run.workflow)
    refuse_within(result, run.workflow)
    refuse_dropped(run)
    return result


def _through_aruns(
    run: RunRecord, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame
) -> Coroutine[Any, Any, Any]:
    call = RunCall(run.workflow, args, kwargs, run.info)
    return athrough(wrapping(run.middleware, RunCall), call, _last(fn), frame)


async def _astop_children(run: RunRecord, port: Port) -> None:
    for child in tuple(run.open_children or ()):
        cancel(child)
    if _closed(sys.exception()):  # which lets nothing be awaited
        return
    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + grace_of(run.scope) + SETTLE):
        await _ajoin(run, port)


def _last(fn: Function) -> Callable[[RunCall], Coroutine[Any, Any, Any]]:
    async def last(call: RunCall) -> Any:
        return await fn(*call.args, **call.kwargs)

    return last


async def _ajoin(run: RunRecord, port: Port) -> None:
    for child in tuple(run.open_children or ()):
        waiter = port.waiter()
        child.on_end(waiter.wake)
        await waiter.wait()
