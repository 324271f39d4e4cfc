"""What goes on below something ends with it: child runs, waits, attempts, places, whatever is wrapped around."""

import threading
import time

import anyio
import pytest

from flowlet import (
    LLM,
    AsyncLLM,
    Budget,
    ProviderError,
    Run,
    RunCancelled,
    StepTimeout,
    WorkflowTimeout,
    apmap,
    arun,
    configure,
    get_step,
    pmap,
    register_provider,
    register_step,
    run,
    runs,
    start,
    step,
    with_options,
    workflow,
)
from flowlet._engine._threads import Threads
from flowlet.events import RunFinished
from flowlet.protocols import ModelCall, StepCall
from flowlet.settings import process
from flowlet.testing import MockProvider
from rig import PATIENCE, SlowAsync, SlowSync, Trap, until

GRACE = 4.0
"""Seconds for what is in flight: what takes so long did not hear of its end."""

SOON = 0.2


def took(began: float) -> float:
    return time.monotonic() - began


@step
async def naps() -> None:
    await anyio.sleep(2 * GRACE)


@pytest.fixture(autouse=True)
def graceful(backend: str) -> None:
    configure(backend=backend, grace=GRACE)


# --- child runs --------------------------------------------------------------------------------------


@workflow
def child() -> None:
    run(naps)


@workflow
async def achild() -> None:
    await naps()


STARTS = {
    "plain": lambda begin: step(begin),
    "tried again": lambda begin: step(attempts=2)(begin),
    "limited": lambda begin: step(timeout=PATIENCE)(begin),
    "in a fan-out": lambda begin: lambda: pmap(lambda _: begin(), [1]),
}


@pytest.mark.parametrize("fn", [child, achild])
@pytest.mark.parametrize("by", STARTS.values(), ids=STARTS)
def test_a_child_run_ends_with_its_run_whoever_started_it(trap: Trap, by, fn) -> None:
    """Also when the step that started it has ended, and had a scope of its own."""
    started: list[Run] = []
    begin = by(lambda: started.append(start(fn)))

    def body() -> None:
        begin()
        trap.sleep()

    with pytest.raises(WorkflowTimeout):
        run(with_options(body, timeout=SOON))
    until(lambda: [one.state for one in started] == ["cancelled"])


def test_a_child_run_that_a_step_on_a_thread_started_ends_with_a_cancellation() -> None:
    """The run waits for a model call meanwhile."""
    register_provider("slow", slow := SlowAsync())
    started: list[Run] = []
    begin = step(lambda: started.append(start(achild)))

    @workflow
    async def body() -> None:
        begin()
        await AsyncLLM("slow:m").ask("?")

    handle = start(body)
    slow.wait_asked()
    handle.cancel()
    until(lambda: [one.state for one in started] == ["cancelled"])
    slow.answer.set()
    with pytest.raises(RunCancelled):
        handle.result(PATIENCE)


def test_a_run_lends_its_place_while_its_children_end() -> None:
    """A child that needs a thread for its end gets the one of the run that waits for it."""
    configure(max_threads=1)
    told: list[str] = []

    class Kettle:
        def open(self) -> None:
            told.append("open")

        async def __call__(self) -> None:
            await anyio.sleep(2 * GRACE)

        def close(self) -> None:
            told.append("close")

    register_step("kettle", Kettle)

    @workflow
    async def boils() -> None:
        await get_step("kettle")()

    @workflow
    def parent() -> None:
        start(boils)
        with_options(workflow(lambda: time.sleep(SOON)), timeout=PATIENCE)()
        raise ValueError

    began = time.monotonic()
    with pytest.raises(ValueError):
        start(parent).result(2 * PATIENCE)
    assert took(began) < GRACE
    assert told == ["open", "close"]


# --- middleware --------------------------------------------------------------------------------------


def passes(call: StepCall, next):
    return next(call)


@pytest.mark.anyio
async def test_a_native_cancellation_gets_through_middleware_on_a_thread() -> None:
    """What that called is cancelled at once."""
    began = time.monotonic()
    with anyio.move_on_after(SOON):
        await arun(with_options(achild, middleware=[passes]))
    assert took(began) < GRACE


async def limited(call: StepCall, next):
    with anyio.fail_after(2 * SOON):
        return await next(call)


async def limited_calls(call: ModelCall, next):
    with anyio.fail_after(2 * SOON):
        return await next(call)


@pytest.mark.parametrize("middleware", [limited, limited_calls])
@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}, {"attempts": 2, "retry_on": KeyError}])
def test_an_async_middleware_ends_what_waits_below(options, middleware) -> None:
    """A sync step that waits to ask a model again, on its thread; it asks no more."""
    busy = ProviderError("rate_limit", "later", retryable=True, retry_after=2.0, provider="mock")
    register_provider("mock", provider := MockProvider([busy, "tea"]))
    asks = step(**options)(lambda: LLM("mock:m").ask("?"))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        run(with_options(workflow(lambda: asks()), middleware=[middleware]))
    assert took(began) < 1.5
    assert len(provider.requests) == 1


def test_an_async_middleware_ends_the_wait_for_a_place(trap: Trap) -> None:
    """That of a step which few may do at once."""
    alone = step(max_concurrency=1)(lambda wait: wait())
    held = start(alone, trap.sleep)
    trap.wait_entered()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        run(with_options(workflow(lambda: alone(lambda: None)), middleware=[limited]))
    assert took(began) < GRACE
    trap.open.set()
    held.result(PATIENCE)


