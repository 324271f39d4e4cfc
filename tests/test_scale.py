"""Scale: many runs and threads at once share nothing that they should not, and leave nothing behind."""

import gc
import inspect
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path

import anyio
import pytest

from flowlet import (
    LLM,
    arun,
    configure,
    is_workflow,
    pmap,
    register_provider,
    run,
    runs,
    start,
    step,
    usage,
    with_options,
    workflow,
)
from flowlet._engine._bridge import Body
from flowlet._engine._loops import Port, running_loop
from flowlet._engine._threads import Threads
from flowlet._engine._watch import Watch
from flowlet.messages import Completion, Request
from flowlet.metrics import TokenUsage
from flowlet.settings import process
from rig import PATIENCE, until

SLOW = os.environ.get("FLOWLET_SLOW") == "1"
slow = pytest.mark.skipif(not SLOW, reason="takes a minute; FLOWLET_SLOW=1 runs it")
pytestmark = pytest.mark.filterwarnings("error")

canary: ContextVar[int] = ContextVar("canary", default=-1)


class Counting:
    """A provider whose answer is its question, at as many tokens as it says."""

    live = False
    name = "count"

    def complete(self, request: Request) -> Completion:
        tokens = int(request.messages[-1].content)
        return Completion(str(tokens), TokenUsage(tokens, 1, tokens + 1), model=request.model)


@step
def plus_one(x: int) -> int:
    assert canary.get() == x
    return x + 1


@step
async def aplus_one(x: int) -> int:
    await anyio.lowlevel.checkpoint()
    assert canary.get() == x - 1
    return x + 1


@step
def plus_two(x: int) -> int:
    return x + 2


@workflow
async def three_steps(x: int) -> int:
    canary.set(x)
    return plus_two(await aplus_one(plus_one(x))) - 4


@workflow
async def three_async_steps(x: int) -> int:
    canary.set(x - 1)
    for _ in range(3):
        assert await aplus_one(x) == x + 1
    return x


@workflow
def counted(x: int) -> int:
    canary.set(x)
    plus_one(x)
    tokens = int(LLM("count:m").ask(str(x)))
    assert canary.get() == x
    return tokens


@pytest.mark.parametrize("count", [1, 100, 1000])
def test_concurrent_background_runs(count, backend):
    """So many runs started at once each have their own result, context and figures."""
    configure(backend=backend)
    handles = [start(three_steps, x) for x in range(count)]
    assert [handle.result(60) for handle in handles] == list(range(count))
    assert {len(handle.metrics.steps) for handle in handles} == {3}


@pytest.mark.anyio
@pytest.mark.parametrize("count", [1, 100, 1000, pytest.param(10_000, marks=slow)])
async def test_concurrent_awaited_runs(count):
    """So many runs in one loop of the caller's each have their own result and context."""
    results: list[int] = []

    async def one(x: int) -> None:
        results.append(await arun(three_async_steps, x))

    async with anyio.create_task_group() as group:
        for x in range(count):
            group.start_soon(one, x)
    assert sorted(results) == list(range(count))


@slow
def test_ten_thousand_background_runs(backend):
    """10,000 runs started at once, with steps on threads, each have their own result."""
    configure(backend=backend)
    handles = [start(three_steps, x) for x in range(10_000)]
    assert [handle.result(300) for handle in handles] == list(range(10_000))


def run_in_threads(threads: int, each: int) -> list[BaseException]:
    """Run the counted workflow *each* times in so many threads of the user's at once."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(threads)

    def work(number: int) -> None:
        try:
            barrier.wait(PATIENCE * 4)
            for turn in range(each):
                x = number * each + turn
                assert run(counted, x) == x
        except BaseException as exc:
            failures.append(exc)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return failures


def test_200_threads_count_exactly():
    """200 threads that run sync workflows keep their contexts apart, and no token is lost."""
    register_provider("count", Counting())
    assert run_in_threads(200, 5) == []
    assert usage().calls == 1000
    assert usage().total_tokens == sum(range(1000)) + 1000


@pytest.fixture
def nervous() -> Iterator[None]:
    """Let the interpreter switch threads every microsecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_nervous_interpreter_loses_nothing(nervous, backend):
    """With a switch interval of 1 µs, threads, fan-outs and loops still count exactly."""
    configure(backend=backend)
    register_provider("count", Counting())
    assert run_in_threads(20, 10) == []

    @workflow
    def wide() -> int:
        return sum(pmap(counted, range(50), max_concurrency=20))

    assert run(wide) == sum(range(50))
    assert [start(three_steps, x).result(PATIENCE) for x in range(50)] == list(range(50))
    assert usage().calls == 250
    assert usage().total_tokens == sum(range(200)) + sum(range(50)) + 250
    until(lambda: process.of(Threads)._runnable == 0)


def test_a_nervous_fan_out_records_every_step(nervous):
    """Steps of one run on many threads each get a record of their own."""
    step_ = step(lambda_step)

    def body() -> None:
        pmap(step_, range(500), max_concurrency=20)

    handle = start(body)
    handle.result(PATIENCE)
    assert [s.index for s in handle.metrics.steps] == list(range(500))
    assert {s.state for s in handle.metrics.steps} == {"completed"}


def lambda_step(x: int) -> int:
    return x


# --- nothing is left behind --------------------------------------------------------------------------


