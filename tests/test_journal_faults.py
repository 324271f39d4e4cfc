"""What can go wrong with a journal is one clear error, and passes: nothing is lost, nothing is wrong unnoticed."""

import os
import pickle
import random
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from flowlet.entries import Entry, JournalledRun
from flowlet.errors import DamagedRuns, JournalError
from flowlet.journals import SQLiteJournal, _opening
from peer import Peer, begun, made

SWEEP = os.environ.get("FLOWLET_TEST_SWEEP", "")
"""Empty for a sample of the places where a file can be damaged, ``all`` for every one: some minutes in memory
(``--basetemp=/dev/shm/sweep``)."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "runs.db"


# --- a disk that fails at one statement ------------------------------------------------------------


class Disk:
    """Fails with *code* at use number *at*, before that use or after it; a sticky one until it is mended."""

    def __init__(self, code: int, at: int, *, sticky: bool, after: bool = False) -> None:
        self.code, self.at, self.sticky, self.after = code, at, sticky, after
        self.uses = 0

    def fails(self) -> bool:
        self.uses += 1
        return self.at and (self.uses >= self.at if self.sticky else self.uses == self.at)

    def mend(self) -> None:
        self.at = 0

    def do(self, use: Callable[[], object]) -> object:
        if not self.fails():
            return use()
        if self.after:
            use()
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = self.code
        raise error


def connection(disk: Disk) -> type[sqlite3.Connection]:
    class Connection(sqlite3.Connection):
        def execute(self, *statement):
            return disk.do(lambda: super(Connection, self).execute(*statement))

        def executemany(self, *statement):
            return disk.do(lambda: super(Connection, self).executemany(*statement))

        def executescript(self, script):
            return disk.do(lambda: super(Connection, self).executescript(script))

    return Connection


CALLS: list[Callable[[SQLiteJournal], object]] = [
    lambda journal: journal.read("tea-1"),
    lambda journal: journal.append([begun()]),
    lambda journal: journal.append([made("a")]),
    lambda journal: journal.append([begun("tea-2"), made("b"), made("c"), made("a", "tea-2")]),
    lambda journal: journal.keep("key", "value", None),
    lambda journal: journal.kept("key", 0.0),
    lambda journal: journal.keep("short", "lived", 1.0),
    lambda journal: journal.expire(1.0),
    lambda journal: journal.append([begun("tea-3")]),
    lambda journal: journal.forget(["tea-3"]),
    lambda journal: journal.runs(),
]


def lasting(call: Callable[[], object], disk: Disk) -> bool:
    """Make *call* until it succeeds; tell whether it has met the fault."""
    try:
        call()
    except JournalError:
        if disk.sticky:
            with pytest.raises(JournalError):
                call()
            disk.mend()
        call()
        return True
    return False


EIO, ENOSPC = sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_FULL


@pytest.mark.parametrize(
    ("code", "sticky", "after"),
    [
        pytest.param(EIO, False, False, id="EIO-once"),
        pytest.param(EIO, True, False, id="EIO-sticky"),
        pytest.param(ENOSPC, False, False, id="ENOSPC-once"),
        pytest.param(ENOSPC, True, False, id="ENOSPC-sticky"),
        pytest.param(EIO, False, True, id="EIO-once-when-it-was-done"),
    ],
)
def test_a_disk_may_fail_at_any_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, sticky: bool, after: bool
) -> None:
    """One clear error; when the fault has passed, the same call works, and all is there."""
    connect = sqlite3.connect
    for at in count(1):
        disk = Disk(code, at, sticky=sticky, after=after)
        monkeypatch.setattr(sqlite3, "connect", partial(connect, factory=connection(disk)))
        journal = SQLiteJournal(tmp_path / f"{at}.db")
        met = [lasting(partial(call, journal), disk) for call in CALLS]
        disk.mend()
        found = list(
            dict.fromkeys(journal.read("tea-1"))
        )  # an entry may come twice, when its fate was unknown
        assert found == [begun(), made("a"), made("b"), made("c")]
        assert set(journal.read("tea-2")) == {begun("tea-2"), made("a", "tea-2")}
        assert [run.run_id for run in journal.runs()] == ["tea-2", "tea-1"]
        assert (journal.kept("key", 0.0), journal.kept("short", 0.0)) == ("value", None)
        journal.close()
        if not any(met):
            break
    assert at > 40, "too few statements were met"
    assert {found.suffix for found in tmp_path.iterdir()} == {".db", ".db-claims"}, "a draft was left behind"


def test_a_failing_disk_is_told_in_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which file, what was found, what to do."""
    journal = SQLiteJournal(path)
    journal.append([begun()])
    disk = Disk(EIO, 1, sticky=True)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=connection(disk)))
    journal.close()
    with pytest.raises(JournalError) as caught:
        journal.append([made("a")])
    assert str(caught.value) == (f"journal {path}: the disk fails (disk I/O error); check the disk")


