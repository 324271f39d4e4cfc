"""Stores of journals keep what they are given, in one process and across many."""

import math
import os
import pickle
import sqlite3
import sys
import threading
import time
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlet.entries import Entry, JournalledRun
from flowlet.errors import JournalError
from flowlet.journals import MemoryJournal, SQLiteJournal
from flowlet.testing import check_journal
from peer import Peer, begun, made

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "runs.db"


@pytest.fixture
def journal(path: Path) -> SQLiteJournal:
    """A journal with one run of one step, which is claimed by nobody."""
    journal = SQLiteJournal(path)
    journal.append([begun(), made("a")])
    return journal


def test_memory_keeps_to_the_protocol() -> None:
    """The store of tests."""
    check_journal(MemoryJournal)


def test_sqlite_keeps_to_the_protocol(tmp_path: Path) -> None:
    """The store of everybody else; each time a file of its own."""
    numbers = iter(range(100))
    check_journal(lambda: SQLiteJournal(tmp_path / f"{next(numbers)}.db"))


def test_memory_drops_expired_values_as_they_grow_many() -> None:
    """Nobody prunes a process that goes on for weeks."""
    journal = MemoryJournal()
    for number in range(10_000):
        journal.keep(str(number), "", number + 100.0)
        assert journal.kept(str(number), float(number)) == ""
    assert len(journal._cache) < 2000


class Sloppy(MemoryJournal):
    """Does a little of everything wrong."""

    def append(self, entries, /):
        for entry in entries:
            super().append([entry])

    def read(self, run_id, /):
        return super().read(run_id)[:1]

    def runs(self):
        return sorted(super().runs(), key=lambda run: run.run_id)

    def run(self, run_id, /):
        return None

    def claim(self, run_id, /):
        super().claim(run_id)

    def forget(self, run_ids, /):
        super().forget(run_ids[:1])

    def kept(self, key, now, /):
        return super().kept(key, 0.0)

    def expire(self, now, /):
        super().expire(1e301)

    def close(self) -> None:
        self.__init__()


def test_the_kit_tells_all_that_is_wrong() -> None:
    """Faults of every part, in one error."""
    with pytest.raises(AssertionError, match="does not keep to the protocol") as caught:
        check_journal(Sloppy)
    told = str(caught.value)
    for part in (
        "read, after two appends",
        "read, of one of two in a group",
        "read, after a group that failed",
        "runs, the one made last first",
        "run, by its id",
        "claim of one that is taken",
        "runs, after forgetting some",
        "kept, when it expires",
        "kept, after expire before its time",
        "closed: it raised JournalError",
        "claims that won, of several threads at once: found 8, expected 1",
    ):
        assert part in told


texts = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates, too
entries = st.builds(
    Entry,
    run_id=st.just("r"),
    key=texts,
    kind=st.sampled_from(["run", "step", "call"]),
    name=texts,
    state=st.sampled_from(["pending", "running", "completed", "failed", "cancelled", "timeout"]),
    parent=texts,
    inputs=texts,
    value=texts,
    error=texts,
    code=texts,
    at=st.floats(allow_nan=False),
    duration=st.floats(allow_nan=False),
    attempts=st.integers(),
    info=texts,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(entries, max_size=4), max_size=3))
def test_what_comes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, groups: list[list[Entry]]) -> None:
    """Any text, any float, any int, in order, from another instance and after it was closed."""
    path = tmp_path_factory.mktemp("hostile") / "runs.db"
    writer = SQLiteJournal(path)
    writer.append([begun("r")])
    for group in groups:
        writer.append(group)
    writer.close()
    expected = [begun("r"), *(entry for group in groups for entry in group)]
    assert list(SQLiteJournal(path).read("r")) == expected
    assert SQLiteJournal(path).runs()[0].entries == len(expected)


def test_not_a_number_is_kept(journal: SQLiteJournal) -> None:
    """SQLite itself would make nothing of it."""
    journal.append([evolve(made("b"), at=math.nan)])
    assert math.isnan(journal.read("tea-1")[-1].at)


def test_it_is_an_error_that_is_told_in_full(journal: SQLiteJournal) -> None:
    """What was found, what is expected; the error travels."""
    with pytest.raises(
        JournalError, match="run 'x' is not known here, so step 'write' was not added"
    ) as caught:
        journal.append([made("a", "x")])
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.args == caught.value.args


def test_nothing_is_made_before_it_is_needed(path: Path) -> None:
    """A setting that nobody uses leaves no file."""
    journal = SQLiteJournal(path)
    journal.close()
    assert list(path.parent.iterdir()) == []
    assert journal.runs() == ()
    journal.close()
    assert list(path.parent.iterdir()) == []