@pytest.mark.anyio
async def test_a_call_of_a_plugin_on_another_loop_is_cancelled_at_once() -> None:
    """One that lives as long as the process, called from the user's own loop."""

    class Kettle:
        lifetime = "process"

        async def open(self) -> None: ...

        async def __call__(self) -> None:
            await anyio.sleep(2 * GRACE)

        async def close(self) -> None: ...

    register_step("kettle", Kettle)

    @workflow
    async def boils() -> None:
        await get_step("kettle")()

    began = time.monotonic()
    with anyio.move_on_after(SOON):
        await arun(boils)
    assert took(began) < GRACE


# --- time --------------------------------------------------------------------------------------------


async def one_fails() -> None:
    async def one(i: int) -> None:
        if i:
            await AsyncLLM("slow:m").ask("?")
        else:
            await anyio.sleep(SOON)
            raise ValueError

    await apmap(one, [0, 1])


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [workflow, step])
async def test_a_deadline_that_comes_amidst_a_grace_ends_it(kind) -> None:
    """A model call in flight is waited for until then; what it brings is still booked."""
    register_provider("slow", slow := SlowAsync())
    began = time.monotonic()
    with pytest.raises((WorkflowTimeout, StepTimeout)):
        await arun(with_options(kind(one_fails), timeout=2 * SOON))
    assert took(began) < 2 * SOON + 0.5
    slow.answer.set()
    with anyio.fail_after(PATIENCE):
        while not runs()[0].metrics.usage.total_tokens:
            await anyio.sleep(0.01)


def test_a_deadline_after_a_cancellation_gives_the_place_back() -> None:
    """The thread is left behind then, as without the cancellation."""
    configure(max_threads=1)
    register_provider("slow", slow := SlowSync())
    slow.keeps_time = True
    handle = start(with_options(workflow(lambda: LLM("slow:m").ask("?")), timeout=2 * SOON))
    slow.wait_asked()
    handle.cancel()
    with pytest.raises((WorkflowTimeout, RunCancelled)):
        handle.result(PATIENCE)
    began = time.monotonic()
    assert run(with_options(lambda: 1, timeout=PATIENCE)) == 1
    assert took(began) < 1.0
    slow.answer.set()


def test_a_stop_that_is_told_before_it_comes_wakes_all_the_same(background: str) -> None:
    """Observers hear of the end of a run before what is below it is stopped; a step's time may be over meanwhile."""
    busy = ProviderError("rate_limit", "later", retryable=True, retry_after=2 * GRACE, provider="mock")
    register_provider("mock", MockProvider([busy, "tea"]))
    configure(observers=[lambda event: time.sleep(2 * SOON) if isinstance(event, RunFinished) else None])
    asks = step(timeout=1.5 * SOON)(lambda: LLM("mock:m").ask("?"))
    with pytest.raises((WorkflowTimeout, StepTimeout)):
        run(with_options(workflow(lambda: asks()), timeout=SOON))
    until(lambda: (process.of(Threads)._runnable, process.of(Threads).abandoned) == (0, 0), GRACE / 2)


# --- reservations and flights ------------------------------------------------------------------------


@pytest.mark.parametrize("colour", ["def", "async def"])
def test_an_attempt_that_nobody_waits_for_is_given_up_in_its_time(colour: str) -> None:
    """It holds its part of the budget until then, and no longer."""
    register_provider("slow", slow := SlowSync())
    llm = {"timeout": 3 * SOON, "attempts": 1}
    asks = step(timeout=2 * SOON)(lambda: LLM("slow:m", **llm).ask("?"))

    def again() -> str:
        slow.answer.set()
        return LLM("slow:m", **llm).ask("?")

    def body() -> str:
        with pytest.raises(StepTimeout):
            asks()
        return step(again)()

    async def abody() -> str:
        return body()

    began = time.monotonic()
    slow.complete = _first_hangs(slow, threading.Event())
    handle = start(with_options(workflow({"def": body, "async def": abody}[colour]), budget=Budget(calls=1)))
    with pytest.raises(Exception, match="budget of 1 call"):
        handle.result(PATIENCE)
    assert took(began) < 3.0
    assert [record.ok for record in handle.metrics.calls] == [False]


def _first_hangs(slow: SlowSync, never: threading.Event):
    def complete(request):
        never.wait(PATIENCE)
        return SlowSync.complete(slow, request)

    return complete


def test_a_wait_for_another_call_that_was_given_up_counts_no_more() -> None:
    """Of equal calls at once one is made, also after one of them has waited for the other for a while."""
    made: list[str] = []

    @step(cache=lambda x: x)
    async def one(x: int) -> int:
        made.append("one")
        with anyio.move_on_after(SOON):
            await other(x)
        await anyio.sleep(5 * SOON)
        return 1

    @step(cache=lambda x: x)
    async def other(x: int) -> int:
        made.append("other")
        await anyio.sleep(5 * SOON)
        return await one(x)

    async def call(i: int) -> None:
        await anyio.sleep(i * SOON / 2)
        await (one if i else other)(1)

    @workflow
    async def both() -> None:
        await apmap(call, [0, 1])

    run(both)
    assert made == ["other", "one"]
