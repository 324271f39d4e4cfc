"""What flowlet costs, as ratios: ``python benchmarks/speed.py [--quick]``.

Every pair is measured interleaved, in one process where nothing else is said, and the median of the rounds
counts, so that a machine whose speed drifts changes both sides alike. The model calls go to the small server
of the tests.
"""

from __future__ import annotations

import gc
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from flowlet import LLM, AsyncLLM, arun, run, step, with_options, workflow

ROUNDS = 5
QUICK = "--quick" in sys.argv


def times(count: int) -> int:
    """Scale a count down for a quick look."""
    return max(1, count // 10) if QUICK else count


def seconds(call: Callable[[], object], count: int) -> float:
    """Seconds for one of *count* calls."""
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count


Clock = Callable[[], float]


async def aseconds(
    call: Callable[[], Awaitable[object]], count: int, clock: Clock = time.perf_counter
) -> float:
    """Seconds for one of *count* awaited calls."""
    began = clock()
    for _ in range(count):
        await call()
    return (clock() - began) / count


def median(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def row(what: str, reached: str, at_most: str) -> None:
    """Print a line of the table."""
    print(f"| {what} | {reached} | {at_most} |", flush=True)


def bare_inc(x: int) -> int:
    return x + 1


async def bare_ainc(x: int) -> int:
    return x + 1


inc = step(bare_inc)
ainc = step(bare_ainc)


# --- steps ---------------------------------------------------------------------------------------


@workflow
def sync_body(count: int) -> float:
    return seconds(lambda: inc(1), count) - seconds(lambda: bare_inc(1), count)


@workflow
async def async_body(count: int) -> float:
    return await aseconds(lambda: ainc(1), count) - await aseconds(lambda: bare_ainc(1), count)


@workflow
async def moved(count: int) -> float:
    """How a sync step in an async body compares with anyio's own way to a thread."""
    ours = seconds(lambda: inc(1), count)
    theirs = await aseconds(lambda: anyio.to_thread.run_sync(bare_inc, 1), count)
    return ours / theirs


def steps() -> None:
    count = times(20_000)
    run(sync_body, count)
    row("sync step in a sync body", f"{_us(median([run(sync_body, count) for _ in range(ROUNDS)]))}", "3 µs")
    run(async_body, count)
    row(
        "async step in an async body",
        f"{_us(median([run(async_body, count) for _ in range(ROUNDS)]))}",
        "4 µs",
    )
    for backend in ("asyncio", "trio"):
        on = with_options(moved, backend=backend)
        run(on, times(200))
        ratio = median([run(on, times(1000)) for _ in range(ROUNDS)])
        row(f"sync step in an async body, {backend}", f"{ratio:.2f} × to_thread.run_sync", "1.0 ×")


def _us(value: float) -> str:
    return f"{value * 1e6:.1f} µs"


# --- runs ----------------------------------------------------------------------------------------


@workflow
def one(x: int) -> int:
    return inc(x)


@workflow
async def aone(x: int) -> int:
    return await ainc(x)


Cores = set[int]


def pin(cores: Cores | None) -> None:
    """Keep this thread on *cores*."""
    if cores is not None:
        os.sched_setaffinity(0, cores)


pinned = with_options(workflow(pin), timeout=10)  # on the worker thread that the next run has, too


def thread_hop(cores: Cores | None) -> Callable[[], object]:
    """The barest way to have another thread do something and wait for it."""
    asked, answered = threading.Lock(), threading.Lock()
    asked.acquire()
    answered.acquire()

    def serve() -> None:
        pin(cores)
        while True:
            asked.acquire()
            bare_inc(1)
            answered.release()

    def hop() -> None:
        asked.release()
        answered.acquire()

    threading.Thread(target=serve, daemon=True).start()
    return hop


def runs() -> None:
    run(one, 1)
    plain = median([seconds(lambda: run(one, 1), times(2000)) for _ in range(ROUNDS)])
    row("run() of a one-step def workflow", _us(plain), "15 µs")
    limited_runs()
    for backend in ("asyncio", "trio"):
        on = with_options(aone, backend=backend)
        run(on, 1)
        ratios = [
            seconds(lambda: run(on, 1), times(500))
            / seconds(lambda: anyio.run(bare_ainc, 1, backend=backend), times(100))
            for _ in range(ROUNDS)
        ]
        row(f"run() of a one-step async workflow, {backend}", f"{median(ratios):.2f} × anyio.run", "1.5 ×")


def limited_runs() -> None:
    """What a timeout costs, which puts the body on another thread: where a system places two threads counts most.

    Where it is free to, each side has processes of its own, too: beside threads of ours Linux may keep the two of
    the bare hop on one core, where they take a quarter of what they take alone.
    """
    pairs = [(alone("limited"), alone("hop")) for _ in range(ROUNDS)]
    took, ratio = median([ours for ours, _ in pairs]), median([ours / theirs for ours, theirs in pairs])
    row(
        "the same with a timeout, each in its own process",
        f"{_us(took)}, {ratio:.2f} × a bare thread hop",
        "1.5 ×",
    )
    places: list[tuple[str, Cores | None, Cores | None]] = [("where the system puts the threads", None, None)]
    every = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    if every:
        places.append(("on one core", {min(every)}, {min(every)}))
    if len(every) > 1:
        places.append(("on two cores", {min(every)}, {max(every)}))
    for where, caller, worker in places:
        pin(caller)
        run(pinned, worker)
        took, ratio = over_a_hop(thread_hop(worker))
        row(f"the same with a timeout, {where}", f"{_us(took)}, {ratio:.2f} × a bare thread hop", "1.5 ×")
    if every:
        pin(every)
        run(pinned, every)


def alone(side: str) -> float:
    """Seconds for a run with a timeout (``limited``), or for a bare hop, in a process that does nothing else."""
    command = [sys.executable, __file__, "--alone", side, *(["--quick"] if QUICK else [])]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measured(side: str) -> float:
    """What :func:`alone` tells, in that process."""
    call = thread_hop(None) if side == "hop" else partial(run, with_options(one, timeout=10), 1)
    call()
    return median([seconds(call, times(500)) for _ in range(4 * ROUNDS)])


def over_a_hop(hop: Callable[[], object]) -> tuple[float, float]:
    limited = with_options(one, timeout=10)
    run(limited, 1), hop()
    pairs = [
        (seconds(lambda: run(limited, 1), times(500)), seconds(hop, times(500))) for _ in range(4 * ROUNDS)
    ]
    return median([ours for ours, _ in pairs]), median([ours / theirs for ours, theirs in pairs])


# --- many at once --------------------------------------------------------------------------------


@step
async def pausing(x: int) -> int:
    await anyio.sleep(0)
    return x


async def bare_pausing(x: int) -> int:
    await anyio.sleep(0)
    return x


@workflow
async def three(x: int) -> int:
    return await pausing(await pausing(await pausing(x)))


async def bare_three(x: int) -> int:
    return await bare_pausing(await bare_pausing(await bare_pausing(x)))


async def at_once(call: Callable[[], Awaitable[Any]], count: int, clock: Clock = time.perf_counter) -> float:
    """Seconds for each of *count* calls that go on at once."""
    began = clock()
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(call)
    return (clock() - began) / count


def ours() -> Awaitable[int]:
    return arun(three, 1)


def theirs() -> Awaitable[int]:
    return bare_three(1)


async def overhead() -> float:
    """How much more framework time a run costs among 100 than alone, one after the other.

    One thread does it all and waits for nothing, so its own time counts, and not what others do meanwhile.
    """
    changes: list[float] = []
    clock = time.thread_time
    for _ in range(ROUNDS):
        alone = among = 0.0
        for _ in range(times(20)):
            alone += await aseconds(ours, 100, clock) - await aseconds(theirs, 100, clock)
            among += await at_once(ours, 100, clock) - await at_once(theirs, 100, clock)
        changes.append(among / alone - 1)
    return median(changes)


async def ten_thousand() -> tuple[float, float]:
    """The time of many concurrent runs over that of bare tasks, and the memory of each, in KiB."""
    count = times(10_000)
    await at_once(ours, 100)
    ratios = [await alike(ours, count) / await alike(theirs, count) for _ in range(ROUNDS)]
    return median(ratios), await memory(ours, count) - await memory(theirs, count)


async def alike(call: Callable[[], Awaitable[Any]], count: int) -> float:
    """What :func:`at_once` tells, with a garbage collector that knows nothing of the side before."""
    gc.collect()
    return await at_once(call, count)


async def memory(call: Callable[[], Awaitable[Any]], count: int) -> float:
    """KiB that each of *count* calls holds while all of them go on."""
    gc.collect()
    tracemalloc.start()
    peak = 0

    async def watch() -> None:
        nonlocal peak
        peak = tracemalloc.get_traced_memory()[0]

    try:
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(call)
            await anyio.sleep(0)
            await anyio.sleep(0)
            await watch()
    finally:
        tracemalloc.stop()
    return peak / count / 1024


async def warmed() -> None:
    await at_once(ours, 200)
    await at_once(theirs, 200)


def many() -> None:
    for backend in ("asyncio", "trio"):
        anyio.run(warmed, backend=backend)
    gc.collect()
    gc.freeze()  # a full collection of all that is imported takes 25 ms, and hits either side by chance
    for backend in ("asyncio", "trio"):
        change = anyio.run(overhead, backend=backend)
        row(f"overhead of a run among 100 against alone, {backend}", f"{change:+.0%}", "+ 20 %")
    gc.unfreeze()  # the rows below have the heap that a program has
    for backend in ("asyncio", "trio"):
        ratio, kib = anyio.run(ten_thousand, backend=backend)
        row(
            f"10,000 runs at once, {backend}", f"{ratio:.1f} × bare tasks; {kib:.1f} KiB a run", "3 ×; 12 KiB"
        )


# --- models --------------------------------------------------------------------------------------


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    return llm.ask(question)


@step
async def aask(question: str, llm: AsyncLLM = AsyncLLM()) -> str:
    return await llm.ask(question)


def models() -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from server import Server

    with Server() as server:
        os.environ.update(
            OPENAI_API_KEY=server.key, OPENAI_BASE_URL=server.url, FLOWLET_MODEL="openai:gpt-5-mini"
        )
        row("a model call over the bare SDK's, sync", f"{_us(_sync_call())}", "+ 400 µs")
        for backend in ("asyncio", "trio"):
            row(
                f"a model call over the bare SDK's, {backend}",
                _us(anyio.run(_async_call, backend=backend)),
                "+ 400 µs",
            )
        ratio = anyio.run(_throughput)
        row("100 model calls at once, throughput", f"{ratio:.2f} × AsyncOpenAI", "0.9 ×")


MESSAGES: Any = [{"role": "user", "content": "tea"}]


def _sync_call() -> float:
    import openai

    @workflow
    def asked(count: int) -> float:
        return seconds(lambda: ask("tea"), count)

    with openai.OpenAI(max_retries=0) as client:

        def bare() -> object:
            return client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)

        run(asked, 20), seconds(bare, 20)
        return median([run(asked, times(200)) - seconds(bare, times(200)) for _ in range(ROUNDS)])


async def _async_call() -> float:
    import openai

    @workflow
    async def asked(count: int) -> float:
        return await aseconds(lambda: aask("tea"), count)

    async with openai.AsyncOpenAI(max_retries=0) as client:

        def bare() -> Awaitable[object]:
            return client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)

        await arun(asked, 20)
        await aseconds(bare, 20)
        return median(
            [await arun(asked, times(200)) - await aseconds(bare, times(200)) for _ in range(ROUNDS)]
        )


