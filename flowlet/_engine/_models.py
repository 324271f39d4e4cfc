"""Model calls: through the middleware, tried again where that helps, every attempt booked.

A call in flight runs in a task of the engine's own (or on its thread), so it ends and is booked
even when whoever waits for it is cancelled or has timed out.
"""

from __future__ import annotations

import inspect
import time
import weakref
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from copy import copy
from functools import partial
from typing import Any

import anyio

from ..context import Frame, here
from ..errors import BridgeError, ProviderError
from ..messages import Completion, Request
from ..protocols import LLMProvider, ModelCall
from ..settings import process
from ._attempts import Attempts, InFlight, Target, shown, whole
from ._bridge import in_body, suspend
from ._crossing import SETTLE, grace_of, in_thread, on_loop, pause
from ._loops import Port, current_port, in_ipython, running_loop
from ._middleware import athrough, through
from ._retry import aretry, retry
from ._runtimes import Runtimes, port_of
from ._threads import here_busy

OVERDUE = 0.5
"""Seconds beyond a request's timeout after which the engine ends a provider's call itself."""


# --- from plain code -----------------------------------------------------------------------------


def complete(target: Target, request: Request) -> Completion:
    """Answer *request*, with retries; in an async body only the body waits.

    Raises:
        BridgeError: the call would block an event loop.
        ProviderError: the last attempt failed, or an error that no other attempt can mend.
    """
    if in_body():
        return suspend(acomplete(target, request))
    if running_loop() is not None and not in_ipython():
        raise BridgeError(
            "a call of LLM would block the event loop of this task.\n    write:  await AsyncLLM(...).ask(...)"
        )
    attempts = Attempts(target, request)
    last = partial(_with_retries, attempts)
    completion: Completion = through(
        attempts.middleware(), attempts.call, last, attempts.frame, partial(any_port, attempts.frame)
    )
    return completion


def any_port(frame: Frame) -> Port:
    """The loop of the run at *frame*, or outside a run the background loop."""
    if frame.run is not None:
        port: Port = port_of(frame.run)
        return port
    return process.of(Runtimes).port(process.settings.backend)


def _with_retries(attempts: Attempts, call: ModelCall) -> Completion:
    def attempt(number: int) -> Completion:
        attempts.number = number
        with here_busy():  # from here on, whoever cancels the run waits for the answer
            attempts.check()
            attempts.hold(call.request).take(attempts.frame.scope)
            completion = _attempt(attempts, call.request)
        attempts.check()
        return completion

    if attempts.target.attempts == 1:
        return attempt(1)
    return retry(attempts.policy(), attempt, partial(pause, attempts.frame.scope))


def _attempt(attempts: Attempts, request: Request) -> Completion:
    method = sync_method(attempts.target.provider, "complete")
    if method is None:
        frame = attempts.frame
        answer: Completion = on_loop(frame.below(frame.scope), any_port(frame), _answer, (attempts, request))
        return answer
    calls = process.of(InFlight).calls
    started = time.perf_counter()
    calls.add(attempts)
    try:
        completion = whole(attempts.target, method(request))
    except BaseException as exc:
        caught = shown(attempts.target, exc)
        attempts.failed(request, caught, time.perf_counter() - started)
        if caught is exc:
            raise
        raise caught from exc
    finally:
        calls.discard(attempts)
    return attempts.answered(request, completion, time.perf_counter() - started)


def sync_method(provider: LLMProvider, name: str) -> Callable[..., Any] | None:
    """The provider's sync method *name*, if it has one."""
    method = getattr(provider, name, None)
    return None if method is None or inspect.iscoroutinefunction(method) else method


def async_method(provider: LLMProvider, name: str) -> Callable[..., Coroutine[Any, Any, Any]] | None:
    """The provider's async method: ``acomplete``, or a ``complete`` that is a coroutine function."""
    method = getattr(provider, "a" + name, None)
    if method is None:
        method = getattr(provider, name, None)
        method = method if inspect.iscoroutinefunction(method) else None
    return method


# --- from async code -----------------------------------------------------------------------------


async def acomplete(target: Target, request: Request) -> Completion:
    """Answer *request*, with retries, while the loop goes on.

    Raises:
        ProviderError: the last attempt failed, or an error that no other attempt can mend.
    """
    attempts = Attempts(target, request)
    await ready(target)
    last = partial(_awith_retries, attempts)
    completion: Completion = await athrough(attempts.middleware(), attempts.call, last, attempts.frame)
    return completion


