"""To read a journal is to change nothing: where there is none, and where this user may not write."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowlet import forget_runs, recorded_runs
from flowlet.errors import JournalError
from flowlet.journals import SQLiteJournal
from peer import Peer, begun, made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "runs.db"


def names(directory: Path) -> set[str]:
    return {found.name for found in directory.iterdir()}


def test_to_read_makes_no_journal(path: Path) -> None:
    """It is as one that has nothing; what can't be one is told all the same."""
    journal = SQLiteJournal(path)
    assert (journal.runs(), journal.run("r"), journal.read("r"), journal.kept("k", 0.0)) == (
        (),
        None,
        (),
        None,
    )
    assert recorded_runs(path) == []
    with pytest.raises(JournalError, match=rf"there is no run 'r' in the journal {path}; none was dropped"):
        forget_runs(["r"], path)
    assert names(path.parent) == {"runs.db-claims"}, "since the run was claimed"
    journal.append([begun()])
    assert journal.read("tea-1") == (begun(),)
    path.with_name("other.db-wal").touch()
    with pytest.raises(JournalError, match="it is gone, but its log"):
        SQLiteJournal(path.with_name("other.db")).runs()
    with pytest.raises(JournalError, match="there is no directory"):
        SQLiteJournal(path / "runs.db").runs()


def test_a_text_is_one_run_and_what_is_not_known_is_told(path: Path) -> None:
    """Nothing is dropped then."""
    journal = SQLiteJournal(path)
    journal.append([begun("tea-1"), begun("t"), begun("e")])
    with pytest.raises(
        JournalError, match=rf"there is no run 'x', 'y' in the journal {path}; none was dropped"
    ):
        forget_runs(["t", "x", "y"], path)
    forget_runs("tea-1", path)
    assert {run.run_id for run in journal.runs()} == {"t", "e"}
    forget_runs(("t", "e", "t"), path)
    assert not journal.runs()


def test_a_directory_is_no_journal(path: Path) -> None:
    """That is told, by reading and by writing."""
    path.mkdir()
    for call in (SQLiteJournal(path).runs, lambda: SQLiteJournal(path).append([begun()])):
        with pytest.raises(JournalError, match=r"runs.db: it is a directory; name a file$"):
            call()


# --- without the right to write ----------------------------------------------------------------------

DEMOTED = """
str(JournalError("")), SQLiteJournal(f"{sys.argv[1]}-warm").append([begun()])  # imports what is imported late
if not os.getuid():  # no right is missing to root
    os.setgid(65534), os.setuid(65534)
def tried(call):
    try:
        say("ok", call())
    except Exception as exc:
        say(type(exc).__name__, str(exc).replace(str(journal.path.parent), "DIR"))
calls = {
    "read": lambda: (len(journal.read("tea-1")), [run.run_id for run in journal.runs()]),
    "write": lambda: journal.append([begun()]),
    "claim": lambda: journal.claim("tea-1"),
}
say("ready")
while call := heard():
    tried(calls[call])
"""

posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has other rights, and signals")


@pytest.fixture
def anyones() -> Iterator[Path]:
    """A directory that every user can reach."""
    found = Path(tempfile.mkdtemp())
    found.chmod(0o777)
    yield found
    found.chmod(0o777)
    shutil.rmtree(found)


def forbid(directory: Path, mode: int, file_mode: int) -> None:
    for found in directory.glob("runs.db*"):
        found.chmod(file_mode)
    directory.chmod(mode)


@posix
@pytest.mark.parametrize(("mode", "file_mode"), [(0o555, 0o666), (0o777, 0o444), (0o555, 0o444)])
def test_who_may_not_write_can_read(anyones: Path, mode: int, file_mode: int) -> None:
    """Not the file, not its directory, or neither; while somebody has it open, and when it is closed."""
    journal = SQLiteJournal(anyones / "runs.db")
    journal.append([begun()])
    with Peer(journal.path, DEMOTED) as peer:
        assert peer.line() == "ready"
        for count in (2, 3):
            journal.append([made(str(count))])
            for end in (lambda: None, journal.close):
                end()
                forbid(anyones, mode, file_mode)
                before = names(anyones)
                peer.tell("read")
                assert peer.line() == f"ok ({count}, ['tea-1'])"
                assert names(anyones) == before
                forbid(anyones, 0o777, 0o666)


@posix
def test_a_read_only_directory_is_told_and_passes(anyones: Path) -> None:
    """While the journal is made, and when it is there."""
    path = anyones / "runs.db"
    with Peer(path, DEMOTED) as peer:
        assert peer.line() == "ready"
        anyones.chmod(0o555)
        peer.tell("write")
        told = "JournalError journal DIR/runs.db: it can't be made; make DIR writable for this user"
        assert peer.line() == told
        anyones.chmod(0o777)
        peer.tell("write")
        assert peer.line() == "ok None"
    with Peer(path, DEMOTED) as peer:
        assert peer.line() == "ready"
        path.chmod(0o444)
        anyones.chmod(0o555)
        peer.tell("write")
        assert peer.line().startswith("JournalError journal DIR/runs.db: it can't be ")
        anyones.chmod(0o777)
        path.chmod(0o666)
        peer.tell("write")
        assert peer.line() == "ok None"


@posix
def test_who_may_not_write_is_told_of_what(anyones: Path) -> None:
    """The journal, or the file of claims."""
    journal = SQLiteJournal(anyones / "runs.db")
    journal.append([begun()])
    journal.close()
    forbid(anyones, 0o555, 0o444)
    with Peer(journal.path, DEMOTED) as peer:
        assert peer.line() == "ready"
        peer.tell("write")
        assert peer.line().startswith("JournalError journal DIR/runs.db: it can't be ")
        peer.tell("claim")
        assert peer.line() == (
            "JournalError journal DIR/runs.db: its file runs.db-claims can't be used (Permission denied); make "
            "that and its directory readable and writable for this user"
        )


# --- a journal that is born --------------------------------------------------------------------------


@posix
def test_a_kill_while_a_journal_is_born_leaves_nothing_for_good(path: Path) -> None:
    """What was made by then goes when the journal is made."""
    code = """
        import sqlite3, signal
        class Killed(sqlite3.Connection):
            def executescript(self, script):
                for statement in script.split(";")[: int(heard())]:
                    super().execute(statement)
                os.kill(os.getpid(), signal.SIGKILL)
        connect = sqlite3.connect
        sqlite3.connect = lambda *args, **options: connect(*args, factory=Killed, **options)
        journal.append([begun()])
        """
    for statements in (0, 1, 4, 7, 8):
        with Peer(path, code) as peer:
            peer.tell(str(statements))
            assert peer.process.wait(timeout=20) == -signal.SIGKILL
        assert not path.exists()
    assert names(path.parent) > {"runs.db-new"}
    journal = SQLiteJournal(path)
    journal.append([begun()])
    journal.close()
    assert names(path.parent) == {"runs.db", "runs.db-claims"}
