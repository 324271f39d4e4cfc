"""Event loops write to a journal themselves where that takes no time; else a thread does, and the loop goes on."""

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowlet import JournalError, apmap, arun, recorded, run, step, with_options, workflow
from flowlet._engine import _writer
from flowlet.entries import Entry
from flowlet.journals import MemoryJournal, SQLiteJournal, _file
from peer import Peer, begun, made

pytestmark = pytest.mark.anyio

LONG = 8100
"""More entries than pages that a log may have."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "runs.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SQLiteJournal]:
    """A journal of one run, whose file is open."""
    journal = SQLiteJournal(path)
    journal.append([begun()])
    yield journal
    journal.close()


class Watched(MemoryJournal):
    """Notes who appends how many, and how; *quick* says whether a loop may."""

    def __init__(self, *, quick: bool = True, took: float = 0.0) -> None:
        super().__init__()
        self.quick, self.took = quick, took
        self.asked: list[tuple[str, str, int]] = []
        self.tidied: list[str] = []

    def append(self, entries: Sequence[Entry], /) -> None:
        self._note("append", entries)
        time.sleep(self.took)
        super().append(entries)

    def append_nowait(self, entries: Sequence[Entry], /) -> bool:
        self._note("append_nowait", entries)
        if self.quick:
            super().append(entries)
        return self.quick

    def tidy(self) -> None:
        self.tidied.append(threading.current_thread().name)

    def _note(self, how: str, entries: Sequence[Entry]) -> None:
        steps = sum(entry.kind == "step" for entry in entries)
        if steps:
            self.asked.append((how, threading.current_thread().name, steps))


class Plain:
    """A journal as the protocol has it, and no more."""

    def __init__(self) -> None:
        self._inner = MemoryJournal()
        for name in ("read", "runs", "run", "claim", "release", "forget", "kept", "keep", "expire", "close"):
            setattr(self, name, getattr(self._inner, name))
        self.threads = list[str]()

    def append(self, entries: Sequence[Entry], /) -> None:
        self.threads.append(threading.current_thread().name)
        self._inner.append(entries)


@step
async def inc(x: int) -> int:
    return x + 1


@workflow
async def three(x: int) -> int:
    return await inc(await inc(await inc(x)))


@workflow
async def wide(count: int) -> list[int]:
    return await apmap(inc, range(count), max_concurrency=count)


async def test_a_loop_writes_itself() -> None:
    """Without a switch of threads, where the journal says that it can."""
    journal, here = Watched(), threading.current_thread().name
    assert await arun(with_options(three, journal=journal), 1) == 4
    assert journal.asked == [("append_nowait", here, 1)] * 3


async def test_what_comes_in_one_turn_of_a_loop_is_one_group() -> None:
    """Fifty tasks cost a few transactions, not fifty."""
    journal = Watched()
    assert await arun(with_options(wide, journal=journal), 50) == list(range(1, 51))
    assert sum(steps for *_, steps in journal.asked) == 50
    assert len(journal.asked) < 5


async def test_a_journal_that_would_wait_is_written_by_a_thread() -> None:
    """And the loop goes on meanwhile."""
    journal, beats = Watched(quick=False, took=0.1), 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await anyio.sleep(0.005)
            beats += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        assert await arun(with_options(three, journal=journal), 1) == 4
        tasks.cancel_scope.cancel()
    assert journal.asked[0] == ("append_nowait", threading.current_thread().name, 1)
    assert [who for how, who, _ in journal.asked if how == "append"] == ["flowlet journal"] * 3
    assert beats > 20


async def test_a_journal_of_the_plain_protocol_is_written_by_a_thread() -> None:
    """It may block."""
    journal, here = Plain(), threading.current_thread().name
    assert await arun(with_options(three, journal=journal), 1) == 4
    assert journal.threads
    assert here not in journal.threads


async def test_what_a_wrapper_changes_is_not_passed_by() -> None:
    """Be it a subclass or a class around a journal: both know ``append``, and not ``append_nowait``."""

    class Masking(MemoryJournal):
        def append(self, entries: Sequence[Entry], /) -> None:
            masked.extend(entries)
            super().append(entries)

    class Around:
        def __init__(self) -> None:
            self._inner = MemoryJournal()

        def append(self, entries: Sequence[Entry], /) -> None:
            masked.extend(entries)
            self._inner.append(entries)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    for journal in Masking(), Around():
        masked = list[Entry]()
        await arun(with_options(three, journal=journal), 1)  # type: ignore[arg-type]
        assert sum(entry.kind == "step" for entry in masked) == 3


async def test_a_loop_does_not_wait_for_threads_that_write() -> None:
    """However many of them follow one another."""
    journal, longest, ended = Watched(took=0.03), 0.0, threading.Event()

    @step
    def slow(x: int) -> int:
        return x

    @workflow
    def many() -> None:
        while not ended.is_set():
            slow(1)

    async def beat() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await anyio.sleep(0.002)
            longest = max(longest, time.perf_counter() - began)

    threads = [threading.Thread(target=run, args=(with_options(many, journal=journal),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(beat)
            for _ in range(3):
                await arun(with_options(three, journal=journal), 1)
            tasks.cancel_scope.cancel()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert longest < 0.5


async def test_a_step_that_is_cancelled_as_it_ends_is_recorded(path: Path) -> None:
    """Its result is there, so it is not made again."""
    made = list[int]()

    @step
    async def cancelling(x: int) -> int:
        made.append(x)
        if len(made) == 1:
            scope.cancel()
        return x

    @workflow
    async def talk() -> int:
        return await cancelling(await cancelling(1))

    kept = with_options(talk, journal=path, run_id="tea-1")
    with anyio.CancelScope() as scope:
        await arun(kept)
    assert [call.state for call in recorded("tea-1", path).calls] == ["completed"]
    assert await arun(kept) == 1
    assert made == [1, 1], "each call once: the first before, the second after"


async def test_a_fault_at_a_loops_own_write_suspends_the_run() -> None:
    """As at any other write."""

    class Full(Watched):
        def append_nowait(self, entries: Sequence[Entry], /) -> bool:
            raise JournalError("the disk is full")

    with pytest.raises(JournalError, match="the disk is full; then resume run"):
        await arun(with_options(three, journal=Full()), 1)


async def test_a_journal_is_tidied_by_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then, after entries of loops and of threads."""
    monkeypatch.setattr(_writer, "UNTIDY", 10)
    journal = Watched()
    await arun(with_options(wide, journal=journal), 25)
    with anyio.fail_after(5):
        while not journal.tidied:
            await anyio.sleep(0.001)
    assert set(journal.tidied) == {"flowlet journal"}


