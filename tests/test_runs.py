"""Runs: their handles, where they are listed, what wraps and observes them, and what configures them."""

import asyncio
import contextlib
import gc
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.from_thread
import attrs
import pytest

from flowlet import (
    LLM,
    AsyncLLM,
    BridgeError,
    ConfigError,
    InputError,
    ModelCall,
    ResultNotReady,
    Run,
    RunCall,
    RunCancelled,
    RunStopped,
    StepCall,
    arun,
    configure,
    failure_of,
    gather,
    last_run,
    pmap,
    register_provider,
    run,
    runs,
    start,
    step,
    with_options,
    workflow,
)
from flowlet.events import (
    Event,
    FailureUnfetched,
    ModelCalled,
    PluginFailed,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
)
from flowlet.settings import process
from flowlet.testing import AsyncMockProvider, MockProvider, SyncMockProvider
from rig import adouble, double, until

pytestmark = pytest.mark.anyio

LATE = 5.0


class Broken(Exception):
    """A user's own error."""


class Gate:
    """Steps that wait here tell that they came, and go on when the test says so."""

    def __init__(self) -> None:
        self.came = threading.Semaphore(0)
        self.opened = threading.Event()

    @step
    def passes(self, value: Any = "through") -> Any:
        self.came.release()
        assert self.opened.wait(LATE)
        return value

    def wait_came(self) -> None:
        assert self.came.acquire(timeout=LATE)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@step
def breaks() -> None:
    raise Broken("no tea")


@workflow
async def abreaks() -> None:
    breaks()


# --- handles -------------------------------------------------------------------------------------


def test_a_handle_is_there_at_once_and_its_states_follow(background: str, gate: Gate) -> None:
    """``start`` returns while the run goes on; pending and running lead to completed."""
    handle = start(gate.passes)
    assert handle.state in ("pending", "running")
    gate.wait_came()
    assert handle.state == "running"
    gate.opened.set()
    assert handle.result(timeout=LATE) == "through"
    assert handle.state == "completed"


def test_an_async_run_starts_in_the_background(background: str) -> None:
    """An ``async def`` runs on the background loop while this thread goes on."""
    go = threading.Event()

    async def body() -> str:
        while not go.is_set():
            await anyio.sleep(0.001)
        return "done"

    handle = start(body)
    assert handle.state in ("pending", "running")
    go.set()
    assert handle.result(timeout=LATE) == "done"


def test_a_result_can_be_fetched_again_and_again(background: str) -> None:
    """Every fetch gives the very same object, in any thread."""
    handle = start(step(lambda: object()))
    first = handle.result()
    assert all(result is first for result in pmap(lambda _: handle.result(), range(8)))


def test_a_failure_is_raised_at_every_fetch() -> None:
    """The very exception that ended the run is raised, each time."""
    handle = start(breaks)
    caught = []
    for _ in range(2):
        with pytest.raises(Broken) as one:
            handle.result(timeout=LATE)
        caught.append(one.value)
    assert caught[0] is caught[1]
    assert (handle.state, handle.metrics.error) == ("failed", "Broken: no tea")


@pytest.mark.parametrize("body", [breaks, abreaks])
def test_a_failure_that_is_fetched_again_has_the_same_traceback(body: Any, background: str) -> None:
    """Its traceback is that of the body and of this fetch, not of those before."""
    handle = start(body)
    names = []
    for _ in range(3):
        with pytest.raises(Broken) as one:
            handle.result(timeout=LATE)
        names.append([entry.name for entry in traceback.extract_tb(one.value.__traceback__)])
    assert names[0] == names[1] == names[2]
    assert names[0][-1] == "breaks"


@pytest.mark.parametrize("timeout", [float("nan"), "1"])
def test_a_wait_takes_a_number(timeout: Any, gate: Gate) -> None:
    """Anything else is an InputError that says what was expected; the run goes on, and may be over."""
    handle = start(gate.passes)
    for _ in range(2):
        with pytest.raises(InputError, match="expected seconds, such as 30"):
            handle.result(timeout=timeout)
        gate.opened.set()
        assert handle.result(timeout=LATE) == "through"


def test_a_handle_that_was_never_made_is_dropped_in_silence() -> None:
    """As where Ctrl-C comes in between; a warning of pytest would fail this."""
    Run.__new__(Run)
    gc.collect()


def test_waiting_too_shortly_leaves_the_run_alone(gate: Gate) -> None:
    """``result(timeout)`` raises ResultNotReady, a TimeoutError, and the run goes on."""
    handle = start(gate.passes)
    for timeout in (0, 0.005):
        with pytest.raises(ResultNotReady, match="no result after .* it is (pending|running)") as caught:
            handle.result(timeout=timeout)
    assert isinstance(caught.value, TimeoutError)
    gate.opened.set()
    assert handle.result(timeout=LATE) == "through"


def test_the_result_of_a_sync_run_went_to_its_caller() -> None:
    """The handle of a ``run()`` tells figures and state, but does not keep the value as well."""
    run(double, 2)
    handle = last_run()
    assert handle.state == "completed"
    with pytest.raises(ResultNotReady, match="went to the caller"):
        handle.result()


