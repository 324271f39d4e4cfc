"""A disk that is really full: a file system of some kilobytes in a namespace of its own, where the system allows it."""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

MOUNTED = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'

SCRIPT = """
import os, sys
from flowlet import JournalError, arun, recorded_runs, resume, run, step, with_options, workflow
from flowlet.journals import SQLiteJournal

ran = []

@step
def write(number: int) -> str:
    ran.append(number)
    return f"{number}" * 2000

@step
async def awrite(number: int) -> str:
    ran.append(number)
    return f"{number}" * 2000

@workflow
def body() -> int:
    return sum(len(write(number)) for number in range(40))

@workflow
async def abody() -> int:
    return sum([len(await awrite(number)) for number in range(40)])

def leave(free: int) -> None:
    with open("filler", "wb", buffering=0) as filler:
        left = os.statvfs(".").f_bavail * os.statvfs(".").f_bsize
        filler.write(bytes(left - free * 1024))

os.chdir(sys.argv[1])
fn = {"sync": body, "async": abody}[sys.argv[2]]
right = sum(2000 * len(str(number)) for number in range(40))
told = set()
for free in range(0, 400, 20):
    leave(free)
    ran.clear()
    journal = SQLiteJournal(f"{free}.db")
    kept = with_options(fn, journal=journal, run_id="r", backend=sys.argv[3])
    try:
        result, before = run(kept), 40
    except JournalError as exc:
        told.add(str(exc).replace(str(journal.path), "FILE"))
        os.remove("filler")
        known = recorded_runs(journal)
        assert [one.state for one in known] in ([], ["running"]), known
        assert ("start it again" in str(exc)) == (not known), (exc, known)
        before = len(ran)
        result = resume("r", fn, journal=journal) if known else run(kept)
    assert result == right
    assert len(ran) in (40, 41) and sorted(set(ran)) == list(range(40)), (free, ran)
    journal.close()
    for name in os.listdir():
        os.remove(name)
print(*sorted(told), sep="\\n")
"""


@cache
def why_not() -> str | None:
    """Why there can be no file system of our own, if there can't."""
    if not shutil.which("unshare"):
        return "this system has no unshare"
    trial = ["unshare", "-rm", "sh", "-c", MOUNTED, "/mnt", "true"]
    tried = subprocess.run(trial, capture_output=True, text=True, timeout=30, check=False)
    return None if tried.returncode == 0 else f"this system mounts nothing for us: {tried.stderr.strip()}"


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_full_disk_suspends_a_run_wherever_it_strikes(colour: str, tmp_path: Path, backend: str) -> None:
    """The error says what to do then: start what is not recorded, resume what is. No finished step runs again."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    python = [sys.executable, "-c", SCRIPT, str(tmp_path), colour, backend]
    command = ["unshare", "-rm", "sh", "-c", MOUNTED, str(tmp_path), *python]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout.splitlines()
    assert "journal FILE: the disk is full (database or disk is full); make room; then start it again" in told
    assert "journal FILE: the disk is full (database or disk is full); make room; then resume run 'r'" in told
    assert not [line for line in told if "the disk is full" not in line]
