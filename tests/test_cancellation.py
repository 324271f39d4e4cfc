"""Cancellation: it arrives wherever a run is, lets paid answers in, closes what was opened, and is never lost."""

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from types import FrameType

import anyio
import pytest
import trio

from flowlet import (
    LLM,
    AsyncLLM,
    FlowletError,
    ProviderError,
    Run,
    RunCancelled,
    WorkflowTimeout,
    apmap,
    arun,
    configure,
    pmap,
    recorded,
    register_provider,
    run,
    runs,
    start,
    step,
    usage,
    with_options,
    workflow,
)
from flowlet._engine._handle import record_of
from flowlet._engine._runs import Recent
from flowlet._engine._threads import Threads
from flowlet._scope import Scope
from flowlet.context import current
from flowlet.events import ModelCalled, RunFinished, RunStarted, StepRetried
from flowlet.journals import MemoryJournal
from flowlet.settings import process
from flowlet.testing import AsyncMockProvider, MockProvider, SyncMockProvider
from rig import PATIENCE, TOKENS, CancelAt, Heard, SlowAsync, SlowSync, Trap, adouble, double, until

PROVIDERS = pytest.mark.parametrize("provider", [SlowSync, SlowAsync])
COLOURS = pytest.mark.parametrize("colour", ["def", "async def"])


@workflow
async def achild(x: int) -> int:
    return double(await adouble(x))


@workflow
def child(x: int) -> int:
    return double(x)


@step
async def waits() -> None:
    await anyio.sleep(3600)


def cancelled(handle: Run) -> RunCancelled:
    """Wait until *handle* is over, as cancelled."""
    with pytest.raises(RunCancelled) as caught:
        handle.result(PATIENCE)
    assert handle.state == "cancelled"
    return caught.value


