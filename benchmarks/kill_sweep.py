"""Stop journalled runs at every write, resume them in another process, and count what was lost or done twice.

``python benchmarks/kill_sweep.py`` kills at each statement that changes the journal, after the last one, and
within each page that goes into its log; ``--points 100`` at as many of these, spread evenly. Beside them it kills
at random moments (``--random``), lets two processes at once resume a killed run (``--races``), and lets the disk
fail at each statement (``--faults``). Only runs that were stopped so count. Exit code 1 tells of a fault.

Each process is a fork, so a point takes some milliseconds. A killed process leaves a journal and a list of what
its steps did. Another resumes the run and goes on with the list. Then:

- what the journal had of finished steps did not run again, nor were recorded answers bought again;
- no more was bought than what was in flight;
- what a body had been given was in the journal;
- the result is that of a run which nobody killed;
- of two that resume at once one executes, and the other has the result or is told within a second;
- a fault of the disk is a ``JournalError``, and not recorded as an end of the run.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bad_disk import FAULTS, SUSPENDED, fail_at
from shapes import BACKENDS, SHAPES, execute
from sweeping import Plain, Tally, die, ended, raced, spawned, undisturbed, watch

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


# --- the sweep -----------------------------------------------------------------------------------


Pair = tuple[str, str]


def spread(points: list[Any], most: int | None) -> list[Any]:
    """At most *most* of *points*, spread evenly."""
    if most is None or most >= len(points):
        return points
    return [points[index * len(points) // most] for index in range(most)]


def kill_at_writes(plain: dict[Pair, Plain], most: int | None, tally: Tally) -> None:
    """Kill before, after and within every write."""
    points: list[tuple[str, Pair, Callable[[str, str, int], None], int]] = []
    for pair, told in plain.items():
        points += (("killed at statements", pair, at_statement, at) for at in range(1, told.statements + 2))
        points += (("killed within writes", pair, within_write, at) for at in told.offsets)
    for way, pair, killed, at in spread(points, most):
        tally.point(way, at, pair, plain[pair], lambda: ended(spawned(lambda: killed(*pair, at))))


def kill_at_random(plain: dict[Pair, Plain], count: int, dice: random.Random, tally: Tally) -> None:
    """Kill at *count* random moments."""
    for _ in range(20 * count):
        if tally.stopped["killed at random"] == count:
            break
        pair = dice.choice(list(plain))
        moment = dice.uniform(0.0, plain[pair].took)
        tally.point("killed at random", moment, pair, plain[pair], lambda: after(*pair, moment))


def after(shape: str, backend: str, seconds: float) -> int:
    """Run, and kill after *seconds*; the signal that ended it."""
    pid = spawned(lambda: execute(shape, backend))
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return ended(pid)


def race(plain: dict[Pair, Plain], count: int, dice: random.Random, tally: Tally) -> None:
    """Let two processes at once resume a run that was killed, *count* times."""
    for pair in itertools.islice(itertools.cycle(plain), count):
        at = dice.randint(1, plain[pair].statements)
        kill = partial(at_statement, *pair, at)
        tally.point("killed and resumed twice", at, pair, plain[pair], lambda: ended(spawned(kill)), raced)


def fail_at_writes(plain: dict[Pair, Plain], most: int | None, tally: Tally) -> None:
    """Let the disk fail at every write."""
    points = [
        (fault, pair, at)
        for fault, (pair, told) in itertools.product(FAULTS, plain.items())
        for at in range(1, told.statements + 1)
    ]
    for fault, pair, at in spread(points, most):
        fail = partial(fail_at, *pair, fault, at)
        tally.point(
            f"suspended by {fault}", at, pair, plain[pair], lambda: ended(spawned(fail)) == -SUSPENDED
        )


def main() -> int:
    """Sweep as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=None, help="at how many writes to kill (default: all)")
    parser.add_argument("--random", type=int, default=100, help="at how many random moments to kill")
    parser.add_argument("--races", type=int, default=100, help="how many killed runs two resume at once")
    parser.add_argument("--faults", type=int, default=None, help="at how many writes to fail (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.perf_counter()
    for _ in range(2):  # the second with all that is imported late
        plain = {pair: undisturbed(*pair) for pair in itertools.product(SHAPES, BACKENDS)}
    dice, tally = random.Random(given.seed), Tally()
    kill_at_writes(plain, given.points, tally)
    kill_at_random(plain, given.random, dice, tally)
    race(plain, given.races, dice, tally)
    fail_at_writes(plain, given.faults, tally)
    tally.tell(time.perf_counter() - began)
    return bool(tally.faults)


if __name__ == "__main__":
    sys.exit(main())
