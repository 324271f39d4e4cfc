"""Budgets: a call reserves what it may use, and settles what it did.

A call is let through when it fits beside those in flight, or when none is in flight and something
is left: so a budget is exceeded by one call at most. One that does not fit now waits for those in
flight; when the budget is used up it is refused, before anything is sent. A paid answer is never
dropped. Until its call begins, a reservation is its caller's to give back; then it is the call's.

A call may be made within another one: in the loop over a stream, or by a provider. Those around it
can't end before it does, so nobody waits for them while it waits.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from decimal import Decimal
from typing import Any

from attrs import frozen

from .._scope import Scope
from ..errors import BudgetExceeded
from ..messages import Request
from ..metrics import CallRecord, TokenUsage
from ..specs import Budget
from ._crossing import park
from ._loops import current_port
from ._threads import Latch

_Limits = Sequence[tuple[str, Any]]

LONGEST_ANSWER = 16_384
"""Tokens that an answer without ``max_tokens`` is taken to use at most."""


@frozen
class Amount:
    """Calls, tokens and US dollars. *free* is what is known to cost none, not only of unknown price."""

    calls: int = 0
    tokens: int = 0
    cost: Decimal = Decimal(0)
    free: bool = False

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.calls + other.calls, self.tokens + other.tokens, self.cost + other.cost)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.calls - other.calls, self.tokens - other.tokens, self.cost - other.cost)


def used(record: CallRecord) -> Amount:
    """What a call has used, as far as it is known."""
    if record.replayed:
        return Amount()
    return Amount(1, record.usage.total_tokens, record.cost or Decimal(0))


def at_most(request: Request, price: Callable[[TokenUsage], Decimal | None]) -> Amount:
    """What a call may use: a token is a byte of the prompt at least, the answer is bounded by ``max_tokens``."""
    schema = "" if request.output is None else json.dumps(request.output.schema)
    text = sum(len(m.content.encode("utf-8", "replace")) + 16 for m in request.messages)
    prompt = text + len(schema)
    answer = request.parameters.max_tokens or LONGEST_ANSWER
    cost = price(TokenUsage(prompt, answer, prompt + answer))
    return Amount(1, prompt + answer, cost or Decimal(0), free=cost == 0)


class Meter:
    """What is spent and reserved of one budget. Every change is made under its lock."""

    def __init__(self, budget: Budget, of: str) -> None:
        self.budget = budget
        self.of = of
        self._lock = threading.Lock()
        self._spent = Amount()
        self._reserved = Amount()
        self._holds: set[Hold] = set()
        self._waiting: list[Callable[[], object]] = []

    def reserve(self, hold: Hold, wake: Callable[[], object]) -> bool:
        """Reserve what *hold* may use; False to try again when *wake* was called.

        Raises:
            BudgetExceeded: the budget is used up.
        """
        limits = self._limits(hold.amount)
        with self._lock:
            stuck = all(other.waits_for for other in self._holds)
            gone = Amount(self._reserved.calls) if stuck else Amount()  # calls, whatever they come to use
            self._refuse_when_used_up(self._spent + gone, limits)
            reserved = self._reserved + hold.amount
            if not (stuck or _fits(self._spent + reserved, limits)):
                self._waiting.append(wake)
                return False
            self._holds.add(hold)
            self._reserved = reserved
            return True

    def _limits(self, amount: Amount) -> _Limits:
        """The limits that bound *amount*; one of money does not bound what is free."""
        names = ("calls", "tokens") if amount.free else ("calls", "tokens", "cost")
        return [(name, limit) for name in names if (limit := getattr(self.budget, name)) is not None]

    def _refuse_when_used_up(self, spent: Amount, limits: _Limits) -> None:
        for name, limit in limits:
            so_far = getattr(spent, name)
            if so_far >= limit:
                raise BudgetExceeded(self.of, _said(name, limit), _said(name, so_far))

    def settle(self, hold: Hold, spent: Amount) -> None:
        """Put what was *spent* in the place of what *hold* reserved."""
        with self._lock:
            self._holds.discard(hold)
            self._reserved -= hold.amount
            self._spent += spent
        self.wake()

    def wake(self) -> None:
        """Let those who wait try again."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()


