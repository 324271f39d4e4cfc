"""The attempts of one model call: where they belong, what they may use, how each is booked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeGuard

from attrs import evolve, frozen

from .._raised import describe
from ..context import RunRecord, here, innermost
from ..errors import BudgetExceeded, FlowletError, ProviderError, RunStopped
from ..events import BudgetRefused, ModelCalled, ModelRetried, PIIFound, PluginFailed
from ..messages import Completion, Request
from ..metrics import UNKNOWN, CallRecord, TokenUsage
from ..protocols import LLMProvider, ModelCall
from ..settings import process
from ._budget import Amount, Hold, Meter, at_most, used
from ._ledger import Ledger, ProcessMeter
from ._middleware import functions, wrapping
from ._retry import Policy

if TYPE_CHECKING:
    from ..pii import Guard
    from ._memo import Memo

LONGEST_RETRY_AFTER = 60.0


@frozen
class Target:
    """A provider, its name, and the policy of calls to it."""

    provider: LLMProvider
    name: str
    attempts: int


class InFlight:
    """The attempts that are under way in this process."""

    def __init__(self) -> None:
        self.calls: set[Attempt] = set()

    @contextmanager
    def during(self, attempt: Attempt) -> Generator[None]:
        """Count *attempt* as under way."""
        self.calls.add(attempt)
        try:
            with attempt.hold.around():
                yield
        finally:
            self.calls.discard(attempt)


class Attempts:
    """The place of one model call; each of its attempts is an object of its own, as several may run at once."""

    def __init__(self, target: Target, request: Request) -> None:
        self.target = target
        self.frame = here()
        self.run: RunRecord | None = None if self.frame.outside else self.frame.run
        step = self.frame.step if self.run is not None else None
        self.step = None if step is None else step.name
        self.step_index = None if step is None else self.frame.index
        self.call = ModelCall(target.name, request, self.step, None if self.run is None else self.run.info)
        self.replayed = bool(getattr(target.provider, "replayed", False))

    def check(self) -> None:
        """Go on, or end the body.

        Raises:
            RunStopped: the run is over.
        """
        if not self.frame.outside:
            innermost(self.frame).scope.check()

    def memo(self, request: Request) -> Memo | None:
        """What tells this call from others in the journal of the run; None without one."""
        run = self.run
        if run is None or run.place is None:
            return None
        from ._memo import memo_of_call  # imported with the first run that is journalled

        return memo_of_call(self.frame, run.place.session, self.target.name, request)

    def known(self, request: Request, memo: Memo | None) -> Completion | None:
        """The answer that the journal has, booked as replayed."""
        found = None if memo is None or self.run is None else memo.known(self.run)
        if found is None:
            return None
        answer: Completion = found.value
        return self.attempt(request).answered(evolve(answer, replayed=True), 0.0)

    def attempt(self, request: Request, number: int = 1, memo: Memo | None = None) -> Attempt:
        """Make one attempt of *request*, with the reservations that it needs."""
        meters = [] if self.replayed else list(self._meters())
        amount = at_most(request, partial(_price, self.target, request.model)) if meters else Amount()
        return Attempt(self, request, number, Hold(meters, amount, self._refused), memo)

    def _meters(self) -> Iterator[Meter]:
        run = self.run
        while run is not None:
            if run.meter is not None:
                yield run.meter
            run = run.parent
        whole = process.of(ProcessMeter).now()
        if whole is not None:
            yield whole

    def middleware(self) -> tuple[Callable[..., Any], ...]:
        """What wraps this call, without the guards."""
        wraps = self._wraps()
        return tuple(one for one in wrapping(wraps, ModelCall) if not _is_guard(one)) if wraps else ()

    def guards(self) -> tuple[Guard, ...]:
        """Who looks for personal data in this call, the guard of the settings last."""
        setting, wraps = process.settings.pii, self._wraps()
        own = () if setting is None or setting.action is None else (setting,)
        return (*(one for one in wraps if _is_guard(one)), *own) if wraps else own

    def _wraps(self) -> list[Callable[..., Any]]:
        wraps = process.settings.middleware if self.run is None else self.run.middleware
        return functions(wraps) if wraps else []

    def policy(self) -> Policy:
        return Policy(self.target.attempts, _again, self._told)

    def _told(self, attempt: int, wait: float, exc: Exception) -> None:
        info = self.call.run
        event = ModelRetried(
            info, time.time(), self.step, self.call.request.model, attempt, wait, describe(exc)
        )
        self.tell(event)

    def _refused(self, exc: BudgetExceeded) -> None:
        model = self.call.request.model
        facts = (self.step, model, exc.budget, exc.limit, exc.spent)
        self.tell(BudgetRefused(self.call.run, time.time(), *facts))

    def tell(self, event: ModelCalled | ModelRetried | BudgetRefused | PIIFound) -> None:
        """Tell the observers of this place."""
        process.tell(event, process.observers if self.run is None else self.run.observers)


class Attempt:
    """One attempt of a model call: what it holds, and how it is booked, once, by whoever comes first."""

    def __init__(
        self, place: Attempts, request: Request, number: int, hold: Hold, memo: Memo | None = None
    ) -> None:
        self.place = place
        self.request = request
        self.number = number
        self.hold = hold
        self._memo = memo
        self._cost: Decimal | None = None
        self._unbooked = threading.Semaphore(1)

    def answered(self, completion: Completion, duration: float) -> Completion:
        """Book a good answer."""
        target, model = self.place.target, self.request.model
        replayed = completion.replayed or self.place.replayed
        self._cost = cost = Decimal(0) if replayed else _cost(target, model, completion)
        self._book(
            CallRecord(
                provider=target.name,
                model=completion.model or model,
                usage=completion.usage,
                cost=cost,
                duration=duration,
                at=time.time(),
                finish_reason=completion.finish_reason,
                request_id=completion.request_id,
                replayed=replayed,
            ),
            completion,
        )
        return completion

    def keep(self, completion: Completion) -> None:
        """Write a good answer into the journal of the run, in this thread.

        Raises:
            JournalError: it could not be written.
        """
        memo = self._memo
        if memo is not None and memo.session.fault is None:
            entry = memo.answered(completion, self._cost)
            try:
                memo.session.write(entry)
            except RunStopped:
                memo.session.add_late(entry)

    async def akeep(self, completion: Completion) -> None:
        """Write a good answer into the journal of the run, while the loop goes on.

        Raises:
            JournalError: it could not be written.
        """
        memo = self._memo
        if memo is not None and memo.session.fault is None:
            entry = memo.answered(completion, self._cost)
            try:
                await memo.session.awrite(entry)
            except RunStopped:
                memo.session.add_late(entry)

    def failed(self, exc: BaseException, duration: float, usage: TokenUsage = UNKNOWN) -> None:
        """Book an attempt that brought nothing; what it used, nobody knows unless it was told before."""
        target, model = self.place.target, self.request.model
        if isinstance(exc, ProviderError) and exc.usage is not None:
            usage = exc.usage
        known, sent, replayed = usage.source != "unknown", _sent(exc), self.place.replayed
        priced = known and not replayed
        request_id = exc.request_id if isinstance(exc, ProviderError) else None
        self._book(
            CallRecord(
                provider=target.name,
                model=model,
                usage=usage if known or sent else TokenUsage(),
                cost=_price(target, model, usage) if priced else None if sent and not known else Decimal(0),
                duration=duration,
                at=time.time(),
                ok=False,
                error=describe(exc),
                request_id=request_id,
                replayed=replayed,
            )
        )

    def _book(self, record: CallRecord, completion: Completion | None = None) -> None:
        if not self._unbooked.acquire(blocking=False):  # given up and booked before: this comes too late
            return
        place, run = self.place, self.place.run
        record = evolve(
            record,
            attempt=self.number,
            run_id=None if run is None else run.id,
            workflow=None if run is None else run.workflow,
            step=place.step,
            step_index=place.step_index,
        )
        if run is not None:
            run.book(record)
        process.of(Ledger).add(record)
        self.hold.settle(used(record))  # then: who waited for that finds it booked
        place.tell(ModelCalled(place.call.run, record.at, record, self.request, completion))


def _is_guard(middleware: Callable[..., Any]) -> TypeGuard[Guard]:
    from ..pii import Guard

    return isinstance(middleware, Guard)


def _sent(exc: BaseException) -> bool:
    """Whether the provider may have done (and charged) something before *exc*."""
    if isinstance(exc, ProviderError):
        return exc.kind in ("timeout", "connection", "bad_response", "server", "cancelled", "other")
    return not isinstance(exc, FlowletError)


def _cost(target: Target, model: str, completion: Completion) -> Decimal | None:
    named = completion.model or model
    if f"{target.name}:{model}" in process.settings.prices:
        named = model  # the answer's name is longer (gpt-5-mini-2025-08-07), and in the list
    cost = _price(target, named, completion.usage)
    return cost if cost is not None else _price(target, model, completion.usage)


def _price(target: Target, model: str, usage: TokenUsage) -> Decimal | None:
    from .. import pricing  # imported with the first call, as prices themselves are

    prices = process.settings.prices
    price = getattr(target.provider, "price", None)
    if price is None or f"{target.name}:{model}" in prices:
        return pricing.cost_of(target.name, model, usage, prices)
    try:
        cost = price(model, usage)
        return cost if cost is None or isinstance(cost, Decimal) else Decimal(str(cost))
    except Exception as exc:  # noqa: BLE001 -- a paid answer must not be lost over its price
        process.of(Unpriced).tell(target.name, exc)
        return None


class Unpriced:
    """The providers whose ``price`` failed, each told once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, name: str, exc: Exception) -> None:
        """Tell that *exc* came out of the provider *name*, if it is news."""
        if name not in self._told:
            self._told.add(name)
            process.notice(PluginFailed(None, time.time(), f"price of provider {name}", describe(exc)))