def test_a_journal_that_threads_alone_write_to_is_not_tidied(monkeypatch: pytest.MonkeyPatch) -> None:
    """They put nothing off."""
    monkeypatch.setattr(_writer, "UNTIDY", 10)
    journal = Watched(quick=False)
    for _ in range(2):  # one thread writes and tidies: what it did after the first is told after the second
        run(with_options(wide, journal=journal), 25)
    assert {thread for how, thread, _ in journal.asked if how == "append"} == {"flowlet journal"}
    assert not journal.tidied


# --- SQLite ----------------------------------------------------------------------------------------


def test_sqlite_appends_at_once(journal: SQLiteJournal) -> None:
    """Where nobody else is at the file."""
    assert journal.append_nowait([made("a")])
    assert journal.read("tea-1") == (begun(), made("a"))


def test_sqlite_does_not_open_a_file_in_a_loop(path: Path) -> None:
    """That takes a hundred times as long."""
    journal = SQLiteJournal(path)
    assert not journal.append_nowait([begun()])
    assert not path.exists()


def test_sqlite_does_not_write_what_is_large_in_a_loop(journal: SQLiteJournal) -> None:
    """A thread takes its time for it."""
    large = Entry("tea-1", "b", "step", "write", "completed", value="x" * 100_000)
    assert not journal.append_nowait([made("a"), large])
    assert journal.read("tea-1") == (begun(),)


def test_sqlite_does_not_wait_for_a_thread(journal: SQLiteJournal) -> None:
    """One that reads, for example."""
    reading, go_on = threading.Event(), threading.Event()

    def look(_: object) -> None:
        reading.set()
        go_on.wait()

    reader = threading.Thread(target=journal._file.read, args=(look,))
    reader.start()
    reading.wait()
    assert not journal.append_nowait([made("a")])
    go_on.set()
    reader.join()
    assert journal.append_nowait([made("a")])