class Doors:
    """Counts what is open."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0

    @asynccontextmanager
    async def door(self) -> AsyncGenerator[None]:
        self.opened += 1
        try:
            yield
        finally:
            self.closed += 1

    def assert_closed(self) -> None:
        assert self.opened == self.closed


# --- at every step of every task ---------------------------------------------------------------------


async def everything(doors: Doors) -> str:
    """A body with all that a body may do."""
    async with doors.door():
        await adouble(double(1))
        await arun(double, 3)
        child(await achild(4))
        async with doors.door():
            pmap(double, [1, 2])
            await apmap(adouble, [1, 2, 3], max_concurrency=2)
        await AsyncLLM("mock:m").ask("hello")
        LLM("mock:m").ask("hello")
        await start(achild, 6)
    return "done"


def check_aftermath(doors: Doors, mock: MockProvider) -> None:
    """Check that all is closed, stopped and booked."""
    doors.assert_closed()
    (handle, *_) = runs()
    assert handle.state in ("completed", "cancelled")
    metrics = handle.metrics
    assert {s.state for s in metrics.steps} <= {"completed", "cancelled"}
    assert {c.state for c in metrics.children} <= {"completed", "cancelled"}
    assert metrics.usage.calls == len(mock.requests)
    assert metrics.usage.failed == 0
    until(lambda: process.of(Threads)._runnable == 0)


STOPS = 200
"""More steps than the body has; the loop over them ends when one run was not reached any more."""


@pytest.mark.anyio
@pytest.mark.parametrize("provider", [SyncMockProvider, AsyncMockProvider, MockProvider])
async def test_a_cancel_scope_ends_a_run_at_every_step(provider):
    """At whichever task step a cancel scope around arun() is cancelled, all is closed and nothing is lost."""
    for at in range(STOPS):
        mock, doors = provider(), Doors()
        register_provider("mock", mock)
        result = None
        with anyio.CancelScope() as scope:
            cancel_at = CancelAt(at, scope.cancel)
            with cancel_at.counting():
                result = await arun(everything, doors)
                reached = cancel_at.acted
            if reached:
                await anyio.lowlevel.checkpoint()
                pytest.fail(f"cancelled at step {at}, and went on")
        check_aftermath(doors, mock)
        if result == "done" and not cancel_at.acted:
            return
    pytest.fail("more steps than thought")


def test_a_native_task_cancel_ends_a_run_at_every_step():
    """At whichever task step asyncio cancels the task of a run, all is closed and nothing is lost."""

    async def at_step(at: int, doors: Doors) -> bool:
        async def main() -> bool:
            await arun(everything, doors)
            reached = cancel_at.acted
            await asyncio.sleep(0)
            return reached

        cancel_at = CancelAt(at, lambda: task.cancel())
        with cancel_at.counting():
            task = asyncio.ensure_future(main())
            try:
                assert not await task, f"cancelled at step {at}, and went on"
            except asyncio.CancelledError:
                assert task.cancelled()
        return cancel_at.acted

    for at in range(STOPS):
        mock, doors = MockProvider(), Doors()
        register_provider("mock", mock)
        more = asyncio.run(at_step(at, doors))
        check_aftermath(doors, mock)
        if not more:
            return
    pytest.fail("more steps than thought")


@pytest.mark.anyio
async def test_a_handle_cancels_a_run_at_every_step():
    """At whichever task step a run is cancelled through its handle, it ends as cancelled or was done."""
    for at in range(STOPS):
        mock, doors = MockProvider(), Doors()
        register_provider("mock", mock)
        cancel_at = CancelAt(at, lambda: runs()[0].cancel())
        with cancel_at.counting():
            try:
                assert await arun(everything, doors) == "done"
            except RunCancelled as exc:
                assert exc.run_id == runs()[0].id  # noqa: PT017 -- it may end well, too
        check_aftermath(doors, mock)
        if not cancel_at.acted:
            return
    pytest.fail("more steps than thought")


# --- by time ---------------------------------------------------------------------------------------


@COLOURS
def test_a_run_that_was_cancelled_before_its_start_does_nothing(colour, trap, backend, heard):
    """A pending run that is cancelled never enters its body, and no start of it is told."""
    configure(max_threads=1, backend=backend)
    entered: list[int] = []

    def body() -> None:
        entered.append(1)

    async def abody() -> None:
        entered.append(1)

    async def blocker() -> None:
        trap.sleep()

    start(trap.sleep if colour == "def" else blocker)
    trap.wait_entered()
    handle = start(body if colour == "def" else abody)
    assert handle.cancel()
    cancelled(handle)
    trap.open.set()
    heard.wait(RunFinished, 2)
    assert entered == []
    assert len(heard.of(RunStarted)) == 1


@pytest.mark.parametrize("timeout", [PATIENCE, 0.05])
def test_a_queued_run_that_ends_wakes_the_thread_that_waits_for_it(timeout, trap):
    """Cancelled or late before a worker thread is free: ``run`` returns without one."""
    configure(max_threads=1)
    start(trap.sleep)
    trap.wait_entered()
    raised: list[BaseException] = []

    def waits_for_it() -> None:
        with pytest.raises((RunCancelled, WorkflowTimeout)) as caught:
            run(with_options(queued, timeout=timeout))
        raised.append(caught.value)

    def queued() -> None:
        raise AssertionError("it never begins")

    thread = threading.Thread(target=waits_for_it)
    thread.start()
    until(lambda: any(handle.workflow.endswith("queued") for handle in runs()))
    if timeout == PATIENCE:
        assert next(handle for handle in runs() if handle.workflow.endswith("queued")).cancel()
    thread.join(2)
    assert [type(error) for error in raised] == [RunCancelled if timeout == PATIENCE else WorkflowTimeout]


@COLOURS
def test_cancelling_twice_is_cancelling_once(colour, trap, backend):
    """A second cancel() changes nothing."""
    handle = start(trap.sleep if colour == "def" else waits)
    handle.cancel()
    handle.cancel()
    cancelled(handle)
    assert not handle.cancel()


def test_cancelling_after_the_end_changes_nothing(backend):
    """cancel() of a run that is over answers False, and its result stays."""
    configure(backend=backend)
    for fn in (double, adouble):
        handle = start(fn, 21)
        assert handle.result(PATIENCE) == 42
        assert not handle.cancel()
        assert (handle.state, handle.result()) == ("completed", 42)


@pytest.mark.parametrize("spelling", ["def", "async def"])
def test_a_retry_wait_of_a_step_wakes(spelling, backend, heard):
    """A run that waits before the next attempt of a step is cancelled at once."""
    configure(backend=backend)

    @step(attempts=3)
    def fails() -> None:
        raise OSError("no")

    @step(attempts=3)
    async def afails() -> None:
        raise OSError("no")

    handle = start(fails if spelling == "def" else afails)
    heard.wait(StepRetried)
    began = time.monotonic()
    handle.cancel()
    cancelled(handle)
    assert time.monotonic() - began < 0.25


@COLOURS
def test_a_retry_wait_of_a_model_call_wakes(colour, backend):
    """A run that waits before the next attempt of a model call is cancelled at once, and asks no more."""
    configure(backend=backend)
    refused = threading.Event()

    class Busy:
        live = False
        name = "busy"
        asked = 0

        def complete(self, request):
            self.asked += 1
            refused.set()
            raise ProviderError("rate_limit", "later", retryable=True, retry_after=30)

    busy = Busy()
    register_provider("busy", busy)
    handle = start(_asker(colour, "busy"))
    assert refused.wait(PATIENCE)
    time.sleep(0.02)
    began = time.monotonic()
    handle.cancel()
    cancelled(handle)
    assert time.monotonic() - began < 0.25
    assert busy.asked == 1


def _asker(colour: str, provider: str) -> Callable[[], object]:
    @step
    def ask() -> str:
        return LLM(f"{provider}:m").ask("hello")

    @step
    async def aask() -> str:
        return await AsyncLLM(f"{provider}:m").ask("hello")

    def body() -> str:
        return ask()

    async def abody() -> str:
        return await aask()

    return body if colour == "def" else abody


# --- from elsewhere --------------------------------------------------------------------------------


def test_a_sync_run_is_cancelled_from_another_thread(backend):
    """flowlet.runs() finds a run() of another thread, whose caller then gets RunCancelled."""
    configure(backend=backend)
    caught: list[BaseException] = []

    def caller(body) -> None:
        try:
            run(body)
        except BaseException as exc:
            caught.append(exc)

    for body in (lambda: [run(waits)], waits.__wrapped__):
        thread = threading.Thread(target=caller, args=(body,))
        thread.start()
        until(lambda: bool(runs()) and runs()[0].state == "running")
        assert runs()[0].cancel()
        thread.join(PATIENCE)
    assert [type(exc) for exc in caught] == [RunCancelled] * 2


def test_a_plain_body_ends_at_its_next_step(trap):
    """A plain body that is cancelled closes what it opened, and is then reported as cancelled."""
    closed: list[str] = []

    def body() -> None:
        try:
            while True:
                double(1)
                trap.open.wait(0.001)
        finally:
            closed.append(runs()[0].state)

    handle = start(body)
    until(lambda: len(handle.metrics.steps) > 3)
    handle.cancel()
    cancelled(handle)
    assert closed == ["running"]
    assert process.of(Threads).abandoned == 0


@pytest.mark.anyio
async def test_a_scope_around_a_plain_step_ends_the_wait(trap):
    """A cancel scope in an async body around s(x) leaves the thread behind; the body goes on."""

    async def body() -> str:
        with anyio.move_on_after(0.02) as scope:
            step(trap.sleep.__func__)(trap)
        assert scope.cancelled_caught
        assert double(1) == 2
        return "went on"

    assert await arun(body) == "went on"


@pytest.mark.anyio
async def test_a_cancellation_is_not_lost_in_a_thread(trap):
    """When a thread returns into a scope that was cancelled meanwhile, the cancellation arrives."""

    async def body() -> None:
        with anyio.CancelScope() as scope:

            @step
            def cancels() -> None:
                loop_call(scope.cancel)

            cancels()
            await anyio.lowlevel.checkpoint()
            pytest.fail("the cancellation was lost")

    from flowlet._engine._loops import current_port

    loop_call = current_port().call
    await arun(body)


@pytest.mark.anyio
async def test_a_shielded_step_returns_into_its_cancelled_scope(trap):
    """A step behind a shield ends in peace; the next await outside of the shield is cancelled."""

    async def body() -> None:
        with anyio.CancelScope() as scope:
            with anyio.CancelScope(shield=True):
                scope.cancel()
                assert double(21) == 42
            await adouble(1)
            pytest.fail("the cancellation was lost")

    await arun(body)


@pytest.mark.anyio
async def test_who_waits_for_a_handle_does_not_own_its_run(trap):
    """A cancelled wait for a handle leaves the run alone, plain and async."""
    release = threading.Event()

    async def body() -> str:
        while not release.is_set():
            await anyio.sleep(0.001)
        return "done"

    handle = start(body)
    until(lambda: handle.state == "running")
    with anyio.move_on_after(0.02) as scope:
        await handle
    assert scope.cancelled_caught
    assert handle.state == "running"
    release.set()
    assert await handle == "done"


def test_native_wait_for_ends_a_run():
    """asyncio.wait_for() around arun() times out, and the run is cancelled."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(arun(waits), 0.02)

    asyncio.run(main())
    assert runs()[0].state == "cancelled"