def test_the_error_of_a_sync_run_went_to_its_caller() -> None:
    """The handle of a failed ``run()`` tells the error, but does not keep it as well."""
    with pytest.raises(Broken):
        run(breaks)
    with pytest.raises(ResultNotReady, match=r"it is failed \(Broken: no tea\); its outcome is gone"):
        last_run().result()


@pytest.mark.parametrize("inner", ["asyncio", "trio"])
async def test_a_handle_is_awaited_on_either_backend(inner: Any) -> None:
    """A run's backend need not be that of the task that awaits it."""

    async def body() -> int:
        return await adouble(2)

    assert await start(with_options(body, backend=inner)) == 4


async def test_several_tasks_and_threads_wait_for_one_handle(gate: Gate) -> None:
    """All of them get the result."""
    handle = start(gate.passes)
    results: list[Any] = []

    async def waits() -> None:
        results.append(await handle)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(waits)
        waiting = threading.Thread(target=lambda: results.append(handle.result(timeout=LATE)))
        waiting.start()
        await anyio.wait_all_tasks_blocked()
        gate.opened.set()
    waiting.join(LATE)
    assert results == ["through"] * 6


async def test_a_cancelled_wait_leaves_the_run_alone(gate: Gate) -> None:
    """Who stops awaiting a handle does not stop the run."""
    handle = start(gate.passes)
    with anyio.move_on_after(0.01):
        await handle
    gate.opened.set()
    assert await handle == "through"


async def test_result_on_a_loop_thread_raises_instead_of_blocking(gate: Gate) -> None:
    """``handle.result()`` in a task raises and shows ``await handle``; once the run is over it is fine."""
    handle = start(gate.passes)
    with pytest.raises(BridgeError, match="await handle"):
        handle.result()
    gate.opened.set()
    await handle
    assert handle.result() == "through"


async def test_result_in_an_async_body_suspends_the_body_only(gate: Gate) -> None:
    """In a body, ``handle.result()`` is bridged: the loop goes on until the run has ended."""

    async def body() -> str:
        handle = start(gate.passes)
        with pytest.raises(ResultNotReady):
            handle.result(timeout=0.005)
        return handle.result(timeout=LATE)

    async def opens() -> None:
        await anyio.sleep(0.02)
        gate.opened.set()

    async with anyio.create_task_group() as group:
        group.start_soon(opens)
        assert await arun(body) == "through"


def test_a_cancelled_run_tells_so_at_every_fetch(background: str, gate: Gate) -> None:
    """A cancelled handle has the state, raises RunCancelled with the metrics, and can't be cancelled again."""
    configure(grace=0)
    handle = start(gate.passes)
    gate.wait_came()
    assert handle.cancel()
    for _ in range(2):
        with pytest.raises(RunCancelled) as caught:
            handle.result(timeout=LATE)
    assert caught.value.metrics.steps[0].name == "passes"
    assert (handle.state, handle.cancel()) == ("cancelled", False)


def test_a_finished_run_can_not_be_cancelled() -> None:
    """``cancel()`` answers False, and the result stays."""
    handle = start(double, 2)
    handle.result()
    assert not handle.cancel()
    assert handle.result() == 4


def test_a_handle_shows_what_it_is(gate: Gate) -> None:
    """Its repr has id, workflow and state; ``id`` and ``workflow`` are attributes."""
    handle = start(with_options(gate.passes, run_id="my run"))
    gate.opened.set()
    handle.result(timeout=LATE)
    assert repr(handle) == "<Run my run of 'passes': completed>"
    assert (handle.id, handle.workflow) == ("my run", "passes")


def test_metrics_can_be_read_while_the_run_goes_on(gate: Gate) -> None:
    """They are a frozen value of that moment, with the running step."""
    handle = start(gate.passes)
    gate.wait_came()
    now = handle.metrics
    gate.opened.set()
    handle.result(timeout=LATE)
    assert (now.state, now.steps[0].state) == ("running", "running")
    assert (handle.metrics.state, handle.metrics.steps[0].state) == ("completed", "completed")
    assert handle.metrics.duration >= now.duration
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        now.state = "failed"  # type: ignore[misc]


def test_final_metrics_do_not_change() -> None:
    """Once a run is over, its figures are final."""
    handle = start(double, 1)
    handle.result()
    assert handle.metrics == handle.metrics


class Thing:
    """A result whose end can be seen."""


def test_dropping_the_handle_frees_the_result(background: str) -> None:
    """What nobody can fetch any more is released, though the run stays listed."""
    handle = start(Thing)
    gone = weakref.ref(handle.result(timeout=LATE))
    del handle
    gc.collect()
    assert gone() is None
    with pytest.raises(ResultNotReady, match="handle was dropped"):
        runs()[0].result()


