"""Trying again: stamina decides how often and how long, and we do the waiting, so that it can be ended.

The only file that knows stamina.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from attrs import frozen

T = TypeVar("T")

WAIT_INITIAL = 0.5
WAIT_MAX = 30.0
JITTER = 0.25


@frozen
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


def _quiet() -> None:
    """Keep stamina's hooks, which log to what the host may have, from our retries: we tell them ourselves.

    The hooks of the process hear of all other retries as before.
    """
    from stamina import instrumentation

    hooks = instrumentation.get_on_retry_hooks()
    if not all(isinstance(hook, _OfOthers) for hook in hooks):
        instrumentation.set_on_retry_hooks(
            [hook if isinstance(hook, _OfOthers) else _OfOthers(hook) for hook in hooks]
        )


@frozen
class _OfOthers:
    """A hook that hears of the retries of others only."""

    hook: Callable[[Any], Any]

    def __call__(self, details: Any) -> Any:
        """Pass *details* on."""
        return None if details.name == _NAME else self.hook(details)


_OVER = Policy(1, lambda exc: False, lambda attempt, wait, exc: None)


class _Waits:
    """How long to wait before the next attempt: what was asked for, or exponential with a little jitter."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._asked: float | None = None
        self._error: Exception | None = None
        self._backoff = 0.0
        self.last: BaseException | None = None

    def decide(self, exc: BaseException) -> bool | float:
        self.last = exc if isinstance(exc, StopIteration | StopAsyncIteration) else None
        if not isinstance(exc, Exception):
            return False
        answer = self._policy.again(exc)
        if answer is False:
            return False
        _quiet()
        self._asked = None if answer is True else float(answer)
        self._error = exc
        return 0.0  # stamina itself is not to sleep: a thread in time.sleep() can't be woken

    def before(self, attempt: Any) -> float:
        """Seconds to wait before *attempt*, told to the policy."""
        wait = 0.0
        if attempt.num > 1 and self._error is not None:
            wait = self._backoff if self._asked is None else self._asked
            self._policy.told(attempt.num - 1, wait, self._error)
            self._error = None
        backoff = attempt.next_wait
        import random

        self._backoff = backoff + backoff * random.uniform(0, JITTER)  # noqa: S311 -- spreads load, no secret
        return wait

    def forget(self) -> None:
        """Let go of the call: stamina's own cycles are not to keep what it asked and was answered."""
        self._policy, self._error = _OVER, None

    def attempts(self) -> Any:
        import stamina

        contexts: Any = stamina.retry_context(
            on=self.decide,
            attempts=self._policy.attempts,
            timeout=None,
            wait_initial=self._policy.initial,
            wait_max=WAIT_MAX,
            wait_jitter=0,
        )
        return contexts.with_name(_NAME, (), {})


def _ended(waits: _Waits) -> BaseException:
    """What ended the loop over the attempts: stamina raises the last error, and a loop takes this one for its end."""
    assert waits.last is not None
    return waits.last


def retry(policy: Policy, call: Callable[[int], T], pause: Callable[[float], object]) -> T:
    """Call ``call(attempt)`` until it succeeds, its error is final, or the attempts are used up."""
    waits = _Waits(policy)
    try:
        for attempt in waits.attempts():
            if wait := waits.before(attempt):
                pause(wait)
            with attempt:
                return call(attempt.num)
    finally:
        waits.forget()
    raise _ended(waits)


async def aretry(
    policy: Policy, call: Callable[[int], Awaitable[T]], pause: Callable[[float], Awaitable[object]]
) -> T:
    """Await ``call(attempt)`` until it succeeds, its error is final, or the attempts are used up."""
    waits = _Waits(policy)
    try:
        async for attempt in waits.attempts():
            if wait := waits.before(attempt):
                await pause(wait)
            with attempt:
                return await call(attempt.num)
    finally:
        waits.forget()
    raise _ended(waits)