def whole(target: Target, answer: object) -> Completion:
    """Take what a provider returned for an answer.

    Raises:
        ProviderError: it is something else.
    """
    if not isinstance(answer, Completion):
        found = f"{type(answer).__name__}, not a Completion"
    elif not isinstance(answer.usage, TokenUsage):  # pyright: ignore[reportUnnecessaryIsInstance]
        found = f"a Completion whose usage is {type(answer.usage).__name__}, not a TokenUsage"
    else:
        return answer
    _isolation().provider_failed(target.name, f"it returned {found}")
    raise ProviderError("bad_response", f"the provider returned {found}", provider=target.name)


def _again(exc: Exception) -> bool | float:
    if not isinstance(exc, ProviderError) or not exc.retryable:
        return False
    return True if exc.retry_after is None else min(exc.retry_after, LONGEST_RETRY_AFTER)


def shown(target: Target, exc: BaseException) -> BaseException:
    """What callers see of *exc*: facts of ours, never a foreign type out of a provider; that is told as its failure.

    What a mock raises is in a test's script, and comes out as it is.
    """
    if isinstance(exc, FlowletError | AssertionError) or getattr(target.provider, "scripted", False):
        return exc
    if _isolation().is_no_failure(exc):
        return exc
    _isolation().provider_failed(target.name, describe(exc))
    return ProviderError("other", f"the provider raised {describe(exc)}", provider=target.name)


@cache
def _isolation() -> ModuleType:
    """What attributes failures, imported with the first one."""
    from . import _isolation

    return _isolation