def test_a_native_task_group_cancels_its_runs(trap):
    """A failing sibling in an asyncio.TaskGroup cancels a run, a plain one too."""

    async def fails() -> None:
        await asyncio.sleep(0.02)
        raise LookupError("sibling")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(arun(waits))
            group.create_task(arun(trap.sleep))
            group.create_task(fails())

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    assert [type(exc) for exc in caught.value.exceptions] == [LookupError]
    assert {handle.state for handle in runs()} == {"cancelled"}


def test_a_trio_nursery_in_a_body_is_cancelled_with_its_run():
    """The group of cancellations that it raises is one: the run is cancelled, in its journal too."""
    journal = MemoryJournal()

    @workflow(journal=journal)
    async def in_nursery() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits)
            nursery.start_soon(waits)

    async def main() -> None:
        with trio.move_on_after(0.02) as scope:
            await arun(in_nursery)
        assert scope.cancelled_caught

    trio.run(main)
    (handle,) = runs()
    assert handle.state == "cancelled"
    assert recorded(handle.id, journal).run.state == "cancelled"


@pytest.mark.anyio
async def test_a_run_whose_tasks_were_all_stopped_tells_that_it_was_cancelled():
    """What reaches the caller is RunCancelled, not the group of what stopped the tasks."""

    async def closes() -> None:
        try:
            await waits()
        finally:
            with anyio.CancelScope(shield=True):
                await arun(double, 1)

    async def body() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(closes)
            group.start_soon(closes)

    async def cancels() -> None:
        await anyio.sleep(0.02)
        runs()[0].cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(cancels)
        with pytest.raises(RunCancelled):
            await arun(body)