def test_a_home_and_a_relative_path_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory of the first moment counts."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert SQLiteJournal("runs.db").path == SQLiteJournal("~/runs.db").path == tmp_path.resolve() / "runs.db"


@pytest.mark.parametrize("name", ["a b?c#d%41.db", "é😀.db", "'; --.db", ":memory:"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    """None is taken apart by SQLite."""
    SQLiteJournal(tmp_path / name).append([begun()])
    assert name in {found.name for found in tmp_path.iterdir()}
    assert SQLiteJournal(tmp_path / name).read("tea-1") == (begun(),)


def test_people_can_look_into_it(journal: SQLiteJournal) -> None:
    """With the tools that they have: rows are JSON, the facts of an entry in their order."""
    with sqlite3.connect(journal.path) as db:
        told = db.execute("SELECT json_extract(CAST(body AS TEXT), '$[5]') FROM entries ORDER BY number")
        assert told.fetchall() == [("",), ('{"about": "tea"}',)]
    db.close()


def test_a_copy_that_sqlite_makes_is_a_journal(journal: SQLiteJournal) -> None:
    """While it is in use, with what was written last."""
    copy = journal.path.with_name("copy.db")
    with sqlite3.connect(journal.path) as db, sqlite3.connect(copy) as other:
        db.backup(other)
    db.close()
    other.close()
    journal.append([made("b")])
    assert SQLiteJournal(copy).read("tea-1") == (begun(), made("a"))


def test_two_instances_in_a_process_are_one_journal(journal: SQLiteJournal) -> None:
    """They see each other's entries, and hold the same claims."""
    other = SQLiteJournal(journal.path)
    other.append([made("b")])
    journal.append([made("c")])
    assert journal.read("tea-1") == other.read("tea-1") == (begun(), made("a"), made("b"), made("c"))
    other.append([made("d")])
    journal.append([made("e")])
    assert [entry.key for entry in other.read("tea-1")] == ["", *"abcde"]
    assert journal.claim("tea-1") is None
    assert other.claim("tea-1") == "this process"
    other.close()
    with Peer(journal.path, "say(journal.claim('tea-1'))") as peer:
        assert peer.line() == f"process {os.getpid()}"
    journal.release("tea-1")


def test_one_entry_is_one_statement(path: Path) -> None:
    """From the second entry of a run on."""
    journal, told = SQLiteJournal(path), list[str]()
    journal.append([begun()])
    assert journal._file._db is not None
    journal._file._db.set_trace_callback(told.append)
    journal.append([made("a")])
    journal.append([made("b")])
    assert [statement.partition(" ")[0] for statement in told] == ["INSERT", "INSERT"]


@pytest.mark.parametrize("change", ["journal.append([made('b')])", "journal.forget(['tea-1'])"])
def test_an_entry_stands_on_the_last_one_that_is_there(journal: SQLiteJournal, change: str) -> None:
    """Whatever another process has done since."""
    journal.append([made("a2")])
    with Peer(journal.path, change) as peer:
        assert peer.end() == ""
    if "forget" in change:
        with pytest.raises(
            JournalError, match="run 'tea-1' is not known here, so step 'write' was not added"
        ):
            journal.append([made("c")])
        with pytest.raises(
            JournalError, match="run 'tea-1' is not known here, so its end, failed, was not added"
        ):
            journal.append([evolve(begun(), state="failed")])
    else:
        journal.append([made("c")])
        assert [entry.key for entry in journal.read("tea-1")] == ["", "a", "a2", "b", "c"]


def test_sqlites_name_for_memory_is_no_file() -> None:
    """The error says what is meant; no file of that name is made."""
    with pytest.raises(JournalError, match=r"':memory:' is no file; .* write MemoryJournal\(\)"):
        SQLiteJournal(":memory:")


def test_processes_share_it(path: Path) -> None:
    """Several at once write runs of their own; nothing is lost, nothing is mixed."""
    code = """
        me = heard()
        journal.append([begun(me)])
        for number in range(100):
            journal.append([made(str(number), me)])
        """
    peers = [Peer(path, code) for _ in range(4)]
    for number, peer in enumerate(peers):
        peer.tell(f"run-{number}")
    for peer in peers:
        assert peer.end() == ""
    journal = SQLiteJournal(path)
    assert {run.run_id: run.entries for run in journal.runs()} == {f"run-{n}": 101 for n in range(4)}
    for run_id in ("run-0", "run-3"):
        assert journal.read(run_id) == (begun(run_id), *(made(str(n), run_id) for n in range(100)))


def test_a_claim_is_for_one_process(journal: SQLiteJournal) -> None:
    """Another is told who has it, and gets it when that gives it back."""
    code = "say(journal.claim('tea-1')), heard(), journal.release('tea-1'), say('done'), heard()"
    with Peer(journal.path, code) as peer:
        assert peer.line() == "None"
        owner = f"process {peer.process.pid}"
        assert journal.claim("tea-1") == owner
        assert journal.claim("tea-2") is None
        assert journal.runs() == (JournalledRun("tea-1", "talk", "running", 1.0, None, 2, owner),)
        peer.tell()
        assert peer.line() == "done"
        assert journal.claim("tea-1") is None
    for run_id in ("tea-1", "tea-2"):
        journal.release(run_id)


def test_a_claim_ends_with_its_process(journal: SQLiteJournal) -> None:
    """However it ends; the next has the run within milliseconds."""
    with Peer(journal.path, "say(journal.claim('tea-1')), heard()") as peer:
        assert peer.line() == "None"
        assert journal.claim("tea-1") == f"process {peer.process.pid}"
        peer.kill()
        began = time.perf_counter()
        assert journal.claim("tea-1") is None
        assert time.perf_counter() - began < 0.1
    journal.release("tea-1")


RACES = int(os.environ.get("FLOWLET_TEST_RACES", "10"))


def test_of_two_that_claim_at_once_one_wins(path: Path) -> None:
    """Again and again; FLOWLET_TEST_RACES says how often."""
    code = """
        while run_id := heard():
            say(journal.claim(run_id))
        """
    with Peer(path, code) as one, Peer(path, code) as other:
        for number in range(RACES):
            one.tell(f"run-{number}")
            other.tell(f"run-{number}")
            found = [one.line(), other.line()]
            assert sorted(found) in (
                ["None", f"process {one.process.pid}"],
                ["None", f"process {other.process.pid}"],
            )


def test_threads_share_claims(journal: SQLiteJournal) -> None:
    """One may take what another gives back."""
    found = [journal.claim("tea-1")]
    for call in (journal.claim, journal.release, journal.claim):
        thread = threading.Thread(target=lambda call=call: found.append(call("tea-1")))
        thread.start()
        thread.join()
    assert found == [None, "this process", None, None]
    journal.release("tea-1")


@needs_fork
def test_a_forked_child_has_a_journal_and_no_claims(journal: SQLiteJournal) -> None:
    """It opens the file again; what its parent holds, it can't have, until its parent has ended."""
    code = """
        journal.claim("tea-1"), journal.append([made("parent")])
        if not os.fork():
            journal.append([made("child")])
            say(journal.claim("tea-1") == f"process {os.getppid()}", len(journal.read("tea-1")))
            os._exit(0)
        os.wait()
        say(journal.claim("tea-1"), len(journal.read("tea-1")))
        """
    with Peer(journal.path, code) as peer:
        assert peer.end() == "True 4\nthis process 4\n"
    assert [entry.key for entry in journal.read("tea-1")] == ["", "a", "parent", "child"]


@needs_fork
def test_children_do_not_keep_the_claims_of_a_dead_parent(journal: SQLiteJournal) -> None:
    """Neither forked ones nor others: a run is free when its process is gone."""
    code = """
        import subprocess
        journal.claim("tea-1")
        begun, begins = os.pipe()
        child = os.fork()
        if not child:
            sys.stdout.close()
            os.write(begins, b".")
            time.sleep(60)
        os.read(begun, 1)
        other = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
        say(child, other.pid), heard()
        """
    with Peer(journal.path, code) as peer:
        children = [int(child) for child in peer.line().split()]
        assert journal.claim("tea-1") == f"process {peer.process.pid}"
        peer.process.kill()
        peer.process.wait()
        assert journal.claim("tea-1") is None
        for child in children:
            os.kill(child, 9)
    journal.release("tea-1")


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere locks are the process's, and go with any close"
)
def test_a_claim_outlives_a_copy_of_its_file(journal: SQLiteJournal) -> None:
    """Made by the process that has it: a step that copies its directory leaves the run its own."""
    code = """
        import shutil
        say(journal.claim('tea-1')), shutil.copytree(journal.path.parent, journal.path.parent / "copy")
        say("copied"), heard(), journal.release("tea-1"), say("released"), heard()
        """
    with Peer(journal.path, code) as peer:
        assert (peer.line(), peer.line()) == ("None", "copied")
        assert journal.claim("tea-1") == journal.runs()[0].owner == "another process"
        peer.tell()
        assert peer.line() == "released"
        assert journal.claim("tea-1") is None
    journal.release("tea-1")


@needs_fork
def test_a_system_without_locks_of_descriptors_has_claims(journal: SQLiteJournal) -> None:
    """Those of processes, as SQLite has them."""
    code = """
        import fcntl
        from flowlet.journals import _locks
        _locks._commands = lambda: (fcntl.F_SETLK, fcntl.F_GETLK)
        say(journal.claim("tea-1")), heard()
        if not os.fork():
            say(journal.claim("tea-1") == f"process {os.getppid()}")
        heard()
        """
    with Peer(journal.path, code) as peer:
        assert peer.line() == "None"
        assert journal.claim("tea-1") == f"process {peer.process.pid}"
        peer.tell()
        assert peer.line() == "True"
        peer.kill()
        assert journal.claim("tea-1") is None
    journal.release("tea-1")


@needs_fork
def test_threads_that_fork_at_once_leave_the_journal_open(path: Path) -> None:
    """In the parent, whoever of them is first."""
    code = """
        journal.append([begun()])
        def fork():
            for _ in range(150):
                child = os.fork()
                if not child:
                    os._exit(0)
                os.waitpid(child, 0)
        threads = [threading.Thread(target=fork, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        def write():
            while any(thread.is_alive() for thread in threads):
                journal.append([made("a")])
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(20)
        say(writer.is_alive())
        os._exit(0)
        """
    with Peer(path, code, ["-W", "ignore::DeprecationWarning"]) as peer:
        assert peer.end() == "False\n"


@needs_fork
def test_a_fork_in_the_middle_of_writes_harms_nobody(path: Path) -> None:
    """Locks are free in the child, whatever threads of its parent did."""
    code = """
        journal.append([begun()])
        def write():
            for number in range(300):
                journal.append([made(str(number))])
        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(10):
            if not os.fork():
                journal.append([made(f"child {number}")])
                os._exit(len(journal.read("tea-1")) < 2)
            assert os.wait()[1] == 0
        for thread in threads:
            thread.join()
        say(len(journal.read("tea-1")))
        """
    with Peer(path, code, ["-W", "ignore::DeprecationWarning"]) as peer:
        assert peer.end() == "611\n"


def test_nothing_is_left_open_at_the_end(path: Path) -> None:
    """No warning, no log beside the file."""
    code = "journal.append([begun()]), journal.claim('tea-1')"
    with Peer(path, code, ["-W", "error", "-X", "dev"]) as peer:
        assert peer.end() == ""
    assert sorted(found.name for found in path.parent.iterdir()) == ["runs.db", "runs.db-claims"]


def test_what_is_dropped_makes_the_file_smaller(path: Path) -> None:
    """Runs and expired values; the log, which grows meanwhile, too, while the journal stays open."""
    journal = SQLiteJournal(path)
    for number in range(8):
        run_id, key = str(number), "x" * 4000
        journal.append([begun(run_id), *(made(f"{key}{step}", run_id) for step in range(500))])
        journal.keep(run_id, "x" * 1_000_000, 1.0 if number < 7 else None)
    full = sizes(path)
    journal.forget([str(number) for number in range(7)])
    journal.expire(2.0)
    assert len(journal.read("7")) == 501
    journal.append([made("a", "7")])
    assert sizes(path) < full
    journal.close()
    assert path.stat().st_size < full / 6
    journal.forget(["7"])
    journal.close()
    assert path.stat().st_size < 2_000_000, "the value that is kept for good is left"


def sizes(path: Path) -> int:
    """How many bytes a journal takes on the disk."""
    return sum(found.stat().st_size for found in path.parent.iterdir())


def test_one_that_is_dropped_is_closed(path: Path) -> None:
    """As the last reference goes."""
    SQLiteJournal(path).append([begun()])
    assert {found.name for found in path.parent.iterdir()} == {"runs.db", "runs.db-claims"}


def test_a_reader_does_not_stop_a_writer(journal: SQLiteJournal) -> None:
    """Nor the other way round: what is read is what was there at one moment."""
    lengths = list[int]()

    def read() -> None:
        while len(lengths) < 50:
            lengths.append(len(SQLiteJournal(journal.path).read("tea-1")))

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(200):
        journal.append([made(f"{number} first"), made(f"{number} second")])
    thread.join()
    assert {length % 2 for length in lengths} == {0}
    assert lengths == sorted(lengths)