def test_dropping_the_handle_early_lets_the_run_finish(gate: Gate) -> None:
    """A run goes on without its handle, and its result is not kept."""
    start(gate.passes)
    gate.wait_came()
    gate.opened.set()
    with pytest.raises(ResultNotReady, match="handle was dropped"):
        while True:
            with contextlib.suppress(ResultNotReady):
                runs()[0].result(timeout=0.01)
            if runs()[0].state == "completed":
                runs()[0].result()


def test_a_handle_from_the_list_keeps_the_result_too(gate: Gate) -> None:
    """While anybody holds a handle of the run, whichever, its result can be fetched."""
    handle = start(gate.passes)
    del handle
    gate.wait_came()
    listed = runs()[0]
    gate.opened.set()
    assert listed.result(timeout=LATE) == "through"
    assert listed.result() == "through"


def test_a_failure_that_nobody_fetched_is_told() -> None:
    """Dropping the handle of a failed run without asking tells the observers of it."""
    seen: list[Event] = []
    configure(observers=[seen.append])
    handle = start(breaks)
    _over(handle)
    del handle
    gc.collect()
    until(lambda: [e.error for e in seen if isinstance(e, FailureUnfetched)] == ["Broken: no tea"])


def test_observers_are_not_called_from_a_destructor() -> None:
    """The collector may strike under any lock, so a dropped handle is told of on a thread of the engine."""
    told: list[threading.Thread] = []
    configure(
        observers=[lambda e: told.append(threading.current_thread()) if type(e) is FailureUnfetched else None]
    )
    handle = start(breaks)
    _over(handle)
    del handle
    gc.collect()
    until(lambda: bool(told))
    assert told[0] is not threading.current_thread()


def test_a_failure_that_was_fetched_is_not_told_again() -> None:
    """A failure that somebody saw, in ``result()`` or in ``run()``, is no news."""
    seen: list[Event] = []
    configure(observers=[seen.append])
    handle = start(breaks)
    for ask in (handle.result, lambda: run(breaks)):
        with pytest.raises(Broken):
            ask()
    del handle, ask
    gc.collect()
    assert [e for e in seen if isinstance(e, FailureUnfetched)] == []


def _over(handle: Any) -> None:
    done = threading.Event()
    handle._run.on_end(done.set)
    assert done.wait(LATE)


# --- events of one run ---------------------------------------------------------------------------


def _told(events: list[Event]) -> list[tuple[str, str | None]]:
    return [(type(e).__name__, getattr(e, "step", None)) for e in events]


FULL = [
    ("RunStarted", None),
    ("StepStarted", "passes"),
    ("StepFinished", "passes"),
    ("StepStarted", "double"),
    ("StepFinished", "double"),
    ("RunFinished", None),
]


async def test_events_follow_a_run_live(gate: Gate) -> None:
    """What happened before comes first, then what happens, and the end of the run ends the iteration."""

    def body() -> int:
        gate.passes()
        return double(1)

    handle = start(body)
    await anyio.to_thread.run_sync(gate.wait_came)
    seen: list[Event] = []
    async with handle.events() as events:
        async for event in events:
            seen.append(event)
            if isinstance(event, StepStarted) and event.step == "passes":
                gate.opened.set()
    assert _told(seen) == FULL
    assert await handle == 2


async def test_events_come_after_the_end_as_well(gate: Gate) -> None:
    """Of a finished run one can still hear everything, by as many as like, in the same order."""

    def body() -> int:
        gate.passes()
        return double(1)

    gate.opened.set()
    handle = start(body)
    await handle
    for _ in range(2):
        async with handle.events() as events:
            assert _told([e async for e in events]) == FULL


async def test_events_of_a_failed_run_tell_the_failure() -> None:
    """The last event has the state and the error."""
    handle = start(breaks)
    async with handle.events() as events:
        seen = [e async for e in events]
    assert isinstance(seen[-1], RunFinished)
    assert (seen[-1].state, seen[-1].error) == ("failed", "Broken: no tea")
    with pytest.raises(Broken):
        await handle


async def test_the_end_of_a_child_run_does_not_end_the_events(gate: Gate) -> None:
    """A run's events last until that run is over, whatever child runs end before."""

    @workflow
    def child() -> int:
        return double(1)

    def body() -> int:
        gate.passes()
        return child() + double(2)

    handle = start(body)
    await anyio.to_thread.run_sync(gate.wait_came)
    async with handle.events() as events:
        gate.opened.set()
        seen = [e async for e in events]
    assert seen[-1].run.id == handle.id
    assert await handle == 6
    assert _told([e for e in seen if e.run.id == handle.id])[-2:] == FULL[-2:]


async def test_events_may_be_left_early(gate: Gate) -> None:
    """Leaving the context stops the following, not the run."""
    handle = start(gate.passes)
    async with handle.events() as events:
        async for _ in events:
            break
    gate.opened.set()
    assert await handle == "through"


