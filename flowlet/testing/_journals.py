"""What every journal must keep to, checked from outside: ``check_journal(MyJournal)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from attrs import evolve

from ..entries import Entry, JournalledRun
from ..errors import JournalError
from ..protocols import Journal, NowaitJournal

__all__ = ["check_journal"]

_HOSTILE = (
    "",
    "\0",
    "\ud800",
    "\udfff\ud800",
    "\ud83d\ude00",
    "😀",
    "é",
    "'; --",
    "\\u0000",
    "\r\n",
    "x" * 70_000,
)
_THREADS = 8


def check_journal(make: Callable[[], Journal]) -> None:
    """Check that the journals that *make* makes keep to the protocol.

    Each call of *make* gives one that is empty. Whether it outlives its process can't be checked from inside.

    Raises:
        AssertionError: they do not; every fault is told.
    """
    faults = dict.fromkeys(fault for check in _CHECKS for fault in _tried(check, make))
    if faults:
        raise AssertionError("\n  ".join(("this journal does not keep to the protocol:", *faults)))


def _tried(check: Callable[[Journal], Iterator[str]], make: Callable[[], Journal]) -> Iterator[str]:
    journal = make()
    try:
        yield from check(journal)
    except Exception as exc:  # noqa: BLE001 -- told as a fault
        yield f"{check.__name__[1:]}: it raised {type(exc).__name__}: {exc}"
    finally:
        journal.close()


def _unless(right: bool, what: str, found: object, expected: object) -> Iterator[str]:
    if not right:
        yield f"{what}: found {_short(found)}, expected {_short(expected)}"


def _equal(what: str, found: object, expected: object) -> Iterator[str]:
    yield from _unless(found == expected, what, found, expected)


def _short(value: object) -> str:
    shown = ascii(value)
    return shown if len(shown) < 200 else f"{shown[:150]}… ({len(shown)} characters)"


def _same(what: str, found: Sequence[Entry], expected: Sequence[Entry]) -> Iterator[str]:
    yield from _equal(what, list(found), list(expected))


def _run(run_id: str = "tea-1", at: float = 1.0, **changes: Any) -> Entry:
    return evolve(Entry(run_id, "", "run", "talk", "running", at=at), **changes)


def _step(run_id: str = "tea-1", key: str = "a") -> Entry:
    return Entry(run_id, key, "step", "write", "completed", inputs="{}", value='"tea"', at=2.0)


def _unknown(journal: Journal) -> Iterator[str]:
    yield from _same("read of a run that is not known", journal.read("tea-1"), [])
    yield from _equal("runs of an empty journal", list(journal.runs()), [])
    yield from _equal("kept of a key that is not known", journal.kept("key", 0.0), None)
    journal.release("tea-1")
    journal.forget(["tea-1"])


def _order(journal: Journal) -> Iterator[str]:
    first = [_run(), _step(key="b"), _step(key="a")]
    second = [_step(key="b"), _run(state="completed", at=3.0)]
    journal.append(first)
    journal.append(second)
    journal.append([])
    yield from _same("read, after two appends", journal.read("tea-1"), first + second)


def _groups(journal: Journal) -> Iterator[str]:
    journal.append([_run("a"), _run("b"), _step("a"), _step("b"), _step("a", "c")])
    yield from _same("read, of one of two in a group", journal.read("b"), [_run("b"), _step("b")])
    yield from _equal(
        "entries of the runs", {run.run_id: run.entries for run in journal.runs()}, {"a": 3, "b": 2}
    )


def _all_or_nothing(journal: Journal) -> Iterator[str]:
    ended = _run("a", state="completed")
    for whose, group in (("a step", [_step()]), ("a step", [_run("a"), _step("b")]), ("an end", [ended])):
        error: object = None
        try:
            journal.append(group)
        except Exception as exc:  # noqa: BLE001 -- told as a fault
            error = exc
        found, what = type(error).__name__, f"append of {whose} whose run is not known"
        yield from _unless(isinstance(error, JournalError), what, found, "a JournalError")
    yield from _same("read, after a group that failed", journal.read("a"), [])
    yield from _equal("runs, after a group that failed", list(journal.runs()), [])


def _nowait(journal: Journal) -> Iterator[str]:
    if not isinstance(journal, NowaitJournal):
        return
    journal.append([_run()])
    entries = [_step(key="b"), _step(key="a")]
    added = journal.append_nowait(entries)
    yield from _same(
        f"read, after append_nowait gave {added}",
        journal.read("tea-1"),
        [_run(), *entries] if added else [_run()],
    )
    with suppress(JournalError):
        added = journal.append_nowait([_run("a"), _step("b")])
        yield from _equal("append_nowait of a step whose run is not known", added, False)
    yield from _same("read, after an append_nowait that failed", journal.read("a"), [])
    before = journal.read("tea-1")
    journal.tidy()
    yield from _same("read, after tidy", journal.read("tea-1"), before)


def _hostile(journal: Journal) -> Iterator[str]:
    for text in _HOSTILE:
        entries = [
            Entry(text, "", "run", text, "running"),
            Entry(
                text,
                f"k{text}",
                "step",
                text,
                "failed",
                text,
                text,
                text,
                text,
                text,
                1e300,
                2.0**-1074,
                2**63,
                text,
            ),
        ]
        journal.append(entries)
        yield from _same(f"read of hostile text {_short(text)}", journal.read(text), entries)
        journal.keep(text, text, None)
        yield from _equal(f"kept hostile text {_short(text)}", journal.kept(text, 0.0), text)
    yield from _equal("runs of hostile names", {run.run_id for run in journal.runs()}, set(_HOSTILE))


def _listed(journal: Journal) -> Iterator[str]:
    journal.append([_run("a", at=5.0)])
    journal.append([_run("b", at=4.0), _step("b")])
    journal.append([_run("a", at=7.0, name="speech", state="failed", error="oh")])
    listed = [
        JournalledRun("b", "talk", "running", 4.0, None, 2),
        JournalledRun("a", "speech", "failed", 5.0, 7.0, 2),
    ]
    yield from _equal("runs, the one made last first, whatever the clock says", list(journal.runs()), listed)
    journal.append([_run("a", at=9.0)])
    again = JournalledRun("a", "talk", "running", 5.0, None, 3)
    yield from _equal("runs, when one goes on", list(journal.runs())[1:], [again])
    yield from _equal("run, by its id", journal.run("a"), again)
    yield from _equal("run of an id that is not known", journal.run("c"), None)


def _claimed(journal: Journal) -> Iterator[str]:
    journal.append([_run("a"), _run("b")])
    yield from _equal("claim of a run", journal.claim("a"), None)
    yield from _equal("claim of another", journal.claim("b"), None)
    yield from _equal("claim of a run that is not known", journal.claim("c"), None)
    for _ in range(2):
        owner = journal.claim("a")
        yield from _unless(
            isinstance(owner, str) and bool(owner), "claim of one that is taken", owner, "who has it"
        )
    owners = {run.run_id: run.owner for run in journal.runs()}
    yield from _unless(
        all(owners.values()) and len(owners) == 2, "owners of claimed runs", owners, "who has each"
    )
    found = journal.run("a")
    yield from _equal("owner of one claimed run", found and found.owner, owners.get("a"))
    journal.release("a")
    journal.release("a")
    yield from _equal("owner of a released run", [r.owner for r in journal.runs() if r.run_id == "a"], [None])
    yield from _equal("claim of a released run", journal.claim("a"), None)
    for run_id in "abc":
        journal.release(run_id)


def _forgotten(journal: Journal) -> Iterator[str]:
    journal.append([_run("a"), _step("a"), _run("b"), _run("c")])
    journal.forget(["a", "c", "never"])
    yield from _same("read of a forgotten run", journal.read("a"), [])
    yield from _equal("run of one that was forgotten", journal.run("a"), None)
    yield from _equal("runs, after forgetting some", [run.run_id for run in journal.runs()], ["b"])
    journal.append([_run("a")])
    yield from _same("read of a run that was forgotten and begun anew", journal.read("a"), [_run("a")])
    yield from _equal("runs, with that one", [run.run_id for run in journal.runs()], ["a", "b"])


def _cached(journal: Journal) -> Iterator[str]:
    journal.keep("key", "old", None)
    journal.keep("key", "new", 10.0)
    yield from _equal("kept, before it expires", journal.kept("key", 9.5), "new")
    yield from _equal("kept, when it expires", journal.kept("key", 10.0), None)
    journal.keep("key", "", None)
    yield from _equal("kept for good", journal.kept("key", 1e300), "")
    journal.keep("short", "lived", 10.0)
    journal.expire(9.5)
    yield from _equal("kept, after expire before its time", journal.kept("short", 0.0), "lived")
    journal.expire(10.0)
    yield from _equal("kept, after expire at its time", journal.kept("short", 0.0), None)
    yield from _equal("kept for good, after expire", journal.kept("key", 0.0), "")


def _closed(journal: Journal) -> Iterator[str]:
    journal.append([_run()])
    journal.claim("tea-1")
    journal.close()
    journal.close()
    journal.append([_step()])
    yield from _same("read, after close", journal.read("tea-1"), [_run(), _step()])
    owner = journal.claim("tea-1")
    yield from _unless(
        owner is not None, "claim, after close of one that was not released", owner, "who has it"
    )
    journal.release("tea-1")


def _threads(journal: Journal) -> Iterator[str]:
    def work(name: str) -> list[Entry]:
        entries = [_run(name), *(_step(name, str(number)) for number in range(20))]
        for entry in entries:
            journal.append([entry])
            journal.runs()
        return [] if list(journal.read(name)) == entries else [_run(name)]

    with ThreadPoolExecutor(_THREADS) as pool:
        lost = [run for runs in pool.map(work, map(str, range(_THREADS))) for run in runs]
        yield from _equal("runs that lost entries, written by several threads at once", lost, [])
        claims = list(pool.map(journal.claim, ["x"] * _THREADS))
        yield from _equal("claims that won, of several threads at once", claims.count(None), 1)
    journal.release("x")


_CHECKS = (
    _unknown,
    _order,
    _groups,
    _all_or_nothing,
    _nowait,
    _hostile,
    _listed,
    _claimed,
    _forgotten,
    _cached,
    _closed,
    _threads,
)
