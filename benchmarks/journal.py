"""What a journal costs, as ratios: ``python benchmarks/journal.py [--quick]``.

The steps of DBOS and LangGraph are measured where these are installed, in turns with ours, each in a process of its
own: what others load makes a step half as slow again. Make an environment for that: ``pip install -e . dbos
langgraph langgraph-checkpoint-sqlite``. Every one of them keeps a finished step through a kill of the process: DBOS
by its default (a rollback journal), LangGraph with ``durability="sync"``, each step a node of its graph, since its own
default writes behind. "tuned" gives them the pragmas of our journal (WAL, synchronous=NORMAL), which they do not set
by themselves.

Files go to the directory for temporary files (``TMPDIR``), which should be on a disk.
"""

from __future__ import annotations

import gc
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from typing import TypedDict

from flowlet import run, step, with_options, workflow
from flowlet.entries import Entry
from flowlet.journals import SQLiteJournal

QUICK = "--quick" in sys.argv
ROUNDS = 3 if QUICK else 7
NORMAL = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL")

Count = Callable[[int], object]
"""Runs a workflow of so many steps, one after the other."""


def times(count: int) -> int:
    """Scale a count down for a quick look."""
    return max(1, count // 10) if QUICK else count


def seconds(call: Callable[[], object]) -> float:
    """How long *call* takes."""
    gc.collect()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def each(call: Callable[[int], object], count: int) -> float:
    """The median time of *count* calls, in microseconds."""
    found = list[float]()
    for number in range(count):
        began = time.perf_counter()
        call(number)
        found.append(time.perf_counter() - began)
    return statistics.median(found) * 1e6


def row(what: str, reached: str, limit: str) -> None:
    """Print a line of the table."""
    print(f"| {what} | {reached} | {limit} |", flush=True)


# --- the store ---------------------------------------------------------------------------------------


def entry(number: int) -> Entry:
    """What a trivial step leaves behind."""
    return Entry(
        "run",
        f"{number:032x}",
        "step",
        "inc",
        "completed",
        "",
        '{"x": 1}',
        "2",
        code="0" * 16,
        at=1e9,
        duration=1e-5,
    )


def store(place: Path) -> None:
    """An append, of one entry and of a hundred, and a read."""
    journal, count = SQLiteJournal(place / "store.db"), times(10_000)
    journal.append([Entry("run", "", "run", "count", "running", at=1e9)])
    with closing(sqlite3.connect(place / "bare.db", isolation_level=None)) as bare:
        for pragma in NORMAL:
            bare.execute(pragma)
        bare.execute("CREATE TABLE entries (number INTEGER PRIMARY KEY, body BLOB)")
        body = bytes(200)
        inserted = each(lambda n: bare.execute("INSERT INTO entries VALUES (?, ?)", (n, body)), count)
    one = each(lambda n: journal.append([entry(n)]), count)
    groups = [[entry(n) for n in range(g, g + 100)] for g in range(0, count, 100)]
    hundred = each(lambda n: journal.append(groups[n]), len(groups)) / 100
    row("append of one entry", f"{one:.0f} µs; a bare INSERT {inserted:.0f} µs", "60 µs")
    row("append of 100, each", f"{hundred:.1f} µs", "6 µs")
    read = seconds(lambda: journal.read("run")) / (1 + 2 * count)
    row("read, each entry", f"{read * 1e6:.1f} µs", "10 µs")
    journal.close()


# --- steps -------------------------------------------------------------------------------------------


@step
def inc(x: int) -> int:
    return x + 1


@workflow
def counted(steps: int) -> int:
    x = 0
    for _ in range(steps):
        x = inc(x)
    return x


@step
async def ainc(x: int) -> int:
    return x + 1


@workflow
async def acounted(steps: int) -> int:
    x = 0
    for _ in range(steps):
        x = await ainc(x)
    return x


def ours(place: Path) -> Count:
    """A workflow that is recorded."""
    recorded = with_options(counted, journal=str(place / "runs.db"))
    return lambda steps: run(recorded, steps)


def steps(place: Path) -> None:
    """What a recorded step costs over one that is not."""
    count = times(5000)
    trio = ["trio"] if find_spec("trio") else []
    for backend in ("", "asyncio", *trio):
        bare = with_options(acounted, backend=backend) if backend else counted
        kept = with_options(bare, journal=str(place / "runs.db"))
        run(kept, 100)
        found = [
            seconds(partial(run, kept, count)) - seconds(partial(run, bare, count)) for _ in range(ROUNDS)
        ]
        kind = f"a recorded {'async' if backend else 'sync'} step over one that is not"
        row(f"{kind}, {backend}".rstrip(", "), f"{statistics.median(found) / count * 1e6:.0f} µs", "150 µs")


def resumed(place: Path) -> None:
    """How long it takes to go on after 10,000 steps."""
    count, path = times(10_000), str(place / "resumed.db")

    @workflow
    def stops(steps: int, x: int = 0) -> int:
        for _ in range(steps):
            x = inc(x)
        if first:
            raise RuntimeError
        return x

    first, recorded = True, with_options(stops, journal=path, run_id="long")
    try:
        run(recorded, count)
    except RuntimeError:
        first = False
    row(f"resuming after {count:,} steps", f"{seconds(lambda: run(recorded, count)):.2f} s", "1 s")


# --- others ------------------------------------------------------------------------------------------


@contextmanager
def dbos(place: Path, tuned: bool) -> Generator[Count]:
    """DBOS, with its system database in SQLite."""
    from dbos import DBOS
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def tune(connection: sqlite3.Connection, _: object) -> None:
        for pragma in NORMAL if tuned else ():
            connection.execute(pragma)

    event.listen(Engine, "connect", tune)
    url = f"sqlite:///{place}/dbos-{tuned}.db"
    DBOS(
        config={"name": "bench", "system_database_url": url, "run_admin_server": False, "log_level": "ERROR"}
    )
    increase = DBOS.step()(lambda x: x + 1)

    @DBOS.workflow()
    def count(steps: int) -> int:
        x = 0
        for _ in range(steps):
            x = increase(x)
        return x

    DBOS.launch()
    try:
        yield count
    finally:
        DBOS.destroy(destroy_registry=True)
        event.remove(Engine, "connect", tune)


class State(TypedDict):
    """The state of LangGraph's graph."""

    x: int
    steps: int


@contextmanager
def langgraph(place: Path, tuned: bool) -> Generator[Count]:
    """LangGraph, with its SqliteSaver, which sets WAL itself."""
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.graph import END, START, StateGraph

    graph = StateGraph(State)
    graph.add_node("inc", lambda state: {"x": state["x"] + 1})
    graph.add_edge(START, "inc")
    graph.add_conditional_edges("inc", lambda state: "inc" if state["x"] < state["steps"] else END)
    with closing(sqlite3.connect(place / f"langgraph-{tuned}.db", check_same_thread=False)) as connection:
        for pragma in NORMAL if tuned else ():
            connection.execute(pragma)
        app, threads = graph.compile(checkpointer=SqliteSaver(connection)), iter(range(1000))

        def count(steps: int) -> object:
            config = {"configurable": {"thread_id": str(next(threads))}, "recursion_limit": steps + 5}
            return app.invoke({"x": 0, "steps": steps}, config, durability="sync")

        yield count


@contextmanager
def flowlet(place: Path, tuned: bool) -> Generator[Count]:
    """flowlet, whose journal sets its pragmas itself."""
    yield ours(place)


MAKERS: dict[str, Callable[[Path, bool], AbstractContextManager[Count]]] = {
    "flowlet": flowlet,
    "DBOS": dbos,
    "LangGraph": langgraph,
}


def serve(name: str, tuned: str, place: str) -> None:
    """Tell how long so many steps take, for each number that is asked for."""
    with MAKERS[name](Path(place), tuned == "True") as count:
        for line in sys.stdin:
            print(f"took {seconds(lambda: count(int(line)))}", flush=True)


@contextmanager
def served(name: str, tuned: bool, place: Path) -> Generator[Callable[[int], float]]:
    """One of the makers, in a process of its own, where nothing else takes its place in memory."""
    place.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "--serve", name, str(tuned), str(place)]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def took(steps: int) -> float:
            print(steps, file=asked, flush=True)
            while not (answer := answers.readline()).startswith("took "):
                assert answer, f"{name} has ended"
            return float(answer[5:])

        yield took
        asked.close()