# --- real faults -------------------------------------------------------------------------------------


def test_a_full_database_is_told_and_passes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own limit stands for the disk's."""
    pages = 12

    class Small(sqlite3.Connection):
        def execute(self, *statement):
            super().execute(f"PRAGMA max_page_count = {pages}")
            return super().execute(*statement)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Small))
    journal = SQLiteJournal(path)
    journal.append([begun()])
    large = [made("x" * 3000)] * 20
    with pytest.raises(JournalError, match="the disk is full .*; make room$"):
        journal.append(large)
    assert journal.read("tea-1") == (begun(),)
    pages = 1000
    journal.append(large)
    assert len(journal.read("tea-1")) == 21


def test_writes_that_the_system_refuses_lose_nothing(path: Path) -> None:
    """Cut off at any length, again and again: what was acknowledged is there, and the same call works later."""
    pytest.importorskip("resource")
    code = """
        import resource
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        journal.append([begun()])
        faults = set()
        for number in range(120):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000 + 1237 * number, hard))
            try:
                journal.append([made(f"{number} first"), made(f"{number} second")])
            except JournalError as exc:
                faults.add((number, str(exc).replace(str(journal.path), "FILE")))
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
                keys = [entry.key for entry in journal.read("tea-1")]
                assert f"{number} first" not in keys and len(keys) == 1 + 2 * number, keys
                journal.append([made(f"{number} first"), made(f"{number} second")])
        say(len(faults) > 10, len(journal.read("tea-1")))
        say(*sorted(faults)[0])
        """
    with Peer(path, code) as peer:
        told = (
            "0 journal FILE: it can't grow: this process may write files of 1,000 bytes at most, or the disk "
            "fails (disk I/O error); raise that limit (ulimit -f), or check the disk\n"
        )
        assert peer.end() == f"True 241\n{told}"


def test_a_vanished_directory_is_told_and_passes(path: Path) -> None:
    """Nothing is written into the void; when it is back, the same call works."""
    journal = SQLiteJournal(path)
    journal.append([begun()])
    elsewhere = path.parent.with_name("elsewhere")
    path.parent.rename(elsewhere)
    for call in (partial(journal.append, [made("a")]), partial(journal.read, "tea-1"), journal.runs):
        with pytest.raises(JournalError, match=r"runs.db: it has vanished; put it back, or start anew"):
            call()
    with pytest.raises(JournalError, match="No such file or directory"):
        journal.claim("tea-1")
    elsewhere.rename(path.parent)
    journal.append([made("a")])
    assert journal.read("tea-1") == (begun(), made("a"))


def test_a_directory_that_never_was_is_told(path: Path) -> None:
    """A slip in the settings makes no directories."""
    journal = SQLiteJournal(path / "runs.db")
    with pytest.raises(
        JournalError, match=r"there is no directory .*runs.db; create it, or name another file"
    ):
        journal.append([begun()])
    path.mkdir()
    journal.append([begun()])


def test_a_replaced_file_is_opened_anew(path: Path) -> None:
    """As when somebody restores a copy."""
    journal, copy = SQLiteJournal(path), path.with_name("copy.db")
    journal.append([begun()])
    journal.close()
    shutil.copy(path, copy)
    journal.append([made("a")])
    journal.close()
    copy.rename(path)
    assert journal.read("tea-1") == (begun(),)


