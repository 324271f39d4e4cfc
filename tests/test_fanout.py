"""Fan-out: many calls at once, in order, bounded, failing as one."""

import asyncio
import contextlib
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from flowlet import (
    BridgeError,
    DefinitionError,
    FlowletError,
    agather,
    apmap,
    arun,
    configure,
    failure_of,
    gather,
    last_run,
    pmap,
    run,
    runs,
    start,
    step,
    workflow,
)
from flowlet._engine._threads import Threads, here_busy
from flowlet.context import here
from flowlet.settings import process
from rig import adouble, double, until

pytestmark = pytest.mark.anyio

LATE = 5.0


@workflow
def flow(number: int) -> int:
    return double(number)


@workflow
async def aflow(number: int) -> int:
    return await adouble(number)


async def plain(number: int) -> int:
    return 2 * number


class Broken(Exception):
    """A user's own error."""


FUNCTIONS = [double, adouble, flow, aflow, lambda n: 2 * n, plain, lambda n: adouble(n)]
EACH = pytest.mark.parametrize("fn", FUNCTIONS)
DOUBLES = [0, 2, 4, 6, 8]


# --- every place ---------------------------------------------------------------------------------


@EACH
def test_pmap_gives_results_in_order_outside_a_run(background: str, fn: Any) -> None:
    """Steps, workflows and plain functions of either colour, from plain code."""
    assert pmap(fn, range(5)) == DOUBLES


@EACH
def test_pmap_gives_results_in_order_in_a_sync_body(background: str, fn: Any) -> None:
    """The same in a ``def`` body, in both modes."""
    body = lambda: pmap(fn, range(5))  # noqa: E731
    assert run(body) == start(body).result(timeout=LATE) == DOUBLES


@EACH
async def test_pmap_in_an_async_body_is_bridged(fn: Any) -> None:
    """A plain ``pmap`` in an ``async def`` body suspends the body only."""

    async def body() -> list[int]:
        return pmap(fn, range(5))

    assert await arun(body) == DOUBLES


@EACH
async def test_apmap_gives_results_in_order(fn: Any) -> None:
    """``await apmap`` works in a body and outside a run."""

    async def body() -> list[int]:
        return await apmap(fn, range(5))

    assert await arun(body) == await apmap(fn, range(5)) == DOUBLES


def test_calls_in_a_run_are_recorded_and_outside_are_not(background: str) -> None:
    """Steps that are fanned out in a run are its steps; outside a run nothing is kept."""
    for fn in (double, adouble):
        assert run(lambda fn=fn: pmap(fn, range(5))) == DOUBLES
        assert [s.name for s in last_run().metrics.steps] == [fn.__name__] * 5
    before = len(runs())
    pmap(double, range(5))
    assert len(runs()) == before


def test_workflows_in_a_fan_out_are_child_runs(background: str) -> None:
    """Each item is a child run of the run around."""
    for fn in (flow, aflow):
        run(lambda fn=fn: pmap(fn, range(3)))
        assert [c.workflow for c in last_run().metrics.children] == [fn.__name__] * 3


async def test_steps_in_a_fan_out_belong_to_the_step_around() -> None:
    """The calls are recorded below the step that fans out."""

    @step
    async def outer() -> list[int]:
        return pmap(double, range(2)) + await apmap(adouble, range(2))

    await arun(outer)
    assert [s.parent for s in last_run().metrics.steps] == [None, 0, 0, 0, 0]


async def test_an_async_fan_out_on_a_loop_thread_raises_for_pmap() -> None:
    """Where no bridge is, ``pmap`` and ``gather`` raise and show the line that works."""
    with pytest.raises(BridgeError, match=r"await apmap\(\.\.\.\)"):
        pmap(double, range(3))
    with pytest.raises(BridgeError, match=r"await agather\(\.\.\.\)"):
        gather(start(double, 1))


async def test_pmap_in_a_hand_made_task_raises() -> None:
    """A task that the user spawned has no bridge for ``pmap``; ``apmap`` works there."""
    found: list[Any] = []

    async def task() -> None:
        try:
            pmap(double, range(3))
        except BridgeError as exc:
            found.append(exc)
        found.append(await apmap(double, range(3)))

    async def body() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(task)

    await arun(body)
    assert isinstance(found[0], BridgeError)
    assert found[1] == [0, 2, 4]