# --- amidst the engine -------------------------------------------------------------------------------


class CtrlC:
    """Strikes at the n-th call that code of the package makes, or that it returns from, in this thread."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.struck = False

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_return") and frame.f_globals.get("__name__", "").startswith("flowlet."):
            self.left -= 1
            if self.left < 0:
                self.struck = True
                sys.setprofile(None)
                raise KeyboardInterrupt

    def strikes(self, call: Callable[[], object]) -> None:
        sys.setprofile(self)
        try:
            call()
        finally:
            sys.setprofile(None)


def test_ctrl_c_at_any_point_leaves_no_run_behind():
    """No run goes on, and the thread is in none, wherever in the engine it strikes."""
    run(child, 1)  # now everything is loaded
    for at in range(2000):
        ctrl_c = CtrlC(at)
        with suppress(KeyboardInterrupt):
            ctrl_c.strikes(lambda: run(child, 1))
        assert current.get() is None
        assert "running" not in {handle.state for handle in runs()}
        if not ctrl_c.struck:
            return
    pytest.fail("it never ended")


def test_a_ctrl_c_while_a_run_is_fenced_off_leaves_no_end_untold(monkeypatch):
    """Whoever waits for the end of the run hears of it."""
    told: list[str] = []
    fence = Scope.fence

    def interrupted(scope: Scope, reason: str) -> None:
        monkeypatch.setattr(Scope, "fence", fence)
        raise KeyboardInterrupt

    @workflow
    def bad() -> None:
        record = record_of(runs()[0])
        record.on_end(lambda: told.append(record.state))
        monkeypatch.setattr(Scope, "fence", interrupted)
        raise ValueError

    with pytest.raises(KeyboardInterrupt):
        run(bad)
    assert len(told) == 1


@pytest.mark.anyio
@COLOURS
async def test_a_run_that_can_not_begin_is_over(colour, monkeypatch):
    """It has failed, and its task is in no run, when there is no thread for the clock of its deadline."""

    def refuses(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched, pytest.raises(FlowletError, match="refuses another thread"):
        patched.setattr(threading.Thread, "start", refuses)
        await arun(with_options({"def": child, "async def": achild}[colour], timeout=5), 1)
    assert runs()[0].state == "failed"
    assert current.get() is None


@pytest.mark.anyio
async def test_a_coroutine_that_is_closed_ends_its_run():
    """The run and what it started are cancelled, and nothing is awaited, while the loop goes on."""

    async def body() -> None:
        start(waits)
        await anyio.sleep(0)

    coroutine = arun(body)
    coroutine.send(None)
    await anyio.sleep(0.02)
    coroutine.close()
    assert runs()[0].state == "cancelled"
    await anyio.sleep(0.02)
    assert [child.state for child in runs()[0].metrics.children] == ["cancelled"]
    assert current.get() is None


def test_a_coroutine_that_is_closed_after_its_loop_ends_its_run():
    """The run and what it started are cancelled at once."""

    async def body() -> None:
        start(waits)
        await anyio.sleep(3600)

    async def main() -> asyncio.Task[None]:
        task = asyncio.ensure_future(arun(body))
        await asyncio.sleep(0.02)
        return task

    loop = asyncio.new_event_loop()
    coroutine = loop.run_until_complete(main()).get_coro()
    loop.close()
    coroutine.close()
    (handle,) = runs()
    assert handle.state == "cancelled"
    assert [child.state for child in handle.metrics.children] == ["cancelled"]


# --- model calls in flight ---------------------------------------------------------------------------


@PROVIDERS
@COLOURS
def test_a_model_call_in_flight_may_finish(provider, colour, backend):
    """A cancelled run waits for the answer within the grace, and books it."""
    slow = provider()
    register_provider("slow", slow)
    configure(backend=backend)
    handle = start(_asker(colour, "slow"))
    slow.wait_asked()
    handle.cancel()
    time.sleep(0.1)
    assert handle.state == "running"
    slow.answer.set()
    error = cancelled(handle)
    assert error.metrics is not None
    assert error.metrics.usage.total_tokens == TOKENS.total_tokens == usage().total_tokens
    assert error.metrics.usage.failed == 0


@PROVIDERS
@COLOURS
def test_without_grace_a_model_call_is_cut(provider, colour, backend, heard):
    """With grace=0 the run ends at once, and the call is booked all the same."""
    slow = provider()
    register_provider("slow", slow)
    configure(backend=backend, grace=0)
    handle = start(_asker(colour, "slow"))
    slow.wait_asked()
    began = time.monotonic()
    handle.cancel()
    cancelled(handle)
    assert time.monotonic() - began < 0.25
    if provider is SlowSync:
        slow.answer.set()
    (told,) = heard.wait(ModelCalled)
    assert told.record.ok is (provider is SlowSync)
    assert handle.metrics.usage.calls == 1


@PROVIDERS
@COLOURS
def test_the_grace_has_an_end(provider, colour, backend):
    """A model call that outlives the grace is left behind."""
    slow = provider()
    register_provider("slow", slow)
    configure(backend=backend, grace=0.1)
    handle = start(_asker(colour, "slow"))
    slow.wait_asked()
    began = time.monotonic()
    handle.cancel()
    cancelled(handle)
    assert 0.1 <= time.monotonic() - began < 0.1 + 0.25
    slow.answer.set()


@PROVIDERS
@COLOURS
@pytest.mark.anyio
async def test_native_cancellation_lets_a_model_call_finish(provider, colour):
    """A cancel scope around arun() waits for the answer within the grace, and books it."""
    slow = provider()
    register_provider("slow", slow)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(arun, _asker(colour, "slow"))
            await anyio.to_thread.run_sync(slow.wait_asked)
            threading.Timer(0.05, slow.answer.set).start()
            scope.cancel()
    assert runs()[0].state == "cancelled"
    assert runs()[0].metrics.usage.total_tokens == TOKENS.total_tokens
    assert usage().failed == 0


def test_asyncio_cancellation_lets_a_model_call_finish():
    """task.cancel() waits for the answer within the grace, and books it."""
    slow = SlowAsync()
    register_provider("slow", slow)

    async def main() -> None:
        task = asyncio.ensure_future(arun(_asker("async def", "slow")))
        await asyncio.to_thread(slow.wait_asked)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()
        slow.answer.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert runs()[0].metrics.usage.total_tokens == TOKENS.total_tokens


def test_no_model_call_begins_after_a_cancellation(backend, heard):
    """A body that swallows its cancellation can't spend any more."""
    configure(backend=backend)
    mock = MockProvider()
    register_provider("mock", mock)
    tried = threading.Event()

    async def body() -> None:
        try:
            await waits()
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await AsyncLLM("mock:m").ask("one more")
                finally:
                    tried.set()

    handle = start(body)
    until(lambda: len(handle.metrics.steps) == 1)
    handle.cancel()
    cancelled(handle)
    assert tried.is_set()
    assert mock.requests == ()