def resident() -> int:
    """Resident memory in KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def left_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def round_of_runs(count: int) -> None:
    """Run workflows of every kind, *count* in all."""
    for x in range(count // 4):
        assert run(counted, x) == x
        assert run(three_steps, x) == x
        assert run(three_async_steps, x) == x
        assert start(counted, x).result(PATIENCE) == x


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=slow)])
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_many_runs_leave_nothing_behind(count, backend, monkeypatch):
    """After many runs of every kind, memory, threads and files are as they were after the first ones."""
    monkeypatch.setattr("flowlet._engine._ledger.NEWEST", 100)
    configure(backend=backend)
    register_provider("count", Counting())
    round_of_runs(1_200)  # the lists of recent runs are full now
    gc.collect()
    before = resident(), threading.active_count(), left_open(), len(gc.get_objects())
    round_of_runs(count)
    gc.collect()
    after = resident(), threading.active_count(), left_open(), len(gc.get_objects())
    assert after[0] - before[0] < 4096 + count * 0.1  # KiB: what glibc keeps, and 100 bytes a run
    assert after[1] <= before[1] + 1
    assert after[2] <= before[2]
    assert after[3] - before[3] < 500
    assert gc.garbage == []


def test_runs_are_freed_without_the_collector(backend):
    """Runs hold no cycles: with the collector off, their objects go with the last handle."""

    def one_of_each(x: int) -> None:
        assert run(small, x) == x + 2
        assert run(three_steps, x) == x
        assert run(three_async_steps, x) == x
        assert start(small, x).result(PATIENCE) == x + 2
        assert start(three_steps, x).result(PATIENCE) == x

    configure(backend=backend)
    for x in range(300):
        one_of_each(x)
    gc.collect()
    gc.disable()
    try:
        for x in range(100):
            one_of_each(x)
        assert gc.collect() < 100
    finally:
        gc.enable()


@workflow
def small(x: int) -> int:
    return plus_two(x)


# --- what is kept alive ------------------------------------------------------------------------------


class Big:
    """A result, or what a failing body holds."""


born: "list[weakref.ref[Big]]" = []


def big() -> Big:
    result = Big()
    born.append(weakref.ref(result))
    return result


def bad() -> None:
    held = big()
    raise ValueError(type(held).__name__)


async def abig() -> Big:
    return big()


async def abad() -> None:
    bad()


def in_thread(fn):
    run(fn)


def in_loop(fn):
    anyio.run(arun, fn)


def with_deadline(fn):
    run(with_options(fn, timeout=10))


def awaited_with_deadline(fn):
    anyio.run(arun, with_options(fn, timeout=10))


def plainly(fn):
    result = workflow(fn)()
    if inspect.iscoroutine(result):
        anyio.run(lambda: result)


def as_child(fn):
    child = fn if is_workflow(fn) else workflow(fn)
    if inspect.iscoroutinefunction(fn):

        async def abody():
            await child()

        run(abody)
    else:
        run(lambda: child() and None)


def as_child_with_deadline(fn):
    as_child(with_options(workflow(fn), timeout=10))


def as_started_child(fn):
    run(lambda: start(fn).result() and None)


def started(fn):
    start(fn).result(PATIENCE)


MODES = [
    in_thread, in_loop, with_deadline, awaited_with_deadline, plainly, as_child, as_child_with_deadline,
    as_started_child, started,
]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "fn"),
    [
        (mode, fn)
        for mode in MODES
        for fn in (big, abig, bad, abad)
        if mode not in (started, as_started_child)
        or fn in (big, abig)  # a fetched traceback holds its handle
    ],
)
def test_the_list_of_runs_keeps_no_outcome(mode, fn, backend):
    """What a run gave or raised went to its caller: the list keeps neither the result nor a traceback."""
    configure(backend=backend)
    born.clear()
    for _ in range(3):
        with suppress(ValueError):
            mode(fn)

    def freed() -> bool:
        gc.collect()
        return not any(ref() for ref in born)

    until(freed)  # a worker thread may still be on its way out
    assert len(born) == 3
    if fn in (bad, abad):
        assert runs()[0].metrics.error == "ValueError: Big"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_event_loops_are_freed(backend):
    """Loops that ran workflows, their ports and the greenlets of these go with the loops."""

    async def body() -> int:
        return step(lambda: 1)() + await step(abody)()

    async def abody() -> int:
        return 2

    async def main() -> None:
        loops.append(weakref.ref(running_loop()))
        assert await arun(body) == 3

    loops: list[weakref.ref[object]] = []
    gc.collect()
    before = _bodies()
    for _ in range(50):
        anyio.run(main, backend=backend)
    gc.collect()
    assert not any(loop() for loop in loops)
    assert _bodies() <= before + 1


def _bodies() -> int:
    return sum(isinstance(one, Body | Port) for one in gc.get_objects())


def test_cancelled_timers_are_dropped():
    """However many timers are cancelled, few are kept, also when the last one always counts."""
    watch = process.of(Watch)
    far = time.monotonic() + 1000
    last = watch.at(far, gc.collect)
    for n in range(5_000):
        before, last = last, watch.at(far + n, gc.collect)
        before.cancel()
        assert len(watch._timers) <= 1000
    last.cancel()


def test_threads_may_be_more_or_fewer_from_now_on():
    """``configure(max_threads=...)`` holds for what is begun after it, also when threads have worked before."""
    at_work: list[int] = []

    def work(n: int) -> int:
        at_work.append(n)
        time.sleep(0.02)
        width = len(at_work)
        at_work.remove(n)
        return width

    widths = []
    for limit in (1, 3):
        configure(max_threads=limit)
        widths.append(max([handle.result(PATIENCE) for handle in [start(work, n) for n in range(6)]]))
    assert widths == [1, 3]