async def test_plain_calls_in_fanned_out_tasks_are_bridged() -> None:
    """``pmap`` and ``apmap`` give their tasks the bridge, whatever the function."""

    async def calls(number: int) -> int:
        return double(number)

    async def body() -> list[int]:
        return pmap(calls, range(5)) + await apmap(calls, range(5))

    assert await arun(body) == DOUBLES * 2


# --- items ---------------------------------------------------------------------------------------


def test_no_items_are_no_calls(background: str) -> None:
    """An empty list gives an empty list, for either colour."""
    assert pmap(double, []) == pmap(adouble, []) == run(lambda: pmap(adouble, [])) == []
    assert gather() == ()


async def test_no_awaitables_are_no_results() -> None:
    """``await apmap`` and ``await agather`` of nothing give nothing."""
    assert (await apmap(double, []), await agather()) == ([], ())


def test_items_may_be_any_iterable(background: str) -> None:
    """Generators, sets, dicts and strings are items; a generator is read in the caller's thread."""
    threads: set[int] = set()

    def numbers() -> Iterator[int]:
        for n in range(5):
            threads.add(threading.get_ident())
            yield n

    assert pmap(double, numbers()) == DOUBLES
    assert pmap(str.upper, "abc") == ["A", "B", "C"]
    assert pmap(double, {3: "x", 4: "y"}) == [6, 8]
    assert threads == {threading.get_ident()}


async def test_a_generator_of_items_may_call_steps() -> None:
    """Items may come from steps of either colour in an async body."""

    async def body() -> list[int]:
        return pmap(double, (double(n) for n in range(3)))

    assert await arun(body) == [0, 4, 8]


def test_a_failing_generator_of_items_fails_before_any_call() -> None:
    """When the items can't be made, nothing was called."""
    calls: list[int] = []

    def numbers() -> Iterator[int]:
        yield 1
        raise Broken

    with pytest.raises(Broken):
        pmap(calls.append, numbers())
    assert calls == []


@pytest.mark.parametrize("fn", [double, adouble])
def test_a_thousand_items_keep_their_order(background: str, fn: Any) -> None:
    """Results are in the order of the items, whoever finishes first."""
    assert run(lambda: pmap(fn, range(1000))) == list(range(0, 2000, 2))
    assert len(last_run().metrics.steps) == 1000


async def test_a_thousand_items_at_once() -> None:
    """``max_concurrency`` may be as large as the number of items."""
    assert await apmap(adouble, range(1000), max_concurrency=1000) == list(range(0, 2000, 2))


def test_fan_outs_nest(background: str) -> None:
    """A fan-out in a fan-out, sync in sync and mixed, wider than there are threads, comes back."""
    configure(max_threads=4)

    def row(n: int) -> int:
        return sum(pmap(double, range(n), max_concurrency=8))

    async def arow(n: int) -> int:
        return sum(pmap(double, range(n))) + sum(await apmap(adouble, range(n)))

    once = [n * (n - 1) for n in range(10)]
    assert run(lambda: pmap(row, range(10), max_concurrency=10)) == pmap(row, range(10)) == once
    assert run(lambda: pmap(arow, range(10), max_concurrency=10)) == [2 * n for n in once]


# --- bounds --------------------------------------------------------------------------------------


class Peak:
    """Counts how many are inside at once, and lets nobody out before *width* came in."""

    def __init__(self, width: int) -> None:
        self._lock = threading.Lock()
        self._width = width
        self._inside = 0
        self._full = threading.Event()
        self.highest = 0

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            self.highest = max(self.highest, self._inside)
            if self._inside == self._width:
                self._full.set()

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1

    def stays(self, _: int) -> None:
        self.enter()
        assert self._full.wait(LATE)
        self.leave()

    async def astays(self, _: int) -> None:
        self.enter()
        with anyio.fail_after(LATE):
            while not self._full.is_set():
                await anyio.sleep(0.001)
        await anyio.lowlevel.checkpoint()
        self.leave()


@pytest.mark.parametrize("colour", ["stays", "astays"])
@pytest.mark.parametrize("width", [1, 3])
def test_max_concurrency_is_reached_and_not_passed(background: str, colour: str, width: int) -> None:
    """Exactly as many calls as allowed run at once, in and outside a run."""
    for ask in (lambda f: f(), run):
        peak = Peak(width)
        ask(lambda peak=peak: pmap(getattr(peak, colour), range(12), max_concurrency=width))
        assert peak.highest == width


