"""Another process with the same journal, which tests talk to line by line."""

import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from flowlet.entries import Entry

PRELUDE = """
import os, sys, threading, time
from flowlet.errors import JournalError
from flowlet.journals import SQLiteJournal
from peer import begun, made, say
journal = SQLiteJournal(sys.argv[1])
def heard():
    return sys.stdin.readline().strip()
"""


def begun(run_id: str = "tea-1") -> Entry:
    """The first entry of a run."""
    return Entry(run_id, "", "run", "talk", "running", at=1.0)


def made(key: str, run_id: str = "tea-1") -> Entry:
    """The entry of a step that has completed."""
    return Entry(
        run_id, key, "step", "write", "completed", inputs='{"about": "tea"}', value=f'"{key}"', at=2.0
    )


def say(*words: object) -> None:
    print(*words, flush=True)


class Peer:
    """A Python process that runs *code* after the prelude; leaving the block kills it, if it still runs."""

    def __init__(self, journal: Path, code: str, options: Iterable[str] = (), **how: object) -> None:
        script = PRELUDE + textwrap.dedent(code)
        command = [sys.executable, *options, "-c", script, str(journal)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=Path(__file__).parent, **how
        )  # type: ignore[call-overload]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        """The next line that it says."""
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, line: str = "go") -> None:
        """Let it hear *line*."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self.process.kill()
        self.process.wait()

    def end(self) -> str:
        """Wait until it has ended well; tell what else it said."""
        said, complaints = self.process.communicate(timeout=60)
        assert (self.process.returncode, complaints) == (0, "")
        return said