def test_a_lock_of_another_process_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while; then it is one clear error, and when it is gone the same call works."""
    monkeypatch.setattr(_opening, "BUSY", 0.3)
    journal = SQLiteJournal(path)
    journal.append([begun()])
    code = """
        import sqlite3
        db = sqlite3.connect(sys.argv[1], isolation_level=None)
        db.execute("BEGIN IMMEDIATE"), say("locked"), heard()
        """
    with Peer(path, code) as peer:
        assert peer.line() == "locked"
        began = time.perf_counter()
        with pytest.raises(JournalError, match="another process has held it locked .*; end what holds it"):
            journal.append([made("a")])
        assert 0.1 < time.perf_counter() - began < 2
        assert journal.read("tea-1") == (begun(),), "reading needs no lock"
    journal.append([made("a")])
    assert journal.read("tea-1") == (begun(), made("a"))


# --- files that are no journal ------------------------------------------------------------------------


def notes(path: Path) -> None:
    path.write_text("Buy tea.\n" * 1000)


def empty(path: Path) -> None:
    path.touch()


def somebodys(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE runs (name, digest, body)")
    db.close()


def of_version(number: int, path: Path) -> None:
    journal = SQLiteJournal(path)
    journal.append([begun()])
    journal.close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {number}")
    db.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (notes, r"it is not a journal, or its beginning is damaged \(file is not a database\); name another"),
        (empty, "it is empty, so it has lost what it held; restore it, or remove it for a new one"),
        (somebodys, r"it is the database of something else \(its mark is 0, not \d+\); name another file"),
        (
            partial(of_version, 3),
            "it is of version 3, and this flowlet knows version 2; update flowlet, or name",
        ),
        (partial(of_version, 1), "it is of version 1, and this flowlet knows version 2; name another file"),
        (Path.mkdir, "it is a directory; name a file"),
    ],
)
def test_what_is_no_journal_is_told_and_left_alone(
    path: Path, make: Callable[[Path], object], message: str
) -> None:
    """Nothing in it changes, nothing is put beside it."""
    make(path)
    before, names = path.is_file() and path.read_bytes(), set(path.parent.iterdir())
    for _ in range(2):
        with pytest.raises(JournalError, match=f"^journal {path}: {message}"):
            SQLiteJournal(path).append([begun()])
    assert (path.is_file() and path.read_bytes()) == before
    assert set(path.parent.iterdir()) == names


def test_the_log_of_a_journal_that_is_gone_is_not_played_into_a_new_one(path: Path) -> None:
    """It would bring back what belongs to another."""
    log = path.with_name("runs.db-wal")
    log.write_bytes(b"left behind")
    with pytest.raises(
        JournalError, match="it is gone, but its log runs.db-wal is there; put it back, or remove"
    ):
        SQLiteJournal(path).append([begun()])
    log.unlink()
    SQLiteJournal(path).append([begun()])


# --- damage ------------------------------------------------------------------------------------------

RUNS = ("tea-1", "tea-2", "tea-3")


def entries_of(run_id: str) -> list[Entry]:
    """A run of small entries; one has some that fill pages of their own."""
    sizes = [9000 if run_id == "tea-2" and number % 10 == 0 else 10 for number in range(25)]
    return [begun(run_id), *(made(f"{run_id} {n} {'k' * size}", run_id) for n, size in enumerate(sizes))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with runs, cached values, and pages that are free again; closed, so that all is in one file."""
    path = tmp_path_factory.mktemp("whole") / "runs.db"
    journal = SQLiteJournal(path)
    for run_id in ("gone", *RUNS):
        journal.append(entries_of(run_id))
    journal.keep("key", "value", None)
    journal.forget(["gone"])
    journal.close()
    return path


def asked(journal: SQLiteJournal) -> Iterator[tuple[str, object, object]]:
    """Everything that can be asked of that journal: the question, the answer, and what is right."""
    questions: list[tuple[str, Callable[[], object], object]] = [
        *((run_id, partial(journal.read, run_id), tuple(entries_of(run_id))) for run_id in RUNS),
        ("gone", partial(journal.read, "gone"), ()),
        ("runs", lambda: [(r.run_id, r.entries) for r in journal.runs()], [(r, 26) for r in reversed(RUNS)]),
        ("key", partial(journal.kept, "key", 0.0), "value"),
    ]
    for name, question, right in questions:
        try:
            yield name, question(), right
        except JournalError as exc:
            yield name, exc, right