@pytest.mark.parametrize("colour", ["stays", "astays"])
async def test_max_concurrency_bounds_apmap(colour: str) -> None:
    """The same for ``await apmap``, for both colours."""
    peak = Peak(3)
    await apmap(getattr(peak, colour), range(12), max_concurrency=3)
    assert peak.highest == 3


@pytest.mark.parametrize("bound", [0, -1, 1.5, "3", None, True])
async def test_an_impossible_bound_is_refused(bound: Any) -> None:
    """``max_concurrency`` that is no whole number of at least 1 is named."""
    with pytest.raises(DefinitionError, match="max_concurrency="):
        await apmap(double, [1], max_concurrency=bound)
    with pytest.raises(DefinitionError, match="max_concurrency="):
        pmap(double, [1], max_concurrency=bound)


def test_a_width_beyond_the_threads_is_no_error() -> None:
    """More calls than worker threads may run wait for their turn."""
    configure(max_threads=2)
    assert pmap(double, range(50), max_concurrency=50) == list(range(0, 100, 2))


# --- failures ------------------------------------------------------------------------------------


@step
def fails_at_2(number: int) -> int:
    if number == 2:
        raise Broken(number)
    return number


@step
async def afails_at_2(number: int) -> int:
    if number == 2:
        raise Broken(number)
    await anyio.sleep(60)
    return number


@pytest.mark.parametrize("fn", [fails_at_2, afails_at_2, lambda n: afails_at_2(n)])
def test_the_first_failure_is_raised_bare(background: str, fn: Any) -> None:
    """No group is made: the very exception comes out, with its step, and the rest is cancelled at once."""
    with pytest.raises(Broken) as caught:
        run(lambda: pmap(fn, range(5)))
    assert failure_of(caught.value).step in ("fails_at_2", "afails_at_2")
    with pytest.raises(Broken):
        pmap(fn, range(5))


@pytest.mark.parametrize("fn", [fails_at_2, afails_at_2, lambda n: afails_at_2(n)])
async def test_the_first_failure_is_raised_bare_by_apmap(fn: Any) -> None:
    """The same from ``await apmap``, in and outside a run, and bridged."""
    for ask in (lambda: apmap(fn, range(5)), lambda: arun(apmap, fn, range(5)), lambda: arun(_bridged, fn)):
        with pytest.raises(Broken):
            await ask()


async def _bridged(fn: Any) -> list[int]:
    return pmap(fn, range(5))


def test_no_further_item_starts_after_a_failure(background: str) -> None:
    """What has not begun when one fails never begins."""
    begun: list[int] = []

    @step
    def first_fails(number: int) -> None:
        begun.append(number)
        raise Broken(number)

    with pytest.raises(Broken):
        run(lambda: pmap(first_fails, range(100), max_concurrency=1))
    assert begun == [0]


def test_steps_of_the_rest_do_not_go_on_after_a_failure() -> None:
    """A call in flight is stopped at its next step, quickly and without another error."""
    failed = threading.Event()
    later: list[int] = []

    def item(number: int) -> None:
        if number == 0:
            failed.set()
            raise Broken
        assert failed.wait(LATE)
        while True:
            later.append(double(number))

    with pytest.raises(Broken):
        run(lambda: pmap(item, range(3)))


async def test_steps_of_the_rest_do_not_go_on_in_async_items() -> None:
    """The same in tasks: what is stopped leaves no group and no error behind."""
    failed = anyio.Event()

    async def item(number: int) -> None:
        if number == 0:
            failed.set()
            raise Broken
        await failed.wait()
        while True:
            double(number)
            await adouble(number)

    for ask in (lambda: apmap(item, range(3)), lambda: arun(apmap, item, range(3))):
        failed = anyio.Event()
        with pytest.raises(Broken):
            await ask()


async def test_a_failure_leaves_no_coroutine_of_the_rest_behind() -> None:
    """What calls of plain functions give is awaited or closed, also where nobody waits for it any more."""

    def gives(number: int) -> Any:
        if number == 0:
            raise Broken
        return afails_at_2(3)

    async def body() -> None:
        for _ in range(20):
            with pytest.raises(Broken):
                await apmap(gives, range(40))

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        await arun(body)
    assert not found