# --- what hangs on a run -----------------------------------------------------------------------------


@COLOURS
def test_children_are_cancelled_with_their_parent(colour, trap, backend):
    """Started and called child runs end with the run."""
    configure(backend=backend)

    @workflow
    async def stuck() -> None:
        await waits()

    async def abody() -> None:
        start(stuck)
        start(trap.sleep)
        await stuck()

    def body() -> None:
        start(stuck)
        start(trap.sleep)
        run(stuck)

    handle = start(body if colour == "def" else abody)
    until(lambda: sum(c.state == "running" for c in handle.metrics.children) == 3)
    handle.cancel()
    error = cancelled(handle)
    assert [c.state for c in handle.metrics.children] == ["cancelled"] * 3
    assert error.metrics is not None
    until(lambda: process.of(Threads)._runnable == 0)


@COLOURS
def test_the_siblings_in_a_fan_out_are_cancelled(colour, trap, backend):
    """The first failure in pmap ends the others, and is raised as it is."""
    configure(backend=backend)
    begun: list[int] = []
    stuck: list[str] = []

    @step
    async def one(x: int) -> None:
        while x == 2:
            await anyio.sleep(0.001)
            if len(begun) == 2:
                raise LookupError(x)
        begun.append(x)
        try:
            await anyio.sleep(3600)
        finally:
            stuck.append("closed")

    def body() -> None:
        pmap(one, range(3))

    async def abody() -> None:
        await apmap(one, range(3))

    handle = start(body if colour == "def" else abody)
    with pytest.raises(LookupError):
        handle.result(PATIENCE)
    assert stuck == ["closed", "closed"]
    assert sorted(s.state for s in handle.metrics.steps) == ["cancelled", "cancelled", "failed"]


