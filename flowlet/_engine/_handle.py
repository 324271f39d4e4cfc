"""The handle of a run: look at it, wait for it, cancel it."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial
from math import isnan
from typing import Any, Generic, TypeVar, cast

from .._figures import metrics_of
from .._forks import this_process
from .._tracebacks import conceal
from ..context import RunRecord, here
from ..errors import BridgeError, InputError, ResultNotReady
from ..events import Event
from ..metrics import ExecutionMetrics, RunState
from ..settings import process
from ._bridge import in_body, suspend
from ._calls import start_run
from ._crossing import park
from ._feed import Feed
from ._launch import outcome
from ._loops import current_port, in_ipython, running_loop
from ._runs import Recent, cancel, dropped
from ._threads import Latch
from ._watch import Watch

R_co = TypeVar("R_co", covariant=True)


class Run(Generic[R_co]):
    """The handle of a run, as :func:`flowlet.start` returns it.

    The result can be fetched again and again, until the handle is dropped.
    """

    __slots__ = ("__weakref__", "_process", "_run")

    def __init__(self, run: RunRecord) -> None:
        self._process = this_process()
        self._run = run
        run.handle = weakref.ref(self)

    def __del__(self) -> None:
        run: RunRecord | None = getattr(self, "_run", None)
        if run is None:  # Ctrl-C came before it was made
            return
        if run.handle is not None and run.handle() in (self, None):
            run.handle = None  # else somebody took another handle meanwhile
        if not run.launched:
            return
        if run.handle is None and run.over and (run.fetched or run.error is None):
            run.release()
        elif (watch := process.existing(Watch)) is not None:
            # the collector strikes anywhere, under any lock: no call out of here
            watch.soon(partial(run.on_end, partial(dropped, run)))

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.workflow!r}: {self.state}>"

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.id

    @property
    def workflow(self) -> str:
        """The name of what runs."""
        return self._run.workflow

    @property
    def state(self) -> RunState:
        """``pending``, ``running``, ``completed``, ``failed``, ``cancelled`` or ``timeout``."""
        return self._run.state

    @property
    def metrics(self) -> ExecutionMetrics:
        """The figures of this moment, final ones when the run is over."""
        return metrics_of(self._run)

    def cancel(self) -> bool:
        """Ask the run to stop, from any thread; False when it is over.

        Model calls in flight may finish within the grace. It returns at once: to wait, fetch the result.
        """
        return cancel(self._run)

    def result(self, timeout: float | None = None) -> R_co:
        """Wait for the result, at most *timeout* seconds. In an async body only the body waits.

        Raises:
            InputError: *timeout* is no number.
            ResultNotReady: the wait expired (the run goes on), the result was handed out elsewhere, or the run goes
                on in the process that this one was forked from.
            BridgeError: an event loop runs in this thread; ``await`` the handle there.
            RunCancelled, WorkflowTimeout: the run ended so. Else whatever its body raised.
        """
        try:
            _check_timeout(timeout)
            if not self._run.over:
                self._check_process()
                self._wait_here(timeout)
            return self._outcome(timeout)
        except Exception as exc:
            conceal(exc)
            raise

    def __await__(self) -> Generator[Any, Any, R_co]:
        """Wait for the result in a task."""
        try:
            if not self._run.over:
                self._check_process()
                yield from self._wait(None).__await__()
            return self._outcome(None)
        except Exception as exc:
            conceal(exc)
            raise

    def _check_process(self) -> None:
        if self._process is not this_process():
            raise ResultNotReady(
                self.id, "it goes on in the process that this one was forked from; fetch its result there"
            )

    def _outcome(self, timeout: float | None) -> R_co:
        run = self._run
        if not run.over:
            raise ResultNotReady(run.id, f"no result after {timeout:g} s; it is {run.state}")
        if not run.launched:
            how = run.state if run.error_text is None else f"{run.state} ({run.error_text})"
            raise ResultNotReady(
                run.id, f"it is {how}; its outcome is gone: it went to the caller, or its handle was dropped"
            )
        return cast("R_co", outcome(run))

    def _wait_here(self, timeout: float | None) -> None:
        if in_body():
            suspend(self._wait(timeout))
        elif running_loop() is not None and not in_ipython():
            raise BridgeError(
                "handle.result() would block the event loop that runs in this thread.\n    write:  await handle"
            )
        else:
            self._wait_in_thread(timeout)

    def _wait_in_thread(self, timeout: float | None) -> None:
        latch = Latch()
        self._run.on_end(latch.set)
        scope = here().scope
        try:
            park(latch, scope, timeout)
            if not self._run.over:
                scope.check()
        finally:
            self._run.forget(latch.set)

    async def _wait(self, timeout: float | None) -> None:
        import anyio

        waiter = current_port().waiter()
        self._run.on_end(waiter.wake)
        try:
            with anyio.move_on_after(timeout):
                await waiter.wait()
        finally:
            self._run.forget(waiter.wake)

    @asynccontextmanager
    async def events(self) -> AsyncGenerator[AsyncIterator[Event]]:
        """Follow the run: ``async with handle.events() as events: async for event in events: ...``.

        What has happened before comes first; the end of the run ends the iteration.
        """
        feed = Feed(self._run)
        feed.open()
        try:
            yield feed
        finally:
            feed.close()


def _check_timeout(timeout: object) -> None:
    number = isinstance(timeout, int | float) and not isnan(timeout)
    if timeout is not None and not number:
        raise InputError(
            f"handle.result(timeout={timeout!r}): expected seconds, such as 30, or None to wait until the end"
        )


def record_of(handle: Run[Any]) -> RunRecord:
    """The record behind *handle*."""
    return handle._run  # pyright: ignore[reportPrivateUsage] -- one file, one thing


def handle_of(run: RunRecord) -> Run[Any]:
    """The handle of *run* that somebody holds, or a new one."""
    held = None if run.handle is None else run.handle()
    return held if held is not None else Run(run)


def start_handle(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run[Any]:
    """Start a run of *fn* and return its handle at once."""
    return Run(start_run(fn, args, kwargs))


def recent() -> list[Run[Any]]:
    """The handles of the newest runs, the newest first."""
    return [handle_of(run) for run in process.of(Recent).all()]


def newest_here() -> Run[Any] | None:
    """The handle of the newest run that this thread or task asked for."""
    run = process.of(Recent).of_here()
    return None if run is None else handle_of(run)
