"""Kill journalled runs at every write, resume them in another process, and count what was lost or done twice.

``python benchmarks/kill_sweep.py`` kills at each statement that changes the journal, after the last one, and
within each page that goes into its log; ``--points 100`` at as many of these, spread evenly. Beside them it kills
at random moments (``--random``), and lets two processes at once resume a killed run (``--races``). Only
runs that a signal ended count. Exit code 1 tells of a fault.

Each process is a fork, so a point takes some milliseconds. A killed process leaves a journal and a list of what
its steps did. Another resumes the run and goes on with the list. Then:

- what the journal had of finished steps did not run again, nor were recorded answers bought again;
- no more was bought than what was in flight;
- what a body had been given was in the journal;
- the result is that of a run which nobody killed;
- of two that resume at once one executes, and the other has the result or is told within a second.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import random
import resource
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
from shapes import BACKENDS, JOURNAL, LIST, SHAPES, did, execute, facts, ran

from flowlet import JournalError, recorded

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
PAGE, FRAME, HEAD = 4096, 24, 32
"""Bytes of a page of SQLite, and of what its log has before each page and at its beginning."""
PROMPTLY = 1.0
"""Seconds within which the second of two that resume a run must know that it is the second."""
CHANGES = ("INSERT", "UPDATE", "DELETE", "COMMIT", "BEGIN IMMEDIATE", "CREATE", "PRAGMA journal_mode")


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


# --- ways to be killed ---------------------------------------------------------------------------


def at_statement(shape: str, backend: str, number: int) -> None:
    """Run, and die before statement *number*, or at the end of the run where there are fewer."""
    numbers = itertools.count(1)
    watch(lambda _: die() if next(numbers) == number else None)
    execute(shape, backend)
    die()


def within_write(shape: str, backend: str, offset: int) -> None:
    """Run, and die in the write to the log that would pass *offset*; what comes before it is written.

    The system does it: it cuts off the write that passes a process's limit, and kills with the next.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    limit = offset, resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def look(statement: str) -> None:  # the file is made, and what lies beside it
        if statement == "BEGIN IMMEDIATE":
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    watch(look)
    execute(shape, backend)


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
        yield from (place for part in (0, 9, FRAME, FRAME + 2001) if (place := frame + part) > least)


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


# --- the sweep -----------------------------------------------------------------------------------


@mutable
class Tally:
    """How many runs were killed, by the way of it, and what was found wrong."""

    killed: Counter[str] = field(factory=Counter[str])
    early: int = 0
    told: list[float] = field(factory=list[float])
    faults: list[str] = field(factory=list[str])

    def point(
        self,
        way: str,
        where: str,
        pair: tuple[str, str],
        plain: Plain,
        kill: Callable[[], int],
        resume: Resume = resumed,
    ) -> bool:
        """Kill one run with *kill*, and resume it; False when it had ended before."""
        with folder():
            found, faults = kill(), list[str]()
            if found > 0:
                self.killed[way] += 1
                faults += check(*pair, plain, resume)
                self.told += (took for (took,) in facts("told"))
            else:
                self.early += 1
                if found < 0 or facts("result") != [[plain.result]]:
                    faults.append("a run that was not killed failed, or gave another result")
        self.faults += (f"{', '.join(pair)}, {where}: {fault}" for fault in faults)
        return found > 0


def spread(points: list[Any], most: int | None) -> list[Any]:
    """At most *most* of *points*, spread evenly."""
    if most is None or most >= len(points):
        return points
    return [points[index * len(points) // most] for index in range(most)]


def after(shape: str, backend: str, seconds: float) -> int:
    """Run, and kill after *seconds*; the signal that ended it."""
    pid = spawned(lambda: execute(shape, backend))
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return ended(pid)


def sweep(most: int | None, at_random: int, races: int, seed: int) -> Tally:
    """Kill everywhere, then at random, then resume twice."""
    pairs = list(itertools.product(SHAPES, BACKENDS))
    plain = {pair: undisturbed(*pair) for pair in pairs}
    plain = {pair: undisturbed(*pair) for pair in pairs}  # again, with all that is imported late
    dice, tally = random.Random(seed), Tally()
    points: list[tuple[str, tuple[str, str], Callable[[str, str, int], None], int]] = []
    for pair, told in plain.items():
        points += (("at statements", pair, at_statement, at) for at in range(1, told.statements + 2))
        points += (("within writes", pair, within_write, at) for at in told.offsets)
    for way, pair, killed, at in spread(points, most):
        tally.point(way, f"{way} {at}", pair, plain[pair], lambda: ended(spawned(lambda: killed(*pair, at))))
    for _ in range(20 * at_random):
        if tally.killed["at random"] == at_random:
            break
        pair = dice.choice(pairs)
        moment = dice.uniform(0.0, plain[pair].took)
        where = f"after {moment * 1000:.2f} ms"
        tally.point("at random", where, pair, plain[pair], lambda: after(*pair, moment))
    for number in range(races):
        pair = pairs[number % len(pairs)]
        at = dice.randint(1, plain[pair].statements)
        kill = lambda: ended(spawned(lambda: at_statement(*pair, at)))  # noqa: E731
        tally.point("to be resumed twice", f"raced from statement {at}", pair, plain[pair], kill, raced)
    return tally


def main() -> int:
    """Sweep as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=None, help="at how many writes to kill (default: all)")
    parser.add_argument("--random", type=int, default=100, help="at how many random moments to kill")
    parser.add_argument("--races", type=int, default=100, help="how many killed runs two resume at once")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.perf_counter()
    tally = sweep(given.points, given.random, given.races, given.seed)
    print(*tally.faults, sep="\n", end="\n" if tally.faults else "")
    ways = ", ".join(f"{count} {way}" for way, count in tally.killed.items())
    told = (
        f" ({len(tally.told)} were told, after {max(tally.told) * 1000:.0f} ms at most)" if tally.told else ""
    )
    print(
        f"{tally.killed.total()} runs killed and resumed in {time.perf_counter() - began:.0f} s: {ways}{told}"
    )
    print(f"{tally.early} had ended before their kill; {len(tally.faults)} faults")
    return bool(tally.faults)


if __name__ == "__main__":
    sys.exit(main())