def check_damaged(path: Path) -> int:
    """Every answer is right or an error, now and after more was written; tell how many errors there were."""
    errors = 0
    journal = SQLiteJournal(path)
    for name, found, right in asked(journal):
        lost = name == "key" and found is None  # a cached value that is not found is made anew
        assert lost or found == right or isinstance(found, JournalError), name
        if isinstance(found, JournalError):
            assert str(path) in str(found)
            errors += 1
    for run_id in RUNS:
        try:
            journal.append([made("new", run_id)])
            assert journal.read(run_id) == (*entries_of(run_id), made("new", run_id))
        except JournalError:
            errors += 1
    journal.close()
    return errors


def some(places: Iterable[int], sample: int) -> list[int]:
    """All *places*, or a sample of them."""
    known = sorted(places)
    return known if SWEEP == "all" else sorted(random.Random(len(known)).sample(known, sample))


def unlike(content: bytes) -> Iterator[int]:
    """The places of all bytes; amidst many equal ones, of every 64th."""
    for equal in re.finditer(rb"(.)\1*", content, re.DOTALL):
        start, end = equal.span()
        yield from (at for at in range(start, end) if min(at - start, end - 1 - at) < 16 or at % 64 == 0)


def flipped(content: bytes, place: int) -> bytes:
    """*content* with one other bit at *place*."""
    damaged = bytearray(content)
    damaged[place] ^= 1 << place % 8
    return bytes(damaged)


def test_a_flipped_bit_is_never_a_wrong_answer(whole: Path, path: Path) -> None:
    """Wherever it is: in a row, in a page's structure, in the head of the file."""
    content = whole.read_bytes()
    found = 0
    for place in [*range(0, 100, 4), *some(unlike(content), 200)]:
        path.write_bytes(flipped(content, place))
        found += bool(check_damaged(path))
        path.unlink()
    assert found > 100


