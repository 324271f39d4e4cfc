"""Kill journalled runs at every write, resume them in another process, and count what was lost or done twice.

``python benchmarks/kill_sweep.py`` kills at every statement of every shape, on both backends; ``--points 100`` at
as many, spread evenly. Beside them it kills at random moments (``--random 100``). Exit code 1 tells of a fault.

Each process is a fork, so a point takes some milliseconds. A killed process leaves a journal and a list of what
its steps did. A second process resumes the run and goes on with the list. Then:

- what the journal had of finished steps did not run again, nor were recorded answers bought again;
- what a body had been given was in the journal;
- the result is that of a run which nobody killed.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from flowlet import (
    LLM,
    AsyncLLM,
    Completion,
    TokenUsage,
    configure,
    pmap,
    recorded,
    register_provider,
    run,
    step,
    with_options,
    workflow,
)
from flowlet.messages import Request

LIST = Path("did.txt")
JOURNAL = "runs.db"
BACKENDS = ("asyncio", "trio")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def did(what: str, *facts: object) -> None:
    """Add a line to the list of what happened, which survives a kill."""
    line = json.dumps([what, *facts]) + "\n"
    file = os.open(LIST, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


# --- what is run ---------------------------------------------------------------------------------


@step
def add(x: int) -> int:
    did("ran", "add", x)
    return x + 1


@step
def nested(x: int) -> int:
    did("ran", "nested", x)
    return got(add(x)) + got(add(x))


@step
async def double(x: int) -> int:
    did("ran", "double", x)
    await anyio.sleep(0)
    return x * 2


@step(attempts=3)
def flaky(x: int) -> int:
    did("ran", "flaky", x)
    if LIST.read_text().count('["ran", "flaky", ') % 2:
        raise OSError("try again")
    return x


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    did("ran", "ask", question)
    return llm.ask(question) + llm.ask(question)


@step
async def aask(question: str, llm: AsyncLLM = AsyncLLM()) -> str:
    did("ran", "aask", question)
    return await llm.ask(question)


def got(value: Any) -> Any:
    """Note that the body was given *value*."""
    did("got", value)
    return value


@workflow
async def sequence(x: int) -> int:
    for _ in range(4):
        x = got(await double(got(add(x))))
    return x


@workflow
def sync_body(x: int) -> int:
    for _ in range(3):
        x = got(add(got(add(x)))) + got(run(double, x))
    return x


@workflow
def fan_out(x: int) -> int:
    return sum(got(pmap(add, [x, x, x + 1, x + 2]))) + sum(got(pmap(double, [x, x, x + 3])))


@workflow
def child(x: int) -> int:
    return got(add(x)) + got(run(double, x))


@workflow
async def children(x: int) -> int:
    return got(child(x)) + got(child(x)) + await aparent(x)


@workflow
async def aparent(x: int) -> int:
    return got(await double(x)) + got(child(x + 1))


@workflow
def retries(x: int) -> int:
    return got(flaky(got(add(got(flaky(x))))))


@workflow
async def models(x: int) -> str:
    return got(ask(f"q{x}")) + got(await aask(f"q{x}")) + got(ask(f"q{x}"))


@workflow
def equal(x: int) -> int:
    def item(value: int) -> int:
        return got(add(value)) + got(nested(value)) + got(add(value)) + got(run(double, value))

    return sum(pmap(item, [x, x, x + 1, x], max_concurrency=3)) + got(nested(x))


SHAPES: dict[str, Any] = {
    "sequence": sequence,
    "sync body": sync_body,
    "pmap": fan_out,
    "child runs": children,
    "retries": retries,
    "models": models,
    "equal calls": equal,
}


class Seller:
    """A provider that notes what was bought."""

    live = False

    def complete(self, request: Request, /) -> Completion:
        """Answer at once."""
        question = request.messages[-1].content
        did("bought", question)
        return Completion(f"[{question}]", TokenUsage(1, 1, 2))


# --- processes -----------------------------------------------------------------------------------


def forked(work: Callable[[], object], killed_after: float | None = None) -> int:
    """Do *work* in a process of its own and wait for it; the signal that ended it, or 0."""
    pid = os.fork()
    if pid == 0:
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
    if killed_after is not None:
        time.sleep(killed_after)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def execute(shape: str, backend: str) -> None:
    """Run *shape*, or go on with it, and note its result."""
    register_provider("shop", Seller())
    configure(model="shop:m")
    body = with_options(SHAPES[shape], journal=JOURNAL, run_id="r", backend=backend)
    did("result", run(body, 1))


class Killer:
    """Ends the process before the n-th statement that changes the journal; without n it counts them."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.seen = 0
        connect = sqlite3.connect

        def watched(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection = connect(*args, **kwargs)
            connection.set_trace_callback(self)
            return connection

        sqlite3.connect = watched  # type: ignore[assignment]

    def __call__(self, statement: str) -> None:
        """Look at a statement that is about to be executed."""
        if statement.startswith(("INSERT", "UPDATE", "COMMIT", "BEGIN IMMEDIATE", "REPLACE")):
            self.seen += 1
            if self.seen == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


def statements(shape: str, backend: str) -> int:
    """How many statements a run that nobody kills has."""

    def work() -> None:
        killer = Killer()
        execute(shape, backend)
        did("statements", killer.seen)

    with folder():
        assert forked(work) == 0
        return int(facts("statements")[0][0])


class folder:  # noqa: N801 -- a context
    """A working directory of its own."""

    def __enter__(self) -> None:
        self._before = Path.cwd()
        self._made = tempfile.TemporaryDirectory(dir=MEMORY)
        os.chdir(self._made.name)

    def __exit__(self, *_: object) -> None:
        os.chdir(self._before)
        self._made.cleanup()


# --- what is checked -----------------------------------------------------------------------------


def facts(what: str) -> list[list[Any]]:
    """What the list says of *what*."""
    lines = LIST.read_text().splitlines() if LIST.exists() else []
    return [found[1:] for found in map(json.loads, lines) if found[0] == what]


def known() -> tuple[Counter[str], Counter[str], list[str]]:
    """The finished steps and the bought answers in the journal, and all values in it."""
    try:
        calls = recorded("r", JOURNAL).calls
    except Exception:  # noqa: BLE001 -- the first entry was not written yet
        return Counter(), Counter(), []
    done = [entry for entry in calls if entry.state == "completed"]
    steps = Counter(f"{e.name} {next(iter(json.loads(e.inputs).values()))}" for e in done if e.kind == "step")
    return steps, Counter(e.kind for e in done if e.kind == "call"), [e.value for e in done]


def check(
    shape: str, backend: str, expected: Any, needed: Counter[str], kill: Callable[[], int]
) -> list[str]:
    """Kill one run with *kill*, resume it, and tell what is wrong."""
    with folder():
        ended = kill()
        if ended == 0:
            return (
                [] if facts("result") == [[expected]] else ["a run that was not killed gave another result"]
            )
        status: list[Any] = []

        def look() -> None:
            steps, calls, values = known()
            did("known", steps, calls["call"], values)

        forked(look)
        steps, calls, values = facts("known")[0]
        before = LIST.read_text()
        if forked(lambda: execute(shape, backend)) != 0:
            return ["it could not be resumed"]
        after = [json.loads(line) for line in LIST.read_text()[len(before) :].splitlines()]
        return [*_faults(expected, needed, Counter(steps), calls, values, before, after), *status]


def _faults(
    expected: Any,
    needed: Counter[str],
    steps: Counter[str],
    calls: int,
    values: list[str],
    before: str,
    after: list[list[Any]],
) -> Iterator[str]:
    if [found[1] for found in after if found[0] == "result"] != [expected]:
        yield "the resumed run gave another result"
    again = Counter(f"{found[1]} {found[2]}" for found in after if found[0] == "ran")
    for name, count in again.items():
        if not name.startswith("flaky") and count > needed[name] - steps[name]:
            yield f"{name} ran {count} times, {steps[name]} of {needed[name]} were finished"
    bought = sum(found[0] == "bought" for found in after)
    if bought > needed["bought"] - calls:
        yield f"{bought} answers were bought, {calls} of {needed['bought']} were recorded"
    given = [json.loads(line)[1] for line in before.splitlines() if json.loads(line)[0] == "got"]
    kept = {json.dumps(json.loads(value)) for value in values}
    for value in given:
        parts = value if isinstance(value, list) else [value]
        if not all(json.dumps(part) in kept for part in parts):
            yield f"{value} was given to the body and is not in the journal"


def undisturbed(shape: str, backend: str) -> tuple[Any, Counter[str]]:
    """The result of a run that nobody kills, and how often each step ran in it."""

    def work() -> None:
        execute(shape, backend)
        recorded("r", JOURNAL)
        did("imported", *sys.modules)

    with folder():
        assert forked(work) == 0
        for name in facts("imported")[0]:  # here, so that the forks have it all
            with suppress(ImportError):
                importlib.import_module(name)
        needed = Counter(f"{name} {x}" for name, x in facts("ran"))
        needed["bought"] = len(facts("bought"))
        return facts("result")[0][0], needed


def spread(points: list[Any], most: int | None) -> list[Any]:
    """At most *most* of *points*, spread evenly."""
    if most is None or most >= len(points):
        return points
    return [points[index * len(points) // most] for index in range(most)]


def sweep(most: int | None, at_random: int, seed: int) -> tuple[int, list[str]]:
    """Kill everywhere; how many runs were killed, and all faults."""
    pairs = list(itertools.product(SHAPES, BACKENDS))
    plain = {pair: undisturbed(*pair) for pair in pairs}
    places = [(*pair, at) for pair in pairs for at in range(1, statements(*pair) + 2)]
    faults: list[str] = []
    done = 0
    for shape, backend, at in spread(places, most):

        def kill(shape: str = shape, backend: str = backend, at: int = at) -> int:
            return forked(lambda: (Killer(at), execute(shape, backend)))

        found = check(shape, backend, *plain[shape, backend], kill)
        faults += [f"{shape}, {backend}, statement {at}: {fault}" for fault in found]
        done += 1
    dice = random.Random(seed)
    for _ in range(at_random):
        shape, backend = dice.choice(pairs)
        moment = dice.uniform(0.0, 0.06)

        def kill_later(shape: str = shape, backend: str = backend, moment: float = moment) -> int:
            return forked(lambda: execute(shape, backend), moment)

        found = check(shape, backend, *plain[shape, backend], kill_later)
        faults += [f"{shape}, {backend}, after {moment * 1000:.2f} ms: {fault}" for fault in found]
        done += 1
    return done, faults


def main() -> int:
    """Sweep as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--points", type=int, default=None, help="how many statements to kill at (default: all)"
    )
    parser.add_argument("--random", type=int, default=100, help="how many random moments to kill at")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.perf_counter()
    done, faults = sweep(given.points, given.random, given.seed)
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{done} runs killed and resumed in {time.perf_counter() - began:.0f} s, {len(faults)} faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