async def test_a_run_that_nobody_follows_any_more_is_simple_again(gate: Gate) -> None:
    """Once the last one stops listening, the steps of a run take the fast path again."""
    handle = start(lambda: gate.passes())
    await anyio.to_thread.run_sync(gate.wait_came)
    async with handle.events(), handle.events():
        assert not handle._run.simple
    assert handle._run.simple
    gate.opened.set()
    assert await handle == "through"


async def test_two_can_follow_one_run(gate: Gate) -> None:
    """Each follower gets all events."""
    handle = start(gate.passes)
    await anyio.to_thread.run_sync(gate.wait_came)
    seen: list[list[str]] = []

    async def follow() -> None:
        async with handle.events() as events:
            seen.append([type(e).__name__ async for e in events])

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        group.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        gate.opened.set()
    assert seen == [["RunStarted", "StepStarted", "StepFinished", "RunFinished"]] * 2
    await handle


# --- lists of runs -------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_whatever_their_mode(background: str) -> None:
    """``runs()`` has the runs of ``run``, ``start`` and plain calls."""

    @workflow
    def called() -> int:
        return 1

    run(double, 1)
    handle = start(adouble, 1)
    called()
    assert [r.workflow for r in runs()] == ["called", "adouble", "double"]
    assert runs()[1] is handle
    handle.result()


def test_the_list_of_runs_is_bounded() -> None:
    """Old runs are forgotten: 256 are kept."""
    for _ in range(300):
        run(double, 1)
    assert len(runs()) == 256


def test_a_sync_run_can_be_cancelled_from_another_thread(gate: Gate) -> None:
    """``runs()`` lists sync runs while they go on, so another thread can end them."""
    configure(grace=0)

    def cancels() -> None:
        gate.wait_came()
        runs()[0].cancel()
        gate.opened.set()

    other = threading.Thread(target=cancels)
    other.start()
    with pytest.raises(RunCancelled):
        run(lambda: [gate.passes() for _ in range(100)])
    other.join(LATE)


def test_last_run_is_that_of_this_thread() -> None:
    """Each thread sees the newest run that it asked for itself."""
    with pytest.raises(LookupError):
        last_run()
    barrier = threading.Barrier(4)

    def asks(n: int) -> bool:
        run(with_options(double, run_id=f"run {n}"), n)
        barrier.wait(LATE)
        return last_run().id == f"run {n}"

    run(with_options(double, run_id="mine"), 1)
    assert _in_threads(asks, range(4)) == [True] * 4
    assert last_run().id == "mine"


async def test_last_run_is_that_of_this_task() -> None:
    """In one loop, each task sees the newest run that it asked for itself."""
    found: list[bool] = []

    async def asks(n: int) -> None:
        await arun(with_options(adouble, run_id=f"run {n}"), n)
        await anyio.wait_all_tasks_blocked()
        found.append(last_run().id == f"run {n}")

    async with anyio.create_task_group() as group:
        for n in range(4):
            group.start_soon(asks, n)
    assert found == [True] * 4
    with pytest.raises(LookupError):
        last_run()


def test_last_run_is_not_that_of_an_ended_thread_or_task() -> None:
    """A thread or task that comes after the end of another one, and may get its number, has no run yet."""
    found: list[object] = []

    def asks() -> None:
        run(double, 1)

    async def aasks() -> None:
        await arun(adouble, 1)

    def looks() -> None:
        with contextlib.suppress(LookupError):
            found.append(last_run())

    async def alooks() -> None:
        looks()

    async def in_tasks() -> None:
        for _ in range(20):
            await asyncio.create_task(aasks())
            await asyncio.create_task(alooks())

    for _ in range(20):
        _in_threads(lambda _: asks(), [0])
        _in_threads(lambda _: looks(), [0])
    asyncio.run(in_tasks())
    assert found == []


def _in_threads(fn: Callable[[int], Any], items: Any) -> list[Any]:
    """Call *fn* in one plain thread for each item."""
    results: dict[int, Any] = {}

    def work(item: int) -> None:
        try:
            results[item] = fn(item)
        except BaseException as exc:
            results[item] = exc

    threads = [threading.Thread(target=work, args=(item,)) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LATE)
    return [results[item] for item in items]


# --- runs in threads -----------------------------------------------------------------------------

canary: ContextVar[int] = ContextVar("canary", default=-1)


def test_fifty_threads_run_at_once_and_never_mix(background: str) -> None:
    """Each thread's runs see its own context variables, steps and results, through every crossing."""
    barrier = threading.Barrier(50)

    @step
    def sees() -> int:
        return canary.get()

    @step
    async def asees() -> int:
        await anyio.lowlevel.checkpoint()
        return canary.get()

    async def abody() -> list[int]:
        return [sees(), await asees(), *pmap(lambda _: sees(), range(2))]

    def body() -> list[int]:
        return [sees(), run(asees), *pmap(lambda _: sees(), range(2)), start(sees).result(LATE)]

    def asks(n: int) -> set[int]:
        canary.set(n)
        barrier.wait(LATE)
        return {*run(body), *run(abody), *start(abody).result(LATE)}

    assert _in_threads(asks, range(50)) == [{n} for n in range(50)]