@COLOURS
def test_a_fan_out_is_cancelled_with_its_run(colour, trap, backend):
    """Cancelling a run ends its pmap on threads and in tasks as a plain RunCancelled."""
    configure(backend=backend)
    stuck = step(trap.sleep.__func__)

    def body() -> None:
        pmap(stuck, [trap] * 3)

    async def abody() -> None:
        pmap(stuck, [trap] * 3)

    handle = start(body if colour == "def" else abody)
    trap.wait_entered(3)
    handle.cancel()
    cancelled(handle)
    assert [s.state for s in handle.metrics.steps] == ["cancelled"] * 3


def test_a_cancelled_run_keeps_its_figures(backend):
    """The metrics of a cancelled run have its finished steps and the one that was cancelled."""

    async def body() -> None:
        double(await adouble(1))
        await waits()

    configure(backend=backend)
    handle = start(body)
    until(lambda: len(handle.metrics.steps) == 3)
    handle.cancel()
    cancelled(handle)
    assert [s.state for s in handle.metrics.steps] == ["completed", "completed", "cancelled"]
    assert handle.metrics.state == "cancelled"


def test_a_cancelled_body_can_close_what_it_opened(backend):
    """A finally and an async with may still await, behind a shield, when a run is cancelled."""
    doors = Doors()
    flushed: list[int] = []

    async def body() -> None:
        async with doors.door():
            try:
                await waits()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.01)
                    flushed.append(1)

    configure(backend=backend)
    handle = start(body)
    until(lambda: len(handle.metrics.steps) == 1)
    handle.cancel()
    cancelled(handle)
    doors.assert_closed()
    assert (doors.opened, flushed) == (1, [1])


def test_a_body_that_catches_exceptions_does_not_stop_a_cancellation(backend):
    """An except Exception in a body catches neither RunStopped nor a cancellation."""

    async def body() -> str:
        while True:
            try:
                await adouble(1)
            except Exception:
                return "kept alive"

    configure(backend=backend)
    handle = start(body)
    until(lambda: len(handle.metrics.steps) > 3)
    handle.cancel()
    cancelled(handle)


def test_a_cancelled_run_leaves_no_garbage(backend):
    """A run that was cancelled is freed when its handle is dropped: no thread, loop or clock keeps it."""
    configure(backend=backend)
    handle = start(waits)
    until(lambda handle=handle: len(handle.metrics.steps) == 1)
    handle.cancel()
    cancelled(handle)
    held = weakref.ref(record_of(handle))
    process.of(Recent)._runs.clear()
    del handle
    until(lambda: gc.collect() >= 0 and held() is None)


def test_a_failure_that_was_cancelled_is_not_reported(heard: Heard, trap: Trap):
    """Dropping the handle of a cancelled run is no unfetched failure."""
    handle = start(trap.sleep)
    handle.cancel()
    until(lambda handle=handle: handle.state == "cancelled")
    del handle
    gc.collect()
    assert [type(event).__name__ for event in heard.events if "Unfetched" in type(event).__name__] == []
