"""Model calls: through the middleware, tried again where that helps, every attempt booked.

A call in flight runs in a task of the engine's own (or on its thread), so it ends and is booked
even when whoever waits for it is cancelled or has timed out.
"""

from __future__ import annotations

import inspect
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import cache, partial
from types import ModuleType
from typing import Any, TypeVar

import anyio
from attrs import evolve

from .._scope import Scope
from ..context import here, innermost
from ..errors import BridgeError, FlowletError, ProviderError, RunStopped
from ..messages import Completion, Request
from ..metrics import UNKNOWN, TokenUsage
from ..protocols import LLMProvider, ModelCall
from ..settings import process
from ._attempts import Attempt, Attempts, InFlight, Target, shown, whole
from ._bridge import in_body, suspend
from ._crossing import SETTLE, grace_of, in_other_thread, in_thread, on_loop, pause, port_at
from ._failures import awaited
from ._guarding import aguarded, guarded
from ._loops import current_port, in_ipython, running_loop
from ._middleware import athrough, through
from ._retry import Raised, aretry, retry
from ._threads import here_busy
from ._watch import Watch

T = TypeVar("T")

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
    last = partial(_guarded, attempts)
    wraps, frame = attempts.middleware(), attempts.frame
    completion: Completion = through(wraps, attempts.call, last, frame, partial(port_at, frame))
    if wraps:
        awaited(completion, "middleware")
    return completion


def _guarded(attempts: Attempts, call: ModelCall) -> Completion:
    out = guarded(attempts, call.request)
    return out.restored(_with_retries(attempts, evolve(call, request=out.request)))


def _with_retries(attempts: Attempts, call: ModelCall) -> Completion:
    memo = attempts.memo(call.request)
    known = attempts.known(call.request, memo)
    if known is not None:
        return known

    def attempt(number: int) -> Completion:
        one = attempts.attempt(call.request, number, memo)
        with here_busy():  # from here on, whoever cancels the run waits for the answer
            attempts.check()
            with one.hold.taken(innermost(attempts.frame).scope):
                completion = _attempt_in_time(one)
        attempts.check()
        return completion

    return retried(attempts, attempt)


def retried(attempts: Attempts, attempt: Callable[[int], T]) -> T:
    """Make *attempt* until it succeeds, its error is final, or none is left."""
    if attempts.target.attempts == 1:
        return attempt(1)
    return retry(attempts.policy(), attempt, partial(pause, innermost(attempts.frame).scope))


def _attempt_in_time(one: Attempt) -> Completion:
    """Make the attempt in this thread, or in another one where the provider may not end by itself."""
    provider = one.place.target.provider
    if getattr(provider, "keeps_time", False) or sync_method(provider, "complete") is None:
        return _attempt(one)
    started, frame, seconds = time.perf_counter(), innermost(one.place.frame), one.request.timeout + OVERDUE
    part = frame.below(frame.scope)
    try:
        job = in_other_thread(part, _busy_attempt, (one,), {}, seconds, patient=False)
    except RunStopped:
        _book_alone(one, seconds)
        raise
    except KeyboardInterrupt as exc:
        one.failed(exc, time.perf_counter() - started, TokenUsage() if one.hold.give_up() else UNKNOWN)
        raise
    if not job.finished or part.scope.reason == "timeout":  # it may have ended since, as it was told to
        raise _given_up(one, started)
    return job.outcome()  # type: ignore[no-any-return]


def _book_alone(one: Attempt, seconds: float) -> None:
    """Book an attempt that nobody waits for any more when its time is over, if it has begun and still goes on then."""
    if one.hold.give_up():
        return
    attempt = weakref.ref(one)

    def overdue() -> None:
        if (one := attempt()) is not None:
            one.failed(_overdue(one.request), seconds)

    with suppress(FlowletError):  # the clock can't have a thread any more
        process.of(Watch).after(seconds, overdue)


def _given_up(one: Attempt, started: float) -> ProviderError:
    """Book an attempt that took too long, and give its error."""
    error = _overdue(one.request)
    one.failed(error, time.perf_counter() - started, TokenUsage() if one.hold.give_up() else UNKNOWN)
    return error


def _attempt(one: Attempt) -> Completion:
    target, frame = one.place.target, innermost(one.place.frame)
    method = sync_method(target.provider, "complete")
    if method is None:
        answer: Completion = on_loop(frame.below(frame.scope), port_at(frame), _answer, (one,))
        return answer
    started = time.perf_counter()
    if not one.hold.begin():
        raise RunStopped(frame.scope.run_id, frame.scope.reason or "cancelled")
    with process.of(InFlight).during(one):
        try:
            if hasattr(target.provider, "open"):
                opening().open_provider(target.name, target.provider)
            completion = whole(target, method(one.request))
        except BaseException as exc:
            caught = shown(target, exc)
            one.failed(caught, time.perf_counter() - started)
            if caught is exc:
                raise
            raise caught from exc
    one.answered(completion, time.perf_counter() - started)
    one.keep(completion)
    return completion


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
    last = partial(_aguarded, attempts)
    wraps = attempts.middleware()
    completion: Completion = await athrough(wraps, attempts.call, last, attempts.frame)
    if wraps:
        awaited(completion, "middleware")
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