async def test_what_a_left_thread_gives_is_closed() -> None:
    """A coroutine that comes when nobody waits for it any more is no warning."""
    go, given = threading.Event(), threading.Event()

    def gives(number: int) -> Any:
        if number == 0:
            raise Broken
        assert go.wait(LATE)
        given.set()
        return afails_at_2(3)

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with pytest.raises(Broken):
            await apmap(gives, [1, 0])
        go.set()
        assert given.wait(LATE)
        until(lambda: not process.of(Threads).abandoned)
    assert not found


def test_a_body_may_catch_a_failed_fan_out_and_go_on(background: str) -> None:
    """After the failure the run is whole: further steps and fan-outs work."""

    def body() -> list[int]:
        for fn in (fails_at_2, afails_at_2):
            try:
                pmap(fn, range(5))
            except Broken:
                continue
        return [*pmap(double, range(5)), double(5)]

    assert run(body) == [*DOUBLES, 10]


async def test_an_async_body_may_catch_a_failed_fan_out_and_go_on() -> None:
    """The same in an async body, for both spellings."""

    async def body() -> list[int]:
        for fn in (fails_at_2, afails_at_2):
            with contextlib.suppress(Broken):
                pmap(fn, range(5))
            with contextlib.suppress(Broken):
                await apmap(fn, range(5))
        return [*await apmap(double, range(5)), double(5)]

    assert await arun(body) == [*DOUBLES, 10]


@pytest.mark.parametrize("kind", [StopIteration, SystemExit, KeyboardInterrupt, ValueError])
def test_odd_failures_of_sync_items_come_out_as_themselves(kind: type[BaseException]) -> None:
    """What a sync item raises is raised, StopIteration and SystemExit too."""
    error = kind("x")

    def item(number: int) -> None:
        raise error

    for ask in (lambda: pmap(item, range(3)), lambda: run(lambda: pmap(item, range(3)))):
        with pytest.raises(kind) as caught:
            ask()
        assert caught.value is error


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, ValueError])
async def test_odd_failures_of_async_items_come_out_as_themselves(kind: type[BaseException]) -> None:
    """What an async item raises is raised bare, SystemExit too."""
    error = kind("x")

    async def item(number: int) -> None:
        raise error

    with pytest.raises(kind) as caught:
        await apmap(item, range(3))
    assert caught.value is error


def test_a_child_run_that_fails_in_a_fan_out_is_failed_and_the_rest_cancelled(background: str) -> None:
    """The metrics tell which child failed and which were cancelled for it."""
    begun: list[int] = []

    @workflow
    async def child(number: int) -> None:
        begun.append(number)
        while len(begun) < 3:
            await anyio.lowlevel.checkpoint()
        if number == 1:
            raise Broken
        await anyio.sleep(60)

    with pytest.raises(Broken):
        run(lambda: pmap(child, range(3)))
    assert sorted(c.state for c in last_run().metrics.children) == ["cancelled", "cancelled", "failed"]


# --- gather --------------------------------------------------------------------------------------


@EACH
def test_gather_waits_for_several_runs_in_order(background: str, fn: Any) -> None:
    """A tuple of results, in the order of the handles, outside and inside a run."""

    def body() -> tuple[int, ...]:
        return gather(start(fn, 1), start(fn, 2), start(fn, 3))

    assert body() == run(body) == (2, 4, 6)


async def test_gather_in_an_async_body_is_bridged() -> None:
    """A plain ``gather`` in an async body suspends the body only."""

    async def body() -> tuple[int, ...]:
        return gather(start(double, 1), start(adouble, 2))

    assert await arun(body) == (2, 4)


async def test_agather_awaits_handles_coroutines_and_futures() -> None:
    """Anything awaitable will do, in and outside a run."""

    async def body() -> tuple[Any, ...]:
        return await agather(start(double, 1), adouble(2), aflow(3), arun(double, 4), arun(flow, 5))

    assert await arun(body) == await body() == (2, 4, 6, 8, 10)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_agather_of_asyncio_futures() -> None:
    """On asyncio futures and tasks are awaitables too."""
    future = asyncio.get_running_loop().create_future()
    future.set_result(1)
    assert await agather(future, asyncio.create_task(plain(1))) == (1, 2)