def _fits(amount: Amount, limits: _Limits) -> bool:
    return all(getattr(amount, name) <= limit for name, limit in limits)


def _said(name: str, value: Any) -> str:
    if name == "cost":
        return f"${value}"
    return f"{value} {name.removesuffix('s') if value == 1 else name}"


_within: ContextVar[Hold | None] = ContextVar("flowlet_call", default=None)
"""The innermost call that is under way around this place, where a budget holds it."""


class Hold:
    """The reservations of one call, from the innermost budget to the process's.

    State: where something is held; who has claimed it, the call that began or the caller that gave it up; and
    for which calls within it this one waits.
    """

    def __init__(
        self,
        meters: Sequence[Meter],
        amount: Amount,
        refused: Callable[[BudgetExceeded], object] = lambda exc: None,
    ) -> None:
        self._meters = meters
        self.amount = amount
        self.waits_for: set[Hold] = set()
        self._around = _within.get() if meters else None
        self._refused = refused
        self._held: list[Meter] = []
        self._claim = threading.Lock()

    @contextmanager
    def taken(self, scope: Scope) -> Generator[None]:
        """Reserve everywhere, waiting in this thread, for a call that begins in the block.

        Raises:
            BudgetExceeded: a budget is used up.
            RunStopped: *scope* was stopped.
        """
        try:
            with self._waiting():
                for meter in self._meters:
                    latch = Latch()
                    while not self._reserve(meter, latch.set):
                        park(latch, scope)
                        scope.check()
            yield
        finally:
            self.give_up()

    @asynccontextmanager
    async def ataken(self) -> AsyncGenerator[None]:
        """Reserve everywhere, waiting in this task, for a call that begins in the block.

        Raises:
            BudgetExceeded: a budget is used up.
        """
        try:
            with self._waiting():
                for meter in self._meters:
                    waiter = current_port().waiter()
                    while not self._reserve(meter, waiter.wake):
                        await waiter.wait()
                        waiter = current_port().waiter()
            yield
        finally:
            self.give_up()

    def _reserve(self, meter: Meter, wake: Callable[[], object]) -> bool:
        try:
            held = meter.reserve(self, wake)
        except BudgetExceeded as exc:
            self._refused(exc)
            raise
        if held:
            self._held.append(meter)
        return held

    @contextmanager
    def _waiting(self) -> Generator[None]:
        """Let the calls around this one be known to wait for it, so that others don't wait for them."""
        outer = self._around
        while outer is not None:
            outer.waits_for.add(self)
            for meter in tuple(outer._held):
                meter.wake()
            outer = outer._around
        try:
            yield
        finally:
            outer = self._around
            while outer is not None:
                outer.waits_for.discard(self)
                outer = outer._around

    @contextmanager
    def around(self) -> Generator[None]:
        """Let the calls that are made in the block be known to be within this one."""
        outer = _within.get()
        _within.set(self if self._meters else outer)
        try:
            yield
        finally:
            _within.set(outer)  # no token: a stream may be closed in another context

    def begin(self) -> bool:
        """Claim the reservations for the call; False when its caller has given it up: then it must not be made."""
        return self._claim.acquire(blocking=False)

    def give_up(self) -> bool:
        """Give back what a call has reserved that has not begun, and now never will; whether that was so."""
        given_up = self._claim.acquire(blocking=False)
        if given_up:
            self.settle(Amount())
        return given_up

    def settle(self, spent: Amount) -> None:
        """Settle what was reserved, once."""
        held, self._held = self._held, []
        for meter in held:
            meter.settle(self, spent)
