"""Many calls at once: results in order, the first failure ends the rest and is raised as it is."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, cast

import anyio

from .._scope import Scope
from ..context import Frame, current, here
from ..errors import BridgeError, RunStopped
from ..settings import process
from ..specs import is_async
from ._bridge import driven, in_body, suspend
from ._crossing import asettled, in_thread, on_loop, park, port_at, settle, settled
from ._failures import awaited
from ._handle import Run, record_of
from ._loops import Port, current_port, in_ipython, is_cancellation, library, running_loop
from ._threads import Job, Latch, Threads

Function = Callable[..., Any]
_UNFILLED: Any = object()


class _Fan:
    """A fan-out: what is left to do, the results so far, the first failure."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.frame = here()
        self.scope = Scope(self.frame.scope.run_id, self.frame.scope)
        self.place = self.frame.below(self.scope)
        values = list(items)
        self._in_lane = _lanes(self.place)
        self.results: list[Any] = [_UNFILLED] * len(values)
        self._left = iter(enumerate(values))
        self._lock = threading.Lock()
        self.first: BaseException | None = None

    def next(self) -> tuple[int, Any, Frame] | None:
        """What to do next, and its place, or None when all is begun or one has failed."""
        with self._lock:  # in the order of the items, so that each has the same lane in every run
            task = None if self.scope.reason is not None else next(self._left, None)
            if task is None:
                return None
            index, item = task
            return index, item, self.place if self._in_lane is None else self._in_lane(item)

    def fail(self, exc: BaseException) -> None:
        """Remember the first failure and end the rest."""
        with self._lock:
            if self.first is None and self.scope.reason is None:
                self.first = exc
        self.scope.stop("failed")

    def finish(self) -> list[Any]:
        """Give the results, all of them, or raise the first failure.

        Raises:
            RunStopped: the fan-out was ended before all was done.
        """
        self.scope.leave()
        if self.first is not None:
            try:
                raise self.first
            finally:
                self.first = None
        self.frame.scope.check()
        if any(result is _UNFILLED for result in self.results):
            raise RunStopped(self.scope.run_id, self.scope.reason or "cancelled")
        return self.results


def _lanes(place: Frame) -> Callable[[object], Frame] | None:
    """What gives each item a place of its own, in a run with a journal."""
    if place.run is None or place.run.place is None:
        return None
    from ._places import lane_of  # imported with the first run that is journalled

    return partial(lane_of, place)


def map_in_threads(fn: Function, items: Iterable[Any], max_concurrency: int) -> list[Any]:
    """Call *fn* with each item, on worker threads or on the run's loop by its colour, and wait in this thread."""
    if in_body():
        return suspend(
            map_in_tasks(fn, list(items), max_concurrency)
        )  # items may call steps: here, not below
    if running_loop() is not None and not in_ipython():
        raise BridgeError(
            "pmap(...) would block the event loop of this task, which flowlet did not start.\n"
            "    write:  await apmap(...)"
        )
    if is_async(fn):
        frame = here()
        result: list[Any] = on_loop(
            frame.below(frame.scope), port_at(frame), map_in_tasks, (fn, list(items), max_concurrency)
        )
        return result
    fan = _Fan(items)
    workers = min(len(fan.results), max_concurrency)
    if workers:
        _run_workers(fan, fn, workers)
    return fan.finish()


def _run_workers(fan: _Fan, fn: Function, workers: int) -> None:
    latch = Latch()
    left = workers
    lock = threading.Lock()

    def done() -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        if last:
            latch.set()

    def work() -> None:
        while (task := fan.next()) is not None:
            index, item, place = task
            try:
                fan.results[index] = context.copy().run(_enter, place, fn, item)
            except BaseException as exc:  # noqa: BLE001 -- raised by finish()
                fan.fail(exc)

    context = copy_context()
    jobs: list[Job] = []
    threads = process.of(Threads)
    try:
        for _ in range(workers):
            job = Job(context.copy(), work, (), done)
            threads.submit(job)
            jobs.append(job)
        park(latch, fan.scope)
    except BaseException:
        fan.scope.stop("cancelled")
        raise
    finally:
        settle(jobs, latch, fan.place)


def _enter(frame: Frame, fn: Function, item: Any) -> Any:
    current.set(frame)
    library.set(None)
    return awaited(settled(fn(item), frame), _name(fn))