async def _throughput() -> float:
    import openai

    async with openai.AsyncOpenAI(max_retries=0) as client:

        def bare() -> Awaitable[object]:
            return client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)

        def asked() -> Awaitable[object]:
            return arun(aask, "tea")

        await at_once(asked, 100)
        await at_once(bare, 100)
        return median([await at_once(bare, 100) / await at_once(asked, 100) for _ in range(ROUNDS)])


# --- start ---------------------------------------------------------------------------------------

FLOWS = """
from flowlet import step, workflow


@step
def add(x: int) -> int:
    return x + 1


@workflow
def one(x: int) -> int:
    return add(x)
"""
BARE = """
from cyclopts import App

app = App()


@app.command
def run(x: int) -> None:
    '''Add one.'''
    print(x + 1)


app()
"""
FLOWLET = ("-c", "from flowlet.cli import program; program()")


def starts() -> None:
    """Whole processes, by their CPU time, which is steadier than the clock on the wall."""
    with TemporaryDirectory() as place:
        flows, bare = Path(place, "flows.py"), Path(place, "bare.py")
        flows.write_text(FLOWS)
        bare.write_text(BARE)
        cpu = partial(_cpu, Path(place, "compiled"))
        for line, limit in (
            ("import flowlet", "1.5 ×"),
            ("from flowlet import LLM, run, step, workflow", ""),
        ):
            ratio = _ratio(partial(cpu, "-c", line), partial(cpu, "-c", "import attrs, anyio"))
            row(f"`{line}`", f"{ratio:.2f} × `import attrs, anyio`", limit)
        for shown, ours, theirs in (
            ("--help", ("--help",), ("--help",)),
            ("run", ("run", f"{flows}:one", "x=1"), ("run", "1")),
        ):
            ratio = _ratio(partial(cpu, *FLOWLET, *ours), partial(cpu, str(bare), *theirs))
            row(f"`flowlet {shown}`", f"{ratio:.2f} × a bare cyclopts program", "1.5 ×")


def _ratio(ours: Callable[[], float], theirs: Callable[[], float]) -> float:
    for warm_up in (ours, theirs):
        warm_up()  # compiles what is imported, as an installation does
    return median([ours() / theirs() for _ in range(ROUNDS * 4)])


def _cpu(compiled: Path, *args: str) -> float:
    """CPU seconds of a Python process, user and system."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *args],
        env={**kept, "PYTHONPYCACHEPREFIX": str(compiled)},
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, median of {ROUNDS} rounds\n")
    print("| what | reached | at most |\n|---|---|---|")
    for part in (starts, steps, runs, many, models):
        part()


if __name__ == "__main__" and "--alone" in sys.argv:
    print(measured(sys.argv[sys.argv.index("--alone") + 1]))
elif __name__ == "__main__":
    main()