def test_a_run_in_a_thread_starts_from_no_run() -> None:
    """A plain thread that a body starts itself is outside the run: its calls are its own."""

    def body() -> None:
        thread = threading.Thread(target=lambda: run(double, 1))
        thread.start()
        thread.join(LATE)

    run(body)
    assert sorted(r.workflow.rpartition(".")[2] for r in runs()) == ["body", "double"]
    assert last_run().metrics.steps == ()


# --- start inside a run --------------------------------------------------------------------------


def test_a_run_waits_for_what_it_started(background: str, gate: Gate) -> None:
    """``start`` in a body makes a child run that the run's end waits for, fetched or not."""
    ended: list[str] = []

    def body() -> str:
        start(lambda: ended.append(gate.passes()))
        gate.wait_came()
        threading.Timer(0.01, gate.opened.set).start()
        return "body"

    assert run(body) == "body"
    assert ended == ["through"]
    assert [c.state for c in last_run().metrics.children] == ["completed"]


async def test_an_async_run_waits_for_what_it_started() -> None:
    """The same in an async body; the child runs on the run's own loop."""
    threads: list[int] = []

    async def child() -> None:
        await anyio.lowlevel.checkpoint()
        threads.append(threading.get_ident())

    async def body() -> None:
        start(child)

    await arun(body)
    assert threads == [threading.get_ident()]
    assert [c.state for c in last_run().metrics.children] == ["completed"]


def test_a_failing_run_cancels_what_it_started(background: str) -> None:
    """When the body fails, its started child runs are cancelled and waited for."""

    async def endless() -> None:
        await anyio.sleep(60)

    def body() -> None:
        start(endless)
        raise Broken

    with pytest.raises(Broken):
        run(body)
    assert [c.state for c in last_run().metrics.children] == ["cancelled"]


def test_a_started_child_that_fails_unfetched_does_not_fail_the_run(background: str) -> None:
    """A child's failure belongs to its handle: a body that does not ask for it completes, and it is told."""
    seen: list[Event] = []
    configure(observers=[seen.append])

    def body() -> str:
        start(breaks)
        return "body"

    assert run(body) == "body"
    gc.collect()
    until(lambda: len([e for e in seen if isinstance(e, FailureUnfetched)]) == 1)


def test_a_handle_of_a_child_works_in_the_body(background: str) -> None:
    """A body starts several runs and fetches them in any order, or gathers them."""

    def body() -> tuple[int, ...]:
        handles = [start(double, 1), start(adouble, 2), start(double, 3)]
        return handles[2].result(), *gather(*handles)

    assert run(body) == (6, 2, 4, 6)
    assert {c.parent_id for c in last_run().metrics.children} == {last_run().id}


# --- code that outlives its run ------------------------------------------------------------------


async def test_a_task_that_outlives_a_completed_run_is_outside() -> None:
    """A task left behind by a run that completed calls steps as plain functions, and runs as new runs."""
    done = anyio.Event()
    found: list[Any] = []

    async def leftover() -> None:
        await done.wait()
        found.append((double(1), await adouble(2)))
        found.append(await arun(adouble, 3))
        found.append(await start(double, 4))
        found.append(await AsyncLLM("offline").ask("tea"))

    async def body(group: Any) -> None:
        group.start_soon(leftover)

    configure(model="offline")
    async with anyio.create_task_group() as group:
        await arun(body, group)
        done.set()
    assert found[:3] == [(2, 4), 6, 8]
    assert [r.workflow.rpartition(".")[2] for r in runs()] == ["double", "adouble", "body"]


def test_a_thread_that_outlives_a_completed_run_is_outside(gate: Gate) -> None:
    """A thread in the run's context that outlives it gets the plain functions and the tools as well."""
    import contextvars

    found: list[Any] = []

    def leftover() -> None:
        gate.opened.wait(LATE)
        found.append((double(1), run(adouble, 2), start(double, 3).result(LATE), pmap(double, [4])))

    def body() -> threading.Thread:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(leftover,))
        thread.start()
        return thread

    thread = run(body)
    gate.opened.set()
    thread.join(LATE)
    assert found == [(2, 4, 6, [8])]


def test_a_body_that_goes_on_after_its_run_is_stopped(gate: Gate) -> None:
    """A step that is called in a run that was cancelled raises RunStopped, which no ``except Exception`` catches."""
    configure(grace=0)
    caught: list[BaseException] = []
    done = threading.Event()

    def body() -> None:
        try:
            gate.passes()
            double(1)
        except Exception as exc:
            caught.append(exc)
        except BaseException as exc:
            caught.append(exc)
            raise
        finally:
            done.set()

    handle = start(body)
    gate.wait_came()
    handle.cancel()
    gate.opened.set()
    assert done.wait(LATE)
    assert [type(e) for e in caught] == [RunStopped]
    with pytest.raises(RunCancelled):
        handle.result(timeout=LATE)


# --- middleware ----------------------------------------------------------------------------------


