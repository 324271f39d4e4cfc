"""Trying again: stamina decides how often and how long, and we do the waiting, so that it can be ended.

The only file that knows stamina.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from attrs import frozen

T = TypeVar("T")

WAIT_INITIAL = 0.5
WAIT_MAX = 30.0
JITTER = 0.25


@frozen(eq=False, repr=False)
class Policy:
    """When to try again.

    *again* answers False for an error that is final, True for one that is worth another try, or
    the seconds that the other side asked to wait. *told* hears of each retry: the number of the
    attempt that failed, the wait in seconds, the error.
    """

    attempts: int
    again: Callable[[Exception], bool | float]
    told: Callable[[int, float, Exception], object]
    initial: float = WAIT_INITIAL


_NAME = "flowlet"
_hooks_lock = threading.Lock()


def _quiet() -> None:
    """Keep stamina's hooks, which log to what the host may have, from our retries: we tell them ourselves.

    The hooks of the process hear of all other retries as before. They are wrapped once, and again only
    after the host has set others. What the host asks of stamina itself, ``set_active(False)`` and
    ``set_testing(True)``, holds for flowlet's retries too.
    """
    from stamina import instrumentation

    if all(isinstance(hook, _OfOthers) for hook in instrumentation.get_on_retry_hooks()):
        return
    with _hooks_lock:
        hooks = instrumentation.get_on_retry_hooks()
        instrumentation.set_on_retry_hooks(
            [hook if isinstance(hook, _OfOthers) else _OfOthers(hook) for hook in hooks]
        )


@frozen(eq=False, repr=False)
class _OfOthers:
    """A hook that hears of the retries of others only."""

    hook: Callable[[Any], Any]

    def __call__(self, details: Any) -> Any:
        """Pass *details* on."""
        return None if details.name == _NAME else self.hook(details)


_OVER = Policy(1, lambda exc: False, lambda attempt, wait, exc: None)


class _Again(Exception):
    """What stamina sees of an error: it decides on the next attempt, and never holds or raises the error itself."""


class Raised:
    """An error as a value. A StopIteration that crosses a coroutine would become a RuntimeError."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Waits:
    """How long to wait before the next attempt: what was asked for, or exponential with a little jitter."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._asked: float | None = None
        self._told = True
        self._backoff = 0.0
        self.error: Exception | None = None

    def again(self, exc: Exception) -> bool:
        """Whether *exc* is worth another attempt, should one be left."""
        answer = self._policy.again(exc)
        if answer is False:
            return False
        _quiet()
        self._asked = None if answer is True else float(answer)
        self._told, self.error = False, exc
        return True

    def before(self, attempt: Any) -> float:
        """Seconds to wait before *attempt*, told to the policy."""
        wait = 0.0
        if not self._told and self.error is not None:
            wait = self._backoff if self._asked is None else self._asked
            self._policy.told(attempt.num - 1, wait, self.error)
            self._told = True
        backoff = attempt.next_wait
        import random

        self._backoff = backoff + backoff * random.uniform(0, JITTER)  # noqa: S311 -- spreads load, no secret
        return wait

    def last(self) -> Exception:
        """The error of the last attempt that was left, let go of."""
        error, self.error = self.error, None
        assert error is not None
        return error

    def forget(self) -> None:
        """Let go of the call: stamina's own cycles are not to keep what it asked and was answered."""
        self._policy, self.error = _OVER, None

    def attempts(self) -> Any:
        import stamina

        contexts: Any = stamina.retry_context(
            on=_at_once,
            attempts=self._policy.attempts,
            timeout=None,
            wait_initial=self._policy.initial,
            wait_max=WAIT_MAX,
            wait_jitter=0,
        )
        return contexts.with_name(_NAME, (), {})


def _at_once(exc: Exception) -> bool | float:
    """Let stamina itself not sleep: a thread in time.sleep() can't be woken."""
    return 0.0 if isinstance(exc, _Again) else False


def retry(policy: Policy, call: Callable[[int], T], pause: Callable[[float], object]) -> T:
    """Call ``call(attempt)`` until it succeeds, its error is final, or the attempts are used up."""
    waits = _Waits(policy)
    error: Exception | None = None
    try:
        for attempt in waits.attempts():
            if wait := waits.before(attempt):
                pause(wait)
            try:
                return call(attempt.num)
            except Exception as exc:
                if not waits.again(exc):
                    raise
            with attempt:
                raise _Again
    except _Again:
        error = waits.last()
    finally:
        waits.forget()
    assert error is not None
    try:
        raise error
    finally:
        del error


async def aretry(
    policy: Policy,
    call: Callable[[int], Awaitable[T | Raised]],
    pause: Callable[[float], Awaitable[object]],
) -> T | Raised:
    """Await ``call(attempt)`` until it succeeds, its error is final, or the attempts are used up."""
    waits = _Waits(policy)
    error: Exception | None = None
    try:
        async for attempt in waits.attempts():
            if wait := waits.before(attempt):
                await pause(wait)
            try:
                result = await call(attempt.num)
            except Exception as exc:
                if not waits.again(exc):
                    raise
            else:
                if not isinstance(result, Raised) or not waits.again(result.error):
                    return result
            with attempt:
                raise _Again
    except _Again:
        error = waits.last()
    finally:
        waits.forget()
    assert error is not None
    if isinstance(error, StopIteration):
        return Raised(error)
    try:
        raise error
    finally:
        del error