@pytest.mark.parametrize("number", [27, 60, 2**31])
def test_an_entry_with_another_number_makes_no_longer_run(whole: Path, path: Path, number: int) -> None:
    """The list proves what the run's row does not tell of."""
    shutil.copy(whole, path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE entries SET number = ? WHERE number = (2 << 32) + 26", ((2 << 32) + number,))
    db.close()
    journal = SQLiteJournal(path)
    with suppress(DamagedRuns):
        assert {run.entries for run in journal.runs()} == {26}
    with pytest.raises(JournalError):
        journal.read("tea-1")


def test_damage_that_sqlite_can_not_even_quote_is_told(whole: Path, path: Path) -> None:
    """Its own messages are no text then."""
    content = whole.read_bytes()
    path.write_bytes(content.replace(b"CREATE TABLE runs (name", b"CREATE TABLE runs (na\xede"))
    with pytest.raises(
        JournalError, match=f"^journal {path}: it is damaged .*; restore it from a copy, or move"
    ):
        SQLiteJournal(path).read("tea-1")


def test_every_changed_row_is_found(whole: Path, path: Path) -> None:
    """Each byte of a row counts: the error names the file and the run."""
    content = whole.read_bytes()
    with sqlite3.connect(whole) as db:
        rows = db.execute(
            "SELECT first.run, one.number & 255, one.body FROM entries AS one JOIN entries AS first "
            "ON first.number = (one.number & ~255) + 1 WHERE one.run IS NULL AND first.run != CAST('tea-2' AS BLOB)"
        ).fetchall()
    db.close()
    for name, number, body in rows:
        assert content.count(body) == 1
        for place in range(content.index(body), content.index(body) + len(body), 1 if SWEEP == "all" else 37):
            path.write_bytes(flipped(content, place))
            with pytest.raises(
                JournalError, match=f"^journal {path}: entry {number} of run '{name.decode()}' is"
            ):
                SQLiteJournal(path).read(name.decode())


def test_rows_that_are_lost_or_swapped_are_found(whole: Path, path: Path) -> None:
    """By hands that know SQL: the digests are right, their places are not."""
    one, other = (f"CAST('{run_id}' AS BLOB)" for run_id in ("tea-1", "tea-3"))
    which, last = "(number & 255)", 2 << 32
    deeds = [
        (f"DELETE FROM entries WHERE {which} = 26", "run 'tea-1' (it has 25 entries, and should have 26)"),
        (f"DELETE FROM entries WHERE {which} = 7", "entry 7 of run 'tea-1'"),
        ("DELETE FROM entries", "run 'tea-1' (it has 0 entries, and should have 26)"),
        ("DELETE FROM runs", "run 'tea-1' (it has entries, and is not among the runs)"),
        (f"UPDATE entries SET number = number + 100 - 2 * ({which}) WHERE {which} > 20", "entry 21 of"),
        (
            f"DELETE FROM entries WHERE number < {last}; UPDATE entries SET number = number - {last}",
            "entry 1",
        ),
        (f"UPDATE entries SET run = {other} WHERE run = {one}", "entry 1 of run 'tea-1'"),
        (f"UPDATE runs SET body = (SELECT body FROM runs WHERE name = {other})", "run 'tea-1'"),
    ]
    for deed, told in deeds:
        shutil.copy(whole, path)
        with sqlite3.connect(path) as db:
            db.executescript(deed)
        db.close()
        with pytest.raises(JournalError) as caught:
            SQLiteJournal(path).read("tea-1")
        assert told in str(caught.value)


def test_a_lost_run_is_missed_in_the_list(whole: Path, path: Path) -> None:
    """The list knows how long it should be, and has the others."""
    shutil.copy(whole, path)
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM runs WHERE name = CAST('tea-1' AS BLOB)")
    db.close()
    journal = SQLiteJournal(path)
    told = r"run 'tea-1' \(it has entries, and is not among the runs\) is damaged"
    with pytest.raises(DamagedRuns, match=told) as caught:
        journal.runs()
    assert [run.run_id for run in caught.value.runs] == ["tea-3", "tea-2"]
    for call in (partial(journal.append, [made("new")]), partial(journal.run, "tea-1")):
        with pytest.raises(JournalError, match=told):
            call()
    journal.forget(["tea-1"])
    assert [run.run_id for run in journal.runs()] == ["tea-3", "tea-2"]


def test_what_is_damaged_hides_no_other_run(whole: Path, path: Path) -> None:
    """Each can be asked for by its name, and the list has those that are whole."""
    deeds = {
        "UPDATE runs SET body = CAST('{}' AS BLOB) WHERE name = CAST('tea-1' AS BLOB)": "run 'tea-1' is damaged",
        "DELETE FROM entries; DELETE FROM runs WHERE name = CAST('tea-1' AS BLOB)": (
            r"the list of runs \(it has 2, and should have 3\) is damaged"
        ),
        "UPDATE counts SET body = CAST('{}' AS BLOB)": "the number of runs is damaged",
        "UPDATE runs SET digest = NULL": "run 'tea-1', run 'tea-2', run 'tea-3' are damaged",
    }
    for deed, told in deeds.items():
        shutil.copy(whole, path)
        with sqlite3.connect(path) as db:
            db.executescript(deed)
        db.close()
        journal = SQLiteJournal(path)
        with pytest.raises(DamagedRuns, match=told) as caught:
            journal.runs()
        found = caught.value.runs
        assert list(found) == [run for name in reversed(RUNS) if (run := whole_run(journal, name))]
        assert pickle.loads(pickle.dumps(caught.value)).runs == found


@pytest.mark.parametrize(
    "deed",
    [
        "UPDATE counts SET body = CAST('{}' AS BLOB)",
        "DELETE FROM counts",
        "DELETE FROM counts; DELETE FROM entries",
        "DELETE FROM runs WHERE name = CAST('tea-3' AS BLOB); DELETE FROM entries WHERE number >= 3 << 32",
    ],
)
def test_runs_are_counted_anew_when_some_are_dropped(whole: Path, path: Path, deed: str) -> None:
    """So new ones can begin, with numbers that no other has; one that still has entries is missed all the same."""
    shutil.copy(whole, path)
    with sqlite3.connect(path) as db:
        db.executescript(deed)
    db.close()
    journal = SQLiteJournal(path)
    journal.forget(["tea-1"])
    known = {run.run_id for run in journal.runs()}
    journal.append([begun("new")])
    assert journal.read("new") == (begun("new"),)
    assert {run.run_id for run in journal.runs()} == {*known, "new"}
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM runs WHERE name = CAST('new' AS BLOB)")
    db.close()
    journal.forget(["tea-2"])
    with pytest.raises(
        DamagedRuns, match=r"run 'new' \(it has entries, and is not among the runs\) is damaged"
    ):
        journal.runs()


def whole_run(journal: SQLiteJournal, name: str) -> JournalledRun | None:
    try:
        return journal.run(name)
    except JournalError:
        return None


def test_a_damaged_value_of_the_cache_is_dropped_with_expired_ones(path: Path) -> None:
    """Until then it is an error, since nobody knows when it would expire."""
    journal = SQLiteJournal(path)
    for key, expires in {"whole": None, "damaged": None, "short": 10.0, "long": 20.0}.items():
        journal.keep(key, key, expires)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE cache SET digest = NULL WHERE name = CAST('damaged' AS BLOB)")
    db.close()
    with pytest.raises(JournalError, match=r"the cached value of 'damaged' is damaged; .*\(flowlet prune\)"):
        journal.kept("damaged", 0.0)
    journal.expire(10.0)
    found = [journal.kept(key, 0.0) for key in ("whole", "damaged", "short", "long")]
    assert found == ["whole", None, None, "long"]


def test_a_file_cut_off_is_never_a_wrong_answer(whole: Path, path: Path) -> None:
    """At whatever length: each row is cut off in several places."""
    content = whole.read_bytes()
    for length in [0, 1, 99, 100, _opening.PAGE - 1, _opening.PAGE, *some(range(0, len(content), 16), 60)]:
        path.write_bytes(content[:length])
        assert check_damaged(path), f"nothing was missed at {length} of {len(content)} bytes"
        for name in ("runs.db", "runs.db-wal", "runs.db-shm"):
            path.with_name(name).unlink(missing_ok=True)


HEAD, FRAME = 32, 24 + _opening.PAGE
"""Bytes of SQLite's log: at its beginning, and of each page with its own head. A sum covers all before it."""


def test_damage_to_the_log_takes_back_the_last_moments_at_most(path: Path) -> None:
    """What a killed process left there is what was written up to some moment, or an error."""
    code = """
        journal.append([begun()])
        for number in range(40):
            journal.append([made(str(number))])
        say("done"), heard()
        """
    with Peer(path, code) as peer:
        assert peer.line() == "done"
        peer.kill()
    right = (begun(), *(made(str(number)) for number in range(40)))
    log = path.with_name("runs.db-wal")
    base, content = path.read_bytes(), log.read_bytes()
    heads = {HEAD + frame + at for frame in range(0, len(content) - HEAD, FRAME) for at in range(24)}
    for place in some(heads.union(range(HEAD), range(0, len(content), 64)), 40):
        for damaged in (content[:place], flipped(content, place)):
            copy = path.with_name("copy.db")
            copy.write_bytes(base)
            copy.with_name("copy.db-wal").write_bytes(damaged)
            journal = SQLiteJournal(copy)
            found = journal.read("tea-1")
            assert found == right[: len(found)]
            journal.close()
    assert SQLiteJournal(path).read("tea-1") == right


# --- the end of a process ----------------------------------------------------------------------------

KILLS = int(os.environ.get("FLOWLET_TEST_KILLS", "12"))


def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    """At any moment; groups are whole. FLOWLET_TEST_KILLS says how often."""
    code = """
        run_id = heard()
        journal.append([begun(run_id)])
        number = 0
        while True:
            journal.append([made(f"{number} first", run_id), made(f"{number} second", run_id)])
            say(number)
            number += 1
        """
    chance = random.Random(1)
    for kill in range(KILLS):
        run_id = f"run-{kill}"
        with Peer(path, code) as peer:
            peer.tell(run_id)
            acknowledged = int(peer.line())
            time.sleep(chance.random() / 20)
            peer.kill()
            acknowledged = max(acknowledged, *map(int, peer.process.stdout.read().split("\n")[:-1] or [0]))
        journal = SQLiteJournal(path)
        found = journal.read(run_id)
        assert len(found) % 2 == 1
        assert len(found) // 2 in (acknowledged + 1, acknowledged + 2)
        assert found[1::2] == tuple(made(f"{n} first", run_id) for n in range(len(found) // 2))
        journal.close()
