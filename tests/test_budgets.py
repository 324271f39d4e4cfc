"""Budgets under concurrency: passed by one call at most, never stuck, never at the price of a paid answer."""

import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from decimal import Decimal
from typing import Any

import anyio
import pytest
import stamina
from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flowlet
from flowlet import (
    LLM,
    AsyncLLM,
    Budget,
    BudgetExceeded,
    Budgets,
    Completion,
    DefinitionError,
    ProviderError,
    Run,
    RunCancelled,
    TokenUsage,
    apmap,
    configure,
    last_run,
    pmap,
    register_provider,
    run,
    start,
    with_options,
    workflow,
)
from flowlet._engine._attempts import InFlight
from flowlet._engine._budget import Amount, Meter
from flowlet._engine._ledger import ProcessMeter
from flowlet._engine._loops import current_port
from flowlet._engine._threads import Threads
from flowlet.messages import Delta, Request
from flowlet.pricing import Price
from flowlet.settings import process
from flowlet.testing import AsyncMockLLM, MockLLM, MockProvider, recording
from rig import TOKENS, SlowAsync, SlowSync, until

pytestmark = pytest.mark.anyio

LATE = 5.0


def reserved() -> int:
    """How many calls the process's budget holds places for."""
    return process.of(ProcessMeter).now()._reserved.calls


# --- reservations come back ----------------------------------------------------------------------


async def test_a_call_that_never_got_a_thread_gives_its_reservation_back(heard: Any) -> None:
    """A sync provider's call that is cancelled in the queue for threads holds nothing any more, and sends nothing."""
    configure(budget=Budgets(None, Budget(tokens=20_000)), max_threads=1)
    slow = SlowSync()
    register_provider("slow", slow)
    gate = threading.Event()
    busy = start(gate.wait, LATE)
    until(lambda: process.of(Threads)._runnable == 1)
    with anyio.move_on_after(0.05):
        await AsyncLLM("slow:m").ask("?")
    gate.set()
    assert await busy
    assert reserved() == 0
    slow.answer.set()
    with anyio.fail_after(LATE):
        assert await AsyncLLM("slow:m").ask("?") == "late"
    assert flowlet.usage().calls == 1


async def test_a_call_that_never_got_its_task_gives_its_reservation_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call whose loop ended before its first step is not waited for, and holds nothing."""
    configure(budget=Budgets(None, Budget(tokens=20_000)))
    register_provider("slow", SlowAsync())
    with monkeypatch.context() as patch, anyio.fail_after(LATE):
        patch.setattr(type(current_port()), "spawn", lambda port, fn, args, context: None)
        with anyio.move_on_after(0.05):
            await AsyncLLM("slow:m").ask("?")
    assert reserved() == 0
    assert flowlet.usage().calls == 0


# --- a call is booked once -----------------------------------------------------------------------


class Late(SlowSync):
    """A sync provider that answers when its caller has given it up."""

    def complete(self, request: Request) -> Completion:
        self.asked.release()
        assert self.answer.wait(LATE)
        return Completion("late", TOKENS, model=request.model)


async def test_a_provider_that_is_overdue_is_not_waited_for_and_booked_once() -> None:
    """A sync provider that ignores the request's timeout fails half a second after it, however late it answers."""
    slow = SlowSync()
    register_provider("slow", slow)
    with anyio.fail_after(2), pytest.raises(ProviderError, match="no whole answer") as caught:
        threading.Timer(0.9, slow.answer.set).start()
        await AsyncLLM("slow:m", timeout=0.1, attempts=1).ask("?")
    assert (caught.value.kind, caught.value.retryable) == ("timeout", True)
    assert not slow.answer.is_set(), "it was waited for"
    assert await anyio.to_thread.run_sync(slow.answer.wait, LATE)
    await anyio.to_thread.run_sync(until, lambda: not process.of(InFlight).calls)
    used = flowlet.usage()
    assert (used.calls, used.failed, used.unknown) == (1, 1, 1)