def test_sqlite_does_not_wait_for_another_process(journal: SQLiteJournal, path: Path) -> None:
    """A lock that it holds for a moment is nothing to open the file again for."""
    code = """
        import sqlite3
        db = sqlite3.connect(sys.argv[1], isolation_level=None)
        db.execute("BEGIN IMMEDIATE"), say("locked"), heard()
        """
    with Peer(path, code) as peer:
        assert peer.line() == "locked"
        open_file = journal._file._db
        began = time.perf_counter()
        assert not journal.append_nowait([made("a")])
        assert time.perf_counter() - began < 1
        assert journal._file._db is open_file
    assert journal.append_nowait([made("a")])
    journal.append([made("b")])
    assert journal.read("tea-1") == (begun(), made("a"), made("b"))


def test_sqlite_does_not_open_a_file_anew_in_a_loop(journal: SQLiteJournal, path: Path) -> None:
    """A thread tells what has become of it."""
    assert journal.append_nowait([made("a")])
    shutil.rmtree(path.parent)
    assert not journal.append_nowait([made("b")])
    with pytest.raises(JournalError, match="it has vanished; put it back"):
        journal.append([made("b")])


def entries_in(path: Path, tmp_path: Path) -> int:
    """How many entries a journal has without its log."""
    copy = shutil.copy(path, tmp_path / "copy.db")
    with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as db:
        (count,) = db.execute("SELECT COUNT(*) FROM entries").fetchone()
    return int(count)


def log_of(path: Path) -> int:
    """How many pages the log of a journal has."""
    with closing(sqlite3.connect(path)) as db:
        _, pages, _ = db.execute("PRAGMA wal_checkpoint").fetchone()
    return int(pages)


def test_a_loop_does_not_write_the_log_back(
    journal: SQLiteJournal, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That waits for the disk; the next thread that writes does it."""
    monkeypatch.setattr(_file, "_UNSEEN", LONG)
    for number in range(LONG):
        assert journal.append_nowait([made(str(number))])
    assert entries_in(path, tmp_path) == 0
    journal.append([made("last")])
    assert entries_in(path, tmp_path) == LONG + 2


def test_a_loop_leaves_a_log_that_may_be_long_to_a_thread(
    journal: SQLiteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it does not grow without end where nobody tidies."""
    monkeypatch.setattr(_file, "_UNSEEN", 3)
    added = [journal.append_nowait([made(str(number))]) for number in range(6)]
    assert added == [True] * 4 + [False] * 2
    journal.append([made("thread")])
    assert journal.append_nowait([made("loop")])


def test_tidying_writes_the_log_back(journal: SQLiteJournal, path: Path, tmp_path: Path) -> None:
    """As far as it goes."""
    journal.append_nowait([made("a")])
    journal.tidy()
    assert entries_in(path, tmp_path) == 2


def test_the_log_does_not_grow_while_somebody_writes(
    journal: SQLiteJournal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who always has more to write lets no log come to its end: what is left of a long one is written while he waits."""
    monkeypatch.setattr(_file, "_LONG", 100)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            journal.append([made(str(number := number + 1))])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        longest = 0
        for _ in range(20):
            journal.tidy()
            time.sleep(0.01)
            longest = max(longest, log_of(path))
    finally:
        stop.set()
        writer.join()
    assert longest < 3000
    journal.tidy()
    journal.append([made("last")])
    assert log_of(path) < 100


def test_tidying_a_file_that_has_vanished_is_an_error(journal: SQLiteJournal, path: Path) -> None:
    """One that says so, to whoever asks for it."""
    shutil.rmtree(path.parent)
    with pytest.raises(JournalError, match="it can't be opened"):
        journal.tidy()


def test_tidying_ends_before_a_fork_and_before_the_file_is_closed(journal: SQLiteJournal) -> None:
    """No child has a connection to the file, and none outlives a close."""
    with journal._file._tidying:
        closing_it = threading.Thread(target=journal.close)
        closing_it.start()
        closing_it.join(0.05)
        assert closing_it.is_alive()
    closing_it.join()