async def _aguarded(attempts: Attempts, call: ModelCall) -> Completion:
    out = await aguarded(attempts, call.request)
    return out.restored(await _awith_retries(attempts, evolve(call, request=out.request)))


async def _awith_retries(attempts: Attempts, call: ModelCall) -> Completion:
    memo = attempts.memo(call.request)
    known = attempts.known(call.request, memo)
    if known is not None:
        return known

    async def attempt(number: int) -> Completion:
        one = attempts.attempt(call.request, number, memo)
        attempts.check()
        async with one.hold.ataken():
            return await _answer(one)

    return await aretried(attempts, attempt)


async def aretried(attempts: Attempts, attempt: Callable[[int], Awaitable[T]]) -> T:
    """Await *attempt* until it succeeds, its error is final, or none is left."""
    if attempts.target.attempts == 1:
        return await attempt(1)
    answer = await aretry(attempts.policy(), attempt, anyio.sleep)
    assert not isinstance(answer, Raised)
    return answer


async def _answer(one: Attempt) -> Completion:
    if async_method(one.place.target.provider, "complete") is not None:
        return await _InFlight(one).answer()
    started, frame, seconds = time.perf_counter(), innermost(one.place.frame), one.request.timeout + OVERDUE
    scope = Scope(frame.scope.run_id, frame.scope, time.monotonic() + seconds)  # no grace beyond it
    job = None
    try:
        with anyio.move_on_after(seconds):
            job = await in_thread(frame.below(scope), _busy_attempt, (one,), {})
            return job.outcome()  # type: ignore[no-any-return]
    except BaseException:
        if job is None:
            _book_alone(one, seconds)
        raise
    finally:
        scope.leave()
    raise _given_up(one, started)


def _busy_attempt(one: Attempt) -> Completion:
    with here_busy():
        return _attempt(one)


def _overdue(request: Request) -> ProviderError:
    return ProviderError("timeout", f"no whole answer within {request.timeout:g} s", retryable=True)


class _InFlight:
    """One attempt in a task of the engine's own, which books it whatever becomes of the caller."""

    def __init__(self, one: Attempt) -> None:
        self._one = one
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
        scope = self._one.place.frame.scope
        if self._finished or self._one.hold.give_up():
            return
        try:
            if grace := grace_of(scope):
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + grace):
                    await waiter.wait()
        finally:
            if scope.timed_out:  # nobody waits, but what was paid for is still booked
                self._limit.deadline = anyio.current_time() + process.settings.grace
            else:
                self._limit.cancel()
        if scope.timed_out:
            return
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + SETTLE):
            await waiter.wait()  # it is booked and its connection closed before the run has ended

    async def _run(self, done: Callable[[], object]) -> None:
        if not self._one.hold.begin():
            return
        try:
            with process.of(InFlight).during(self._one):
                await self._booked(time.perf_counter())
        finally:
            done()

    async def _booked(self, started: float) -> None:
        """Make the attempt, which is booked also when it is cancelled."""
        try:
            with self._limit:
                await self._attempt(started)
        finally:
            if not self._finished:
                self._error = ProviderError(
                    "cancelled", "the call was cancelled in flight", provider=self._one.place.target.name
                )
                self._one.failed(self._error, time.perf_counter() - started)
                self._finished = True

    async def _attempt(self, started: float) -> None:
        one, target = self._one, self._one.place.target
        try:
            completion = whole(target, await _within_time(target, one.request))
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as exc:  # noqa: BLE001 -- raised again in the caller's task
            self._error = shown(target, exc)
            if self._error is not exc:
                self._error.__cause__ = exc
            one.failed(self._error, time.perf_counter() - started)
        else:
            self._completion = one.answered(completion, time.perf_counter() - started)
            await self._keep(completion)
        self._finished = True

    async def _keep(self, completion: Completion) -> None:
        try:
            await self._one.akeep(completion)
        except (FlowletError, RunStopped) as exc:
            self._error = exc


@cache
def opening() -> ModuleType:
    """What opens plugins, imported with the first one."""
    from . import _opening

    return _opening


async def _within_time(target: Target, request: Request) -> Completion:
    """Await the async provider, at most the request's timeout."""
    method = async_method(target.provider, "complete")
    assert method is not None
    with anyio.move_on_after(request.timeout + OVERDUE):
        if hasattr(target.provider, "open"):
            await opening().aopen_provider(target.name, target.provider)
        return await method(request)  # type: ignore[no-any-return]
    raise _overdue(request)