# --- what costs nothing --------------------------------------------------------------------------


def test_a_call_is_booked_before_what_it_reserved_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited for that finds it in the usage."""
    booked: list[int] = []
    settle = Meter.settle

    def settled(meter: Meter, hold: Any, spent: Amount) -> None:
        booked.append(flowlet.usage().calls)
        settle(meter, hold, spent)

    monkeypatch.setattr(Meter, "settle", settled)
    configure(budget=Budgets(None, Budget(tokens=20_000)))
    register_provider("mock", MockProvider(["tea"]))
    assert LLM("mock:m").ask("?") == "tea"
    assert booked == [1]


def test_what_is_free_passes_a_budget_of_no_money(tmp_path: Any) -> None:
    """``cost=0`` lets mocks and the offline provider be asked, and nothing whose price is some, or not known."""
    configure(budget=Budgets(None, Budget(cost=0)))
    assert LLM("offline").ask("?")
    assert MockLLM(["tea"]).ask("?") == "tea"
    register_provider("dear", MockProvider(["tea"]))
    configure(prices={"dear:m": Price(1, 1)})
    unpriced = SlowSync()
    register_provider("unpriced", unpriced)
    for model in ("dear:m", "unpriced:m"):
        with pytest.raises(BudgetExceeded, match=r"budget of \$0 per process is used up"):
            LLM(model).ask("?")


def test_free_calls_do_not_wait_for_money() -> None:
    """When the money is gone, what is free is still asked, within the limits of calls and tokens."""
    register_provider("dear", MockProvider(["tea"]))
    configure(prices={"dear:m": Price(10**6, 10**6)}, budget=Budgets(None, Budget(calls=3, cost=1)))
    assert LLM("dear:m").ask("?") == "tea"
    assert [MockLLM(["a"]).ask("?"), MockLLM(["b"]).ask("?")] == ["a", "b"]
    with pytest.raises(BudgetExceeded, match="3 calls"):
        MockLLM(["c"]).ask("?")


def test_replays_need_no_budget_and_cost_nothing_even_failed(tmp_path: Any) -> None:
    """A recorded answer, and a recorded error that told its tokens, are free under any price list and budget."""
    paid = ProviderError("bad_response", "no choices", provider="dear", usage=TOKENS)
    register_provider("dear", MockProvider(["tea", paid]))
    with recording(tmp_path / "talk.json", "all"):
        assert LLM("dear:m").ask("?") == "tea"
        with pytest.raises(ProviderError):
            LLM("dear:m").ask("??")
    process.reset()
    configure(prices={"dear:m": Price(1, 1)}, budget=Budgets(None, Budget(calls=0, tokens=0, cost=0)))
    with recording(tmp_path / "talk.json"):
        assert LLM("dear:m").ask("?") == "tea"
        with pytest.raises(ProviderError):
            run(lambda: LLM("dear:m").ask("??"))
    (record,) = last_run().metrics.calls
    assert (record.usage, record.cost, record.replayed) == (TOKENS, 0, True)
    assert (flowlet.usage().calls, flowlet.usage().cost) == (2, 0)


# --- whatever calls come at once -----------------------------------------------------------------


@frozen
class Plan:
    """One call: what it may use and does, how long it takes (in turns of the loop), what becomes of it.

    A stream is asked for first where *streamed*, and the call is made in its loop.
    """

    prompt: int
    max_tokens: int
    share: float
    turns: int
    failures: int
    cancelled_after: int | None
    streamed: bool

    @property
    def at_most(self) -> int:
        return self.prompt + 16 + self.max_tokens

    @property
    def usage(self) -> TokenUsage:
        answer = int(self.max_tokens * self.share)
        return TokenUsage(self.prompt, answer, self.prompt + answer)


PLANS = st.lists(
    st.builds(
        Plan,
        prompt=st.integers(1, 60),
        max_tokens=st.integers(1, 400),
        share=st.floats(0, 1),
        turns=st.integers(0, 6),
        failures=st.sampled_from([0, 0, 0, 1, 3]),
        cancelled_after=st.none() | st.integers(0, 12),
        streamed=st.booleans(),
    ),
    min_size=1,
    max_size=25,
)
LIMITS = st.builds(
    Budget,
    calls=st.none() | st.integers(0, 12),
    tokens=st.none() | st.integers(0, 3000),
    cost=st.none() | st.integers(0, 3000).map(lambda tokens: Decimal(tokens) / 1_000_000),
)


class Shop:
    """A provider that sells as the plans say, and keeps the accounts: what was paid for is in *sold*."""

    live = False
    name = "shop"

    def __init__(self, plans: list[Plan]) -> None:
        self.plans = plans
        self.sold: list[int] = []
        self.asked = 0
        self.failures = [plan.failures for plan in plans]
        self.lock = threading.Lock()

    def price(self, model: str, usage: TokenUsage) -> Decimal:
        return Decimal(usage.total_tokens) / 1_000_000

    def plan(self, request: Request) -> tuple[int, Plan]:
        index = int(request.messages[0].content[1:].split("x")[0])
        return index, self.plans[index]

    def sell(self, request: Request) -> Completion:
        index, plan = self.plan(request)
        with self.lock:
            self.asked += 1
            if self.failures[index]:
                self.failures[index] -= 1
                raise ProviderError("rate_limit", "later", retryable=True)
            self.sold.append(plan.usage.total_tokens)
        return Completion(f"{index}", plan.usage, model=request.model)

    def last(self, request: Request) -> Delta:
        sold = self.sell(request)
        return Delta(sold.text, sold.usage, "stop")


class AsyncShop(Shop):
    async def acomplete(self, request: Request) -> Completion:
        for _ in range(self.plan(request)[1].turns):
            await anyio.lowlevel.checkpoint()
        return self.sell(request)

    @asynccontextmanager
    async def astream(self, request: Request) -> AsyncIterator[AsyncIterator[Delta]]:
        async with aclosing(self.pieces(request)) as deltas:
            yield deltas

    async def pieces(self, request: Request) -> AsyncGenerator[Delta]:
        yield Delta("first")
        await anyio.lowlevel.checkpoint()
        yield self.last(request)


class SyncShop(Shop):
    @contextmanager
    def stream(self, request: Request) -> Iterator[Iterator[Delta]]:
        yield (piece() for piece in (lambda: Delta("first"), lambda: self.last(request)))

    def complete(self, request: Request) -> Completion:
        time.sleep(self.plan(request)[1].turns / 10_000)
        return self.sell(request)


def order(index: int, plan: Plan) -> str:
    return f"n{index}".ljust(plan.prompt, "x")


def check_books(shop: Shop, limits: Budget, meter: Meter) -> None:
    """The budget was passed by one call at most, and those around it; what was sold is booked; nothing is held."""
    until(lambda: not process.of(InFlight).calls and not meter._holds)  # threads that were left behind
    most = max(plan.at_most for plan in shop.plans)
    tokens, used = sum(shop.sold), flowlet.usage()
    most *= 1 + any(plan.streamed for plan in shop.plans)
    assert used.total_tokens == tokens
    assert limits.calls is None or used.calls <= limits.calls
    assert limits.tokens is None or tokens < limits.tokens + most
    assert limits.cost is None or used.cost < limits.cost + Decimal(most) / 1_000_000
    assert (meter._spent.tokens, meter._reserved) == (tokens, Amount())


async def acall(index: int, plan: Plan) -> str:
    """Call as planned, and say how it ended."""
    llm = AsyncLLM("shop:m", max_tokens=plan.max_tokens, attempts=2)
    try:
        if plan.streamed:
            async with llm.stream(order(index, plan)) as pieces:
                first = await anext(aiter(pieces))
                answer = await llm.ask(order(index, plan))
                assert "".join([first, *[piece async for piece in pieces]]).endswith(str(index))
        else:
            answer = await llm.ask(order(index, plan))
    except (BudgetExceeded, ProviderError):
        return "refused"
    assert answer == str(index)
    return "answered"


def call(index: int, plan: Plan) -> str:
    """Call as planned."""
    llm = LLM("shop:m", max_tokens=plan.max_tokens, attempts=2)
    if not plan.streamed:
        return llm.ask(order(index, plan))
    with llm.stream(order(index, plan)) as pieces:
        first = next(pieces)
        answer = llm.ask(order(index, plan))
        assert "".join([first, *pieces]).endswith(str(index))
    return answer


@pytest.mark.parametrize("shop_of", [AsyncShop, SyncShop])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans=PLANS, limits=LIMITS)
def test_calls_in_tasks_pass_a_budget_by_one_at_most(
    backend: str, shop_of: Any, plans: list[Plan], limits: Budget
) -> None:
    """In tasks that wait, fail, try again and are cancelled, every answer that was sold reaches whoever still waits."""
    process.reset()
    shop = shop_of(plans)
    register_provider("shop", shop)
    configure(budget=Budgets(None, limits))
    ends: dict[int, str] = {}

    async def call(index: int, plan: Plan) -> None:
        ends[index] = await acall(index, plan)

    async def client(index: int, plan: Plan) -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(call, index, plan)
                for _ in range(plan.cancelled_after or 0):
                    await anyio.lowlevel.checkpoint()
                if plan.cancelled_after is not None:
                    scope.cancel()
        if scope.cancelled_caught:
            ends.setdefault(index, "cancelled")

    async def main() -> None:
        with anyio.fail_after(LATE):
            async with anyio.create_task_group() as group:
                for index, plan in enumerate(plans):
                    group.start_soon(client, index, plan)

    with stamina.set_testing(True, attempts=100, cap=True):
        anyio.run(main, backend=backend)
    assert len(ends) == len(plans)
    sales = [1 + plan.streamed for plan in plans]
    assert (
        sum(sales[index] for index, end in ends.items() if end == "answered") <= len(shop.sold) <= sum(sales)
    )
    check_books(shop, limits, process.of(ProcessMeter).now())


@pytest.mark.parametrize("shop_of", [AsyncShop, SyncShop])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans=PLANS, limits=LIMITS, own=LIMITS)
def test_calls_in_threads_pass_a_budget_by_one_at_most(
    backend: str, shop_of: Any, plans: list[Plan], limits: Budget, own: Budget
) -> None:
    """In runs on threads, some with a budget of their own and some cancelled, the same holds."""
    process.reset()
    shop = shop_of(plans)
    register_provider("shop", shop)
    configure(budget=Budgets(None, limits), backend=backend)

    bounded = with_options(workflow(call), budget=own)
    with stamina.set_testing(True, attempts=100, cap=True):
        handles = [start(bounded if i % 3 == 0 else call, i, plan) for i, plan in enumerate(plans)]
        for plan, handle in zip(plans, handles, strict=True):
            if plan.cancelled_after is not None:
                time.sleep(plan.cancelled_after / 20_000)
                handle.cancel()
        outcomes = [outcome(handle) for handle in handles]
    sales = [1 + plan.streamed for plan in plans]
    assert (
        sum(n for n, end in zip(sales, outcomes, strict=True) if end == "answered")
        <= len(shop.sold)
        <= sum(sales)
    )
    for run_, plan in zip(handles[::3], plans[::3], strict=True):
        assert own.tokens is None or run_.metrics.usage.total_tokens <= own.tokens + 2 * plan.at_most
    check_books(shop, limits, process.of(ProcessMeter).now())


def outcome(handle: Run[str]) -> str:
    try:
        assert handle.result(LATE) == handle.result()
    except (BudgetExceeded, ProviderError):
        return "refused"
    except RunCancelled:
        return "cancelled"
    return "answered"


# --- calls within calls --------------------------------------------------------------------------


def test_a_call_within_a_stream_does_not_wait_for_it() -> None:
    """The loop over a stream may ask, though both do not fit at once: the stream can't end before."""
    configure(budget=Budgets(None, Budget(tokens=20_000)))
    llm = MockLLM(lambda request: "one two three")

    def body() -> list[str]:
        with llm.stream("?") as pieces:
            return [llm.ask(piece) for piece in pieces]

    assert len(run(with_options(workflow(body), timeout=LATE))) == 3
    assert reserved() == 0