def recorder(told: list[str], name: str, kind: Any, colour: str) -> Callable[..., Any]:
    """A middleware of *colour* for *kind* that tells when it is entered and left."""

    def wraps(call: Any, next: Any) -> Any:
        told.append(f"{name} in")
        result = next(call)
        told.append(f"{name} out")
        return result

    async def awraps(call: Any, next: Any) -> Any:
        told.append(f"{name} in")
        await anyio.lowlevel.checkpoint()
        result = await next(call)
        told.append(f"{name} out")
        return result

    chosen = wraps if colour == "sync" else awraps
    chosen.__annotations__["call"] = kind
    return chosen


COLOURS = pytest.mark.parametrize("outer", ["sync", "async"])
INNER = pytest.mark.parametrize("inner", ["sync", "async"])
STEPS = pytest.mark.parametrize("fn", [double, adouble])
NESTED = ["outer in", "inner in", "inner out", "outer out"]


@COLOURS
@INNER
@STEPS
@pytest.mark.parametrize("kind", [StepCall, RunCall])
def test_middleware_of_any_colour_wraps_steps_and_runs(
    background: str, kind: Any, outer: str, inner: str, fn: Any
) -> None:
    """Each goes on in its own colour, the first of the list outermost, in sync mode."""
    told: list[str] = []
    both = [recorder(told, "outer", kind, outer), recorder(told, "inner", kind, inner)]
    configure(middleware=both)
    assert run(fn, 4) == 8
    assert told == NESTED


@COLOURS
@INNER
@STEPS
@pytest.mark.parametrize("kind", [StepCall, RunCall])
async def test_middleware_of_any_colour_wraps_in_async_runs(
    kind: Any, outer: str, inner: str, fn: Any
) -> None:
    """The same under ``arun``, for sync and async steps."""
    told: list[str] = []
    both = [recorder(told, "outer", kind, outer), recorder(told, "inner", kind, inner)]

    async def body() -> int:
        return fn(4) if fn is double else await fn(4)

    assert await arun(with_options(body, middleware=both)) == 8
    assert told == NESTED


@COLOURS
@INNER
@pytest.mark.parametrize("provider", [SyncMockProvider, AsyncMockProvider])
def test_middleware_of_any_colour_wraps_model_calls(
    background: str, provider: Any, outer: str, inner: str
) -> None:
    """Sync and async middleware around sync and async model calls of sync and async providers."""
    told: list[str] = []
    register_provider("mock", provider(lambda _: "answer"))
    both = [recorder(told, "outer", ModelCall, outer), recorder(told, "inner", ModelCall, inner)]
    configure(middleware=both, model="mock:m")

    async def aask() -> str:
        return await AsyncLLM().ask("?") + LLM().ask("?")

    assert run(lambda: LLM().ask("?")) == LLM().ask("?") == "answer"
    assert run(aask) == "answeranswer"
    assert told == NESTED * 4


def test_middleware_can_change_arguments_and_results(background: str) -> None:
    """``next`` takes a changed copy of the call, and what the middleware returns is the result."""

    def adds(call: StepCall, next: Callable[[StepCall], int]) -> int:
        return next(attrs.evolve(call, args=(call.args[0] + 1,))) * 100

    for fn in (double, adouble):
        assert run(with_options(lambda fn=fn: run(fn, 1), middleware=[adds])) == 400


def test_middleware_knows_the_step_and_the_run() -> None:
    """A call tells its step, arguments and run, and the annotation chooses what is wrapped."""
    seen: list[Any] = []

    def sees(call: StepCall | RunCall, next: Any) -> Any:
        seen.append(call)
        return next(call)

    run(with_options(double, middleware=[sees], run_id="mine"), 3)
    outer, inner = seen
    assert (outer.workflow, outer.args, outer.run.id) == ("double", (3,), "mine")
    assert (inner.step, inner.args, inner.run.id) == ("double", (3,), "mine")


def test_middleware_without_annotation_wraps_everything() -> None:
    """An unannotated middleware hears of run, step and model call."""
    seen: list[str] = []

    def sees(call: Any, next: Any) -> Any:
        seen.append(type(call).__name__)
        return next(call)

    sees.__annotations__.clear()
    register_provider("mock", MockProvider(["a"]))
    configure(middleware=[sees], model="mock:m")
    run(step(lambda: LLM().ask("?")))
    assert seen == ["RunCall", "StepCall", "ModelCall"]


def test_a_callable_object_can_be_middleware(background: str) -> None:
    """An object with ``__call__``, sync or async, is middleware by the annotation of its method."""

    class Counts:
        calls = 0

        def __call__(self, call: StepCall, next: Any) -> Any:
            self.calls += 1
            return next(call)

    class Acounts:
        calls = 0

        async def __call__(self, call: StepCall, next: Any) -> Any:
            self.calls += 1
            return await next(call)

    both = [Counts(), Acounts()]
    assert run(with_options(double, middleware=both), 1) == 2
    assert [one.calls for one in both] == [1, 1]