def others(place: Path) -> None:
    """How many of our steps go into one of theirs, measured in turns."""
    count = times(2000)  # with its part of what comes once in thousands of steps
    for name, package in (("DBOS", "dbos"), ("LangGraph", "langgraph")):
        if find_spec(package) is None:
            row(f"a step of {name}", "not installed", "")
            continue
        for tuned in (False, True):
            with served("flowlet", tuned, place / "ours") as us, served(name, tuned, place / name) as them:
                us(count), them(count)
                pairs = [(them(count), us(count)) for _ in range(ROUNDS)]
            ratio = statistics.median(theirs / ours for theirs, ours in pairs)
            theirs, ours = (statistics.median(side) / count * 1e6 for side in zip(*pairs, strict=True))
            what = f"a step of {name}{', tuned' if tuned else ''}"
            row(what, f"{ratio:.0f} × ours ({theirs:.0f} µs, {ours:.0f} µs)", "" if tuned else "20 ×")


if __name__ == "__main__" and "--serve" in sys.argv:
    serve(*sys.argv[2:])
elif __name__ == "__main__":
    print("| what | reached | aim |\n|---|---|---|")
    with TemporaryDirectory(ignore_cleanup_errors=True) as found:
        for part in (store, steps, resumed, others):
            part(Path(found))