def test_a_call_within_a_stream_is_refused_when_the_stream_was_the_last() -> None:
    """A stream is a call already, though what it uses is not known yet."""
    llm = MockLLM(lambda request: "one")

    def body() -> str:
        with llm.stream("?") as pieces:
            return llm.ask(next(pieces))

    with pytest.raises(BudgetExceeded, match="budget of 1 call"):
        run(with_options(workflow(body), timeout=LATE, budget=Budget(calls=1)))


async def test_calls_within_an_async_stream_go_one_by_one() -> None:
    """Many at once, too: the first that comes is made, the others wait for it."""
    configure(budget=Budgets(None, Budget(tokens=20_000)))
    llm, at_once = AsyncMockLLM(lambda request: "tea"), list[int]()

    async def count(request: Request) -> str:
        at_once.append(reserved())
        await anyio.lowlevel.checkpoint()
        return "x"

    asked = AsyncMockLLM(count)
    with anyio.fail_after(LATE):
        async with llm.stream("?") as pieces:
            assert await apmap(asked.ask, [str(n) for n in range(5)]) == ["x"] * 5
            assert [piece async for piece in pieces]
    assert at_once == [2] * 5


def test_a_provider_may_ask_another_one() -> None:
    """A call that a provider makes within its own is not held up by it."""

    class Asking:
        live = False

        def complete(self, request: Request) -> Completion:
            return Completion(LLM("mock:m").ask("?"), TOKENS)

    register_provider("mock", MockProvider(["tea"]))
    register_provider("asking", Asking())
    configure(budget=Budgets(None, Budget(tokens=20_000)))
    assert run(with_options(workflow(lambda: LLM("asking:m").ask("?")), timeout=LATE)) == "tea"