def test_middleware_may_be_annotated_with_names_for_type_checkers_only() -> None:
    """An annotation that can't be resolved at run time is read by its text."""
    told: list[str] = []
    lazy = recorder(told, "lazy", "StepCall | Missing", "sync")
    assert run(with_options(double, middleware=[lazy]), 1) == 2
    assert told == ["lazy in", "lazy out"]


def test_middleware_needs_no_hash(background: str) -> None:
    """A value with ``__eq__`` and ``__call__`` (an attrs class) is middleware."""

    @attrs.define
    class Counts:
        calls: int = 0

        def __call__(self, call: StepCall, next: Any) -> Any:
            self.calls += 1
            return next(call)

    counts = Counts()
    assert run(with_options(adouble, middleware=[counts]), 1) == 2
    assert counts.calls == 1


@pytest.mark.parametrize("colour", ["sync", "async"])
@STEPS
def test_middleware_may_go_on_twice(background: str, colour: str, fn: Any) -> None:
    """``next`` can be called again: a retry of the user's own is a few lines."""
    calls: list[int] = []

    def twice(call: StepCall, next: Any) -> Any:
        return next(call) + next(call)

    async def atwice(call: StepCall, next: Any) -> Any:
        return await next(call) + await next(call)

    @step
    def counted(number: int) -> int:
        calls.append(number)
        return number

    both = [twice if colour == "sync" else atwice]
    assert run(with_options(fn, middleware=both), 1) == 4
    assert run(with_options(counted, middleware=both), 3) == 6
    assert calls == [3, 3]


def test_middleware_is_inherited_and_added_to() -> None:
    """Settings' middleware is outermost, then the run's, then the child's; a sibling has none of that."""
    told: list[str] = []
    child = with_options(workflow(lambda: double(1)), middleware=[recorder(told, "child", StepCall, "sync")])
    configure(middleware=[recorder(told, "settings", StepCall, "sync")])

    def body() -> None:
        child()

    run(with_options(body, middleware=[recorder(told, "run", StepCall, "sync")]))
    assert told[:3] == ["settings in", "run in", "child in"]
    told.clear()
    run(double, 1)
    assert told == ["settings in", "settings out"]


def test_middleware_may_answer_itself() -> None:
    """A middleware that does not call ``next`` gives the result; the step's body never runs."""

    def answers(call: StepCall, next: Any) -> Any:
        return "instead"

    assert run(with_options(breaks, middleware=[answers])) == "instead"
    assert last_run().metrics.steps[0].state == "completed"


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_failure_passes_through_middleware_unchanged(background: str, colour: str) -> None:
    """The step's exception keeps its identity and place; the middleware may catch it."""
    told: list[str] = []
    with pytest.raises(Broken) as caught:
        run(with_options(breaks, middleware=[recorder(told, "mw", StepCall, colour)]))
    assert failure_of(caught.value).step == "breaks"
    assert told == ["mw in"]


def test_a_failure_of_the_middleware_fails_the_step() -> None:
    """What a middleware raises is the step's failure, and the body may catch it."""

    def refuses(call: StepCall, next: Any) -> Any:
        raise PermissionError(call.step)

    def body() -> str:
        try:
            double(1)
        except PermissionError as exc:
            return failure_of(exc).step
        return "no error"

    assert run(with_options(body, middleware=[refuses])) == "double"


@pytest.mark.usefixtures("no_waits")
def test_middleware_wraps_all_attempts_of_a_step() -> None:
    """Retries happen inside: the middleware is entered once."""
    told: list[str] = []
    calls: list[int] = []

    @step(attempts=3)
    def flaky() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise Broken

    run(with_options(flaky, middleware=[recorder(told, "mw", StepCall, "sync")]))
    assert (len(calls), told) == (3, ["mw in", "mw out"])


def test_context_variables_come_through_middleware(background: str) -> None:
    """A step behind async middleware reads and sets the body's context variables."""

    @step
    def moves() -> int:
        before = canary.get()
        canary.set(2)
        return before

    def body() -> tuple[int, int]:
        canary.set(1)
        return moves(), canary.get()

    told: list[str] = []
    for colour in ("sync", "async"):
        assert run(with_options(body, middleware=[recorder(told, "mw", StepCall, colour)])) == (1, 2)


# --- observers -----------------------------------------------------------------------------------


def test_observers_hear_events_in_order() -> None:
    """A run's events come in the order in which things happened, with the run's facts."""
    seen: list[Event] = []
    configure(observers=[seen.append])
    register_provider("mock", MockProvider(["a"]))
    run(with_options(step(name="asks")(lambda: LLM("mock:m").ask("?")), tags=["t"], correlation_id="c"))
    assert [type(e) for e in seen] == [RunStarted, StepStarted, ModelCalled, StepFinished, RunFinished]
    assert {(e.run.id, e.run.correlation_id, e.run.tags) for e in seen} == {(last_run().id, "c", ("t",))}
    assert [e.at for e in seen] == sorted(e.at for e in seen)