class Ready:
    """The providers whose slow first steps (importing an SDK) have been taken off the loops."""

    def __init__(self) -> None:
        self.providers: weakref.WeakSet[object] = weakref.WeakSet()


async def ready(target: Target) -> None:
    """Let a worker thread import what *target* needs, before its first call on a loop."""
    done = process.of(Ready).providers
    load = getattr(target.provider, "load", None)
    if load is None or target.provider in done:
        return
    from .. import pricing

    frame = here()
    for slow in (load, pricing.load):
        job = await in_thread(frame.below(frame.scope), slow, (), {})
        job.outcome()
    done.add(target.provider)


async def _awith_retries(attempts: Attempts, call: ModelCall) -> Completion:
    async def attempt(number: int) -> Completion:
        attempts.number = number
        attempts.check()
        await attempts.hold(call.request).atake()
        return await _answer(attempts, call.request)

    if attempts.target.attempts == 1:
        return await attempt(1)
    return await aretry(attempts.policy(), attempt, anyio.sleep)


async def _answer(attempts: Attempts, request: Request) -> Completion:
    if async_method(attempts.target.provider, "complete") is not None:
        return await _InFlight(attempts, request).answer()
    started = time.perf_counter()
    frame, mine = attempts.frame, copy(attempts)  # the thread may outlive this attempt, and books it then
    with anyio.move_on_after(request.timeout + OVERDUE):
        job = await in_thread(frame.below(frame.scope), _busy_attempt, (mine, request), {})
        return job.outcome()  # type: ignore[no-any-return]
    error = _overdue(request)
    mine.failed(request, error, time.perf_counter() - started)
    mine.fenced = True
    raise error


def _busy_attempt(attempts: Attempts, request: Request) -> Completion:
    with here_busy():
        return _attempt(attempts, request)


def _overdue(request: Request) -> ProviderError:
    return ProviderError("timeout", f"no whole answer within {request.timeout:g} s", retryable=True)


class _InFlight:
    """One attempt in a task of the engine's own, which books it whatever becomes of the caller."""

    def __init__(self, attempts: Attempts, request: Request) -> None:
        self._attempts = attempts
        self._request = request
        self._limit = anyio.CancelScope()
        self._finished = False
        self._completion: Completion | None = None
        self._error: BaseException | None = None

    async def answer(self) -> Completion:
        port = current_port()
        waiter = port.waiter()
        port.spawn(self._run, (waiter.wake,), copy_context())
        try:
            await waiter.wait()
        except BaseException:
            await self._left_alone(waiter)
            raise
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None
        assert self._completion is not None
        return self._completion

    async def _left_alone(self, waiter: Any) -> None:
        scope = self._attempts.frame.scope
        if self._finished:
            return
        if scope.timed_out:  # nobody waits, but what was paid for is still booked
            self._limit.deadline = anyio.current_time() + process.settings.grace
            return
        try:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + grace_of(scope)):
                await waiter.wait()
        finally:
            self._limit.cancel()
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + SETTLE):
            await waiter.wait()  # it is booked and its connection closed before the run has ended

    async def _run(self, done: Callable[[], object]) -> None:
        calls = process.of(InFlight).calls
        started = time.perf_counter()
        calls.add(self._attempts)
        try:
            with self._limit:
                await self._attempt(started)
        finally:
            if not self._finished:
                self._error = ProviderError(
                    "cancelled", "the call was cancelled in flight", provider=self._attempts.target.name
                )
                self._attempts.failed(self._request, self._error, time.perf_counter() - started)
                self._finished = True
            calls.discard(self._attempts)
            done()

    async def _attempt(self, started: float) -> None:
        attempts, request = self._attempts, self._request
        try:
            completion = whole(attempts.target, await _within_time(attempts.target.provider, request))
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as exc:  # noqa: BLE001 -- raised again in the caller's task
            self._error = shown(attempts.target, exc)
            if self._error is not exc:
                self._error.__cause__ = exc
            attempts.failed(request, self._error, time.perf_counter() - started)
        else:
            self._completion = attempts.answered(request, completion, time.perf_counter() - started)
        self._finished = True


async def _within_time(provider: LLMProvider, request: Request) -> Completion:
    """Await the async provider, at most the request's timeout."""
    method = async_method(provider, "complete")
    assert method is not None
    with anyio.move_on_after(request.timeout + OVERDUE):
        return await method(request)  # type: ignore[no-any-return]
    raise _overdue(request)