def test_a_call_that_waits_for_a_stream_is_let_through_when_that_waits() -> None:
    """Two budgets and two calls that would wait for each other: one within a stream, one beside it."""
    configure(budget=Budgets(None, Budget(tokens=20_000)))
    llm = MockLLM(lambda request: "one two three")
    opened = threading.Event()

    def reads() -> str:
        with llm.stream("?") as pieces:
            opened.set()
            until(lambda: bool(process.of(ProcessMeter).now()._waiting))
            return llm.ask(next(pieces))

    def asks() -> str:
        assert opened.wait(LATE)
        return llm.ask("?")

    def body() -> list[str]:
        return pmap(lambda part: part(), [reads, asks])

    both = with_options(workflow(body), timeout=LATE, budget=Budget(tokens=40_000))
    assert len(run(both)) == 2
    assert reserved() == 0


@pytest.mark.parametrize(
    ("amounts", "told"),
    [
        ({"calls": "x"}, "calls='x' is not a whole number of at least 0"),
        ({"calls": 1.5, "tokens": -1}, "calls=1.5 .* tokens=-1 is not a whole number"),
        ({"cost": "x"}, "cost='x' is not a number of US dollars"),
        ({"cost": -1}, "cost=.*-1.* is not a number of US dollars"),
        ({"cost": float("nan")}, "cost=.*NaN.* is not a number of US dollars"),
    ],
)
def test_impossible_amounts_are_refused(amounts: Any, told: str) -> None:
    """Where the budget is written, each with what is expected."""
    with pytest.raises(DefinitionError, match=f"^Budget: .*{told}"):
        Budget(**amounts)