async def test_sync_and_async_runs_tell_the_same_events() -> None:
    """The same work in either mode and colour gives the same events."""
    stories: list[list[tuple[str, Any]]] = []

    def told() -> Any:
        stories.append([])
        story = stories[-1]
        return lambda e: story.append((type(e).__name__, getattr(e, "step", None), getattr(e, "state", None)))

    async def body() -> None:
        double(1)
        with contextlib.suppress(Broken):
            breaks()

    def sync_body() -> None:
        double(1)
        with contextlib.suppress(Broken):
            breaks()

    for fn in (body, sync_body):
        configure(observers=[told()])
        await arun(fn)
        configure(observers=[told()])
        await start(fn)
    with anyio.fail_after(LATE):
        while not all(story[-1][0] == "RunFinished" for story in stories):
            await anyio.sleep(0.001)
    assert stories[0] == stories[1] == stories[2] == stories[3]
    assert ("StepFinished", "breaks", "failed") in stories[0]


def test_an_observer_that_raises_does_no_harm() -> None:
    """Its failure is told once to the other observers, and runs and observers go on."""
    seen: list[Event] = []

    def bad(event: Event) -> None:
        raise RuntimeError("disk full")

    configure(observers=[bad, seen.append])
    assert [run(double, n) for n in range(2)] == [0, 2]
    failures = [e for e in seen if isinstance(e, PluginFailed)]
    assert [e.error for e in failures] == ["RuntimeError: disk full"]
    assert len([e for e in seen if isinstance(e, RunFinished)]) == 2


def test_a_run_keeps_the_settings_it_began_with() -> None:
    """Observers and middleware configured meanwhile hold for later runs."""
    seen: list[Event] = []

    def body() -> None:
        configure(observers=[seen.append])
        double(1)

    run(body)
    assert seen == []
    run(double, 1)
    assert len(seen) == 4


# --- settings and environment --------------------------------------------------------------------


def test_all_faults_of_configure_are_told_at_once() -> None:
    """Every setting that does not exist or can't have its value is one line of one error."""
    with pytest.raises(ConfigError) as caught:
        configure(backend="curio", grace=-1, modle="x", max_threads=0)  # type: ignore[call-arg, typeddict-item]
    assert len(caught.value.faults) == 4
    for name, found in (("backend", "curio"), ("grace", "-1"), ("modle", "mean model"), ("max_threads", "0")):
        assert any(name in fault and found in fault for fault in caught.value.faults)


@pytest.mark.parametrize(
    "change",
    [
        {"observers": print},
        {"observers": 3},
        {"observers": ["x"]},
        {"middleware": [None]},
        {"middleware": None},
        {"providers": []},
        {"model": None},
        {"attempts": None},
        {"attempts": True},
        {"attempts": 2.5},
        {"grace": "5"},
        {"grace": float("nan")},
        {"call_timeout": 0},
        {"reasks": -1},
    ],
)
def test_impossible_settings_are_refused(change: Any) -> None:
    """A value that a setting can't have is named, and nothing changes."""
    before = process.settings
    with pytest.raises(ConfigError, match=next(iter(change))):
        configure(**change)
    assert process.settings == before


def test_observers_may_come_from_any_iterable() -> None:
    """A generator of functions is as good as a list."""
    seen: list[Event] = []
    configure(observers=(f for f in [seen.append]))
    run(double, 1)
    assert len(seen) == 4


def test_faults_of_the_environment_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first use names every variable whose value can't be used, in any mode."""
    monkeypatch.setenv("FLOWLET_BACKEND", "curio")
    monkeypatch.setenv("FLOWLET_ATTEMPTS", "three")
    monkeypatch.setenv("FLOWLET_GRACE", "-2")
    for ask in (lambda: run(double, 1), lambda: start(double, 1), lambda: configure(grace=1)):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert len(caught.value.faults) == 3
        assert all(fault.startswith("FLOWLET_") for fault in caught.value.faults)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """Variables set what ``configure`` has not; empty ones set nothing."""
    monkeypatch.setenv("FLOWLET_BACKEND", backend)
    monkeypatch.setenv("FLOWLET_GRACE", "1.5")
    monkeypatch.setenv("FLOWLET_ATTEMPTS", "")
    assert run(_library) == backend
    assert (process.settings.grace, process.settings.attempts) == (1.5, 3)
    other = "trio" if backend == "asyncio" else "asyncio"
    configure(backend=other)
    assert run(_library) == other


async def _library() -> str:
    import sniffio

    return sniffio.current_async_library()


def test_one_background_loop_serves_all_runs(background: str) -> None:
    """Async runs share the thread of one cached loop."""

    async def where() -> int:
        return threading.get_ident()

    assert len({run(where), start(where).result(), run(lambda: run(where))}) == 1


def test_asyncio_run_around_arun_works() -> None:
    """``asyncio.run(arun(...))`` is the entry for who has his own loop."""

    async def main() -> int:
        return await arun(double, 2) + await arun(adouble, 2)

    assert asyncio.run(main()) == asyncio.run(arun(double, 4)) == 8