def _name(fn: Function) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


async def map_in_tasks(fn: Function, items: Iterable[Any], max_concurrency: int) -> list[Any]:
    """Call *fn* with each item, in tasks or on worker threads by its colour, and wait in this task."""
    fan = _Fan(items)
    port = current_port()
    call = _caller(fn, port)

    async def one(index: int, item: Any, place: Frame) -> None:
        current.set(place)
        try:
            fan.results[index] = await call(item)
        except BaseException as exc:
            if isinstance(exc, RunStopped) and fan.scope.reason is not None:
                return  # part of the rest that was ended; finish() tells why
            if _asked_for(exc, fan.scope):
                raise
            fan.fail(exc)  # also a cancellation of its own, which the task group would drop
            group.cancel_scope.cancel()
        else:
            begin()

    def begin() -> None:
        if (task := fan.next()) is not None:
            group.start_soon(one, *task)

    try:
        async with anyio.create_task_group() as group:
            for _ in range(min(len(fan.results), max_concurrency)):
                begin()
    except BaseException as exc:
        fan.scope.stop("cancelled")
        fan.scope.leave()
        _raise_interrupt(exc)
        raise
    return fan.finish()


def _raise_interrupt(exc: BaseException) -> None:
    """Raise a Ctrl-C as it came, where trio makes a group of it."""
    if not isinstance(exc, KeyboardInterrupt) and _is_interrupt(exc):
        raise KeyboardInterrupt from None


def _is_interrupt(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_interrupt(one) for one in cast("BaseExceptionGroup[BaseException]", exc).exceptions)
    return isinstance(exc, KeyboardInterrupt)


def _asked_for(exc: BaseException, scope: Scope) -> bool:
    """Whether somebody wants the task to end, rather than that what it awaited was cancelled."""
    if isinstance(exc, KeyboardInterrupt | RunStopped) or not is_cancellation(exc):
        return False
    if isinstance(exc, GeneratorExit) or scope.reason is not None:
        return True
    return anyio.current_effective_deadline() == -math.inf


def _caller(fn: Function, port: Port) -> Callable[[Any], Awaitable[Any]]:
    async def in_task(item: Any) -> Any:
        return await driven(fn(item), port)

    async def on_thread(item: Any) -> Any:
        frame = here()
        job = await in_thread(frame.below(frame.scope), fn, (item,), {})
        return awaited(await asettled(job.outcome()), _name(fn))

    return in_task if is_async(fn) else on_thread


async def await_all(awaitables: Sequence[Awaitable[Any]]) -> list[Any]:
    """Await all in tasks of their own."""

    async def one(awaitable: Awaitable[Any]) -> Any:
        return await awaitable

    try:
        return await map_in_tasks(one, awaitables, max(1, len(awaitables)))
    except BaseException:
        for awaitable in awaitables:
            if isinstance(awaitable, Run):
                awaitable.cancel()
        raise
    finally:
        for awaitable in awaitables:
            if inspect.iscoroutine(awaitable):
                awaitable.close()  # one that was never begun; harmless for the others


def wait_all(handles: Sequence[Run[Any]]) -> list[Any]:
    """Wait in this thread for all runs; when one fails, cancel the others and raise its error."""
    if in_body():
        return suspend(await_all(handles))
    if running_loop() is not None and not in_ipython():
        raise BridgeError(
            "gather(...) would block the event loop of this task, which flowlet did not start.\n"
            "    write:  await agather(...)"
        )
    latch = Latch()
    ended: list[Run[Any]] = []

    def done(handle: Run[Any]) -> None:
        ended.append(handle)
        latch.set()

    for handle in handles:
        record_of(handle).on_end(partial(done, handle))
    try:
        _until_all(handles, ended, latch)
    except BaseException:
        for handle in handles:
            handle.cancel()
        raise
    return [handle.result() for handle in handles]


def _until_all(handles: Sequence[Run[Any]], ended: list[Run[Any]], latch: Latch) -> None:
    scope = here().scope
    seen = 0
    while seen < len(handles):
        park(latch, scope)
        scope.check()
        while seen < len(ended):
            if ended[seen].state != "completed":
                ended[seen].result()
            seen += 1