def test_gather_raises_the_first_failure_and_cancels_the_rest(background: str) -> None:
    """The failure comes out bare while others still run; those are cancelled."""

    async def endless() -> None:
        await anyio.sleep(60)

    @step
    def breaks() -> None:
        raise Broken

    handles = start(endless), start(breaks), start(endless)
    with pytest.raises(Broken):
        gather(*handles)
    for handle in (handles[0], handles[2]):
        with pytest.raises(FlowletError):
            handle.result(timeout=LATE)
    assert [h.state for h in handles] == ["cancelled", "failed", "cancelled"]


async def test_agather_raises_the_first_failure_and_cancels_the_rest() -> None:
    """Coroutines are cancelled, handles too, and nothing is left un-awaited."""
    ended: list[str] = []

    async def endless() -> None:
        try:
            await anyio.sleep(60)
        finally:
            ended.append("endless")

    async def breaks() -> None:
        await anyio.lowlevel.checkpoint()
        raise Broken

    handle = start(endless)
    with pytest.raises(Broken):
        await agather(handle, endless(), breaks(), endless())
    with pytest.raises(FlowletError):
        await handle
    assert ended.count("endless") >= 2
    assert handle.state == "cancelled"


async def test_the_same_handle_may_be_gathered_twice() -> None:
    """A result can be fetched again and again."""
    handle = start(double, 2)
    assert await agather(handle, handle) == (4, 4)
    assert await agather(handle) == (4,)


def test_gather_of_what_is_no_handle_shows_what_is() -> None:
    """``gather`` takes handles of ``start``; a coroutine or value is refused by name."""
    for given in (3, double, plain(1)):
        with pytest.raises(DefinitionError, match=r"takes the handles that start\(\) returns, not"):
            gather(given)  # type: ignore[arg-type]


async def test_what_can_t_be_called_with_is_told_where_it_is_given() -> None:
    """Items that are none, and what can't be awaited, with the line that works; coroutines beside it are closed."""
    for given in (3, None, plain(1)):
        with pytest.raises(
            DefinitionError, match=r"pmap\(...\) takes a list of items.*not (int|NoneType|coroutine)"
        ):
            pmap(double, given)  # type: ignore[arg-type]
        with pytest.raises(DefinitionError, match=r"write:  apmap\(fn, \[...\]\)"):
            await apmap(double, given)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match=r"agather\(\) takes what can be awaited, not int 3"):
        await agather(plain(1), 3)  # type: ignore[arg-type]


async def _awaits_what_was_cancelled(number: int = 0) -> int:
    if number == 1:
        return number
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    await task
    return number


@pytest.mark.parametrize(
    "fan_out",
    [
        lambda: apmap(_awaits_what_was_cancelled, [1, 0, 1]),
        lambda: agather(_awaits_what_was_cancelled(), _awaits_what_was_cancelled(1)),
    ],
)
def test_a_call_that_ends_cancelled_by_itself_is_a_failure_and_no_none(fan_out: Any) -> None:
    """Nobody cancelled the fan-out: the call's own cancellation is raised, as ``await`` would."""

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await fan_out()
        with pytest.raises(asyncio.CancelledError):
            await arun(_in_a_run, fan_out)

    asyncio.run(main())


async def _in_a_run(fan_out: Any) -> Any:
    try:
        return await fan_out()
    except asyncio.CancelledError as exc:
        seen = exc
    raise seen


async def test_a_fan_out_whose_surroundings_are_cancelled_ends_cancelled() -> None:
    """A cancellation that somebody asked for stays one, and no item counts as failed."""
    with anyio.move_on_after(0.05) as limit:
        await apmap(anyio.sleep, [LATE, LATE])
        raise AssertionError("it went on")
    assert limit.cancelled_caught


def test_a_thread_that_waits_for_what_is_ending_has_lent_its_place() -> None:
    """While a failed fan-out waits for its busy jobs, the place of the waiting thread is free for others."""
    threads = process.of(Threads)
    seen: list[int] = []
    inside = threading.Event()

    def item(number: int) -> None:
        if number == 1:
            assert inside.wait(LATE)
            raise ValueError(number)
        with here_busy():
            inside.set()
            until(lambda: here().scope.reason is not None)
            time.sleep(0.05)  # by now the waiting thread waits for this one
            with contextlib.suppress(AssertionError):
                until(lambda: threads._runnable == 1, patience=2.0)
            seen.append(threads._runnable)

    with pytest.raises(ValueError, match="1"):
        start(lambda: pmap(item, [0, 1])).result(LATE)
    assert seen == [1]
