"""Runs in processes of their own, stopped there, resumed in others, and compared with a run that nobody stopped."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import field, frozen, mutable
from shapes import JOURNAL, LIST, did, execute, facts, ran

from flowlet import JournalError, recorded
from flowlet.journals._opening import PAGE

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
FRAME, HEAD = 24, 32
"""Bytes of what SQLite's log has before each page, and at its beginning."""
PROMPTLY = 1.0
"""Seconds within which the second of two that resume a run must know that it is the second."""
OUTCOMES = ("completed", "failed", "cancelled", "timeout")
CHANGES = ("INSERT", "UPDATE", "DELETE", "COMMIT", "BEGIN IMMEDIATE", "CREATE", "PRAGMA journal_mode")
"""How statements begin that change the journal."""


# --- processes -----------------------------------------------------------------------------------


def spawned(work: Callable[[], object]) -> int:
    """Do *work* in a process of its own, whose id this is."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        work()
        code = 0
    except BaseException as exc:  # noqa: BLE001 -- told, and by the exit code
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a process; the signal that ended it, or else its exit code, negative."""
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def die() -> None:
    """End this process as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def folder() -> Generator[None]:
    """Work in a directory of its own."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        os.chdir(made)
        try:
            yield
        finally:
            os.chdir(before)


def watch(seen: Callable[[str], object]) -> None:
    """Let *seen* look at each statement that changes the journal, before it is executed."""
    connect = sqlite3.connect

    def look(statement: str) -> None:
        if statement.startswith(CHANGES):
            seen(statement)

    def watched(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(look)
        return connection

    sqlite3.connect = watched  # type: ignore[assignment]


# --- what a run does that nobody kills -----------------------------------------------------------


@frozen
class Plain:
    """A run that nobody killed: its result, how often each step ran and finished, and what it wrote."""

    result: Any
    ran: Counter[str]
    finished: Counter[str]
    bought: int
    statements: int
    offsets: Sequence[int]
    took: float


def undisturbed(shape: str, backend: str) -> Plain:
    """Run *shape* to its end."""

    def work() -> None:
        seen: list[str] = []
        watch(seen.append)
        began = time.perf_counter()
        execute(shape, backend)
        did("told", time.perf_counter() - began, len(seen), LIST.stat().st_size)
        did("known", *known())
        did("imported", *sys.modules)

    with folder():
        assert ended(spawned(work)) == 0
        for name in facts("imported")[0]:  # here, so that the forks have it all
            with suppress(ImportError):
                importlib.import_module(name)
        took, statements, listed = facts("told")[0]
        finished, result = Counter[str](facts("known")[0][0]), facts("result")[0][0]
        offsets = list(_offsets(Path(f"{JOURNAL}-wal").stat().st_size, listed))
        return Plain(result, ran(), finished, len(facts("bought")), statements, offsets, took)


def _offsets(size: int, least: int) -> Iterator[int]:
    """Places in the log: at a frame's beginning, in its head, at the page's beginning, and in the page.

    Below *least* the limit would hold for the list of what was done, too.
    """
    for frame in range(HEAD, size, FRAME + PAGE):
        yield from (place for part in (0, 9, FRAME, FRAME + 1001) if (place := frame + part) > least)


def known() -> tuple[Counter[str], int, list[str]]:
    """The finished steps, the number of bought answers, and all values in the journal."""
    try:
        calls = recorded("r", JOURNAL).calls
    except JournalError as exc:
        if "there is no run 'r'" not in str(exc):
            raise
        return Counter(), 0, []  # the first entry was not written yet
    done = [entry for entry in calls if entry.state == "completed"]
    steps = Counter(f"{e.name} {_asked(json.loads(e.inputs))}" for e in done if e.kind == "step")
    return steps, sum(e.kind == "call" for e in done), [e.value for e in done]


def _asked(inputs: dict[str, Any]) -> Any:
    return inputs["x"] if "x" in inputs else inputs["question"]


# --- what is checked -----------------------------------------------------------------------------


def resumed(shape: str, backend: str) -> Iterator[str]:
    """Let another process go on with the run; tell what went wrong."""
    if ended(spawned(lambda: execute(shape, backend))) != 0:
        yield "it could not be resumed"


def raced(shape: str, backend: str) -> Iterator[str]:
    """Let two processes go on with the run at the same moment; tell what went wrong."""
    reading, writing = os.pipe()
    before = len(LIST.read_text())

    def work() -> None:
        os.close(writing)
        os.read(reading, 1)  # both go when the pipe is closed
        began = time.perf_counter()
        try:
            execute(shape, backend)
        except JournalError as exc:
            if "is being executed by process" not in str(exc):
                raise
            did("told", time.perf_counter() - began)

    racers = [spawned(work), spawned(work)]
    os.close(reading)
    os.close(writing)
    if [ended(pid) for pid in racers] != [0, 0]:
        yield "one of two could not resume it"
    results, told = len(facts("result", before)), facts("told", before)
    if results + len(told) != 2 or not results:
        yield f"of two, {results} had the result, and {len(told)} were told"
    if any(took > PROMPTLY for (took,) in told):
        yield f"the second was told after {max(told)[0]:.2f} s"


Resume = Callable[[str, str], Iterator[str]]


def check(shape: str, backend: str, plain: Plain, resume: Resume) -> Iterator[str]:
    """Let *resume* go on with a run that was killed here; tell what is wrong."""
    if ended(spawned(lambda: did("known", *known()))) != 0:
        yield "its journal could not be read"
        return
    steps, calls, values = facts("known")[0]
    before = len(LIST.read_text())
    yield from resume(shape, backend)
    yield from _faults(plain, Counter(steps), calls, before)
    kept = {json.dumps(json.loads(value)) for value in values}
    for given in facts("got")[: -len(facts("got", before)) or None]:
        parts = given[0] if isinstance(given[0], list) else given
        if not all(json.dumps(part) in kept for part in parts):
            yield f"{given[0]} was given to the body and is not in the journal"


def _faults(plain: Plain, steps: Counter[str], calls: int, before: int) -> Iterator[str]:
    results = facts("result", before)
    if not results or any(result != [plain.result] for result in results):
        yield f"the resumed run gave {results}, not {plain.result}"
    for name, count in ran(before).items():
        left = plain.finished[name] - steps[name]
        if count > (3 * left if name.startswith("flaky") else left):
            yield f"{name} ran {count} times, {steps[name]} of {plain.finished[name]} were finished"
    bought = len(facts("bought", before))
    if bought > plain.bought - calls:
        yield f"{bought} answers were bought, {calls} of {plain.bought} were recorded"
    if len(facts("bought")) > plain.bought + 1:
        yield f"{len(facts('bought'))} answers were bought in all, though {plain.bought} were needed"


# --- what is told ------------------------------------------------------------------------------


@mutable
class Tally:
    """How many runs were stopped, by the way of it, and what was found wrong."""

    stopped: Counter[str] = field(factory=Counter[str])
    early: int = 0
    told: list[float] = field(factory=list[float])
    faults: list[str] = field(factory=list[str])

    def point(
        self,
        way: str,
        at: float,
        pair: tuple[str, str],
        plain: Plain,
        stop: Callable[[], int],
        resume: Resume = resumed,
    ) -> None:
        """Stop one run with *stop*, which tells by a positive number that it did, and resume it."""
        with folder():
            found, faults = stop(), list[str]()
            if found > 0:
                self.stopped[way] += 1
                faults += check(*pair, plain, resume)
                self.told += (took for (took,) in facts("told"))
            else:
                self.early += 1
                if found < 0 or facts("result") != [[plain.result]]:
                    faults.append("a run that was not stopped failed, or gave another result")
            faults += (f"it is recorded as {state}" for (state,) in facts("state") if state in OUTCOMES)
        self.faults += (f"{', '.join(pair)}, {way}, {at:g}: {fault}" for fault in faults)

    def tell(self, took: float) -> None:
        """Print it all."""
        print(*self.faults, sep="\n", end="\n" if self.faults else "")
        print(f"{self.stopped.total()} runs stopped and resumed in {took:.0f} s, {len(self.faults)} faults")
        for way, count in self.stopped.items():
            print(f"{count:6} {way}")
        print(f"{self.early:6} ended before they could be stopped, which do not count")
        if self.told:
            print(f"{len(self.told):6} were told that they came second, after {max(self.told):.3f} s at most")
