"""Entries on their way into a journal, many at once: whoever comes first writes for all who wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from os import PathLike
from pathlib import Path

from ..context import describe
from ..entries import Entry
from ..errors import JournalError
from ..protocols import Journal
from ..settings import process
from ._loops import current_port
from ._threads import Latch, started

GROUP = 256
"""How many entries are written at once at most."""


class _Wish:
    """An entry that somebody wants to be written, and how that went."""

    __slots__ = ("done", "entry", "error", "wake")

    def __init__(self, entry: Entry, wake: Callable[[], object]) -> None:
        self.entry = entry
        self.wake = wake
        self.done = False
        self.error: JournalError | None = None

    def check(self) -> None:
        if self.error is not None:
            raise JournalError(self.error.message) from self.error


def _nobody() -> None:
    return


class Writer:
    """The way into one journal. A thread writes itself; for tasks the writer's own thread does."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._wishes: deque[_Wish] = deque()
        self._writing = threading.Lock()
        self._starting = threading.Lock()
        self._asked: Latch | None = None

    def write(self, entry: Entry) -> None:
        """Write *entry*, in this thread; when it returns, *entry* survives a kill of the process.

        Raises:
            JournalError: it could not be written.
        """
        wish = _Wish(entry, _nobody)
        self._wishes.append(wish)
        with self._writing:
            while not wish.done:
                self._write_group()
        wish.check()

    async def awrite(self, entry: Entry) -> None:
        """Write *entry*, while the loop goes on. One that is cancelled meanwhile is written all the same.

        Raises:
            JournalError: it could not be written.
        """
        waiter = current_port().waiter()
        wish = _Wish(entry, waiter.wake)
        self._wishes.append(wish)
        self._ask()
        await waiter.wait()
        wish.check()

    def _write_group(self) -> None:
        group: list[_Wish] = []
        error: JournalError | None = JournalError("the write was interrupted")
        try:
            while self._wishes and len(group) < GROUP:
                group.append(self._wishes.popleft())
            self.journal.append([wish.entry for wish in group])
            error = None
        except JournalError as exc:
            error = exc
        except Exception as exc:  # noqa: BLE001 -- a journal of somebody else's; handed on to all who wait
            error = JournalError(f"the journal failed: {describe(exc)}")
            error.__cause__ = exc
        finally:
            for wish in group:
                wish.error, wish.done = error, True
                wish.wake()

    def _ask(self) -> None:
        if self._asked is None:
            with self._starting:
                if self._asked is None:
                    asked = Latch()
                    started(lambda: self._serve(asked), "flowlet journal")
                    self._asked = asked
        self._asked.set()

    def _serve(self, asked: Latch) -> None:
        while asked.wait():
            with self._writing:
                while self._wishes:
                    self._write_group()


class Journals:
    """The journals that this process writes to, each with its one writer."""

    def __init__(self) -> None:
        self._writers: dict[object, Writer] = {}

    def of(self, where: str | PathLike[str] | Journal | None) -> Writer:
        """The writer of the journal at a path, of the one given, or, for None, of one in memory.

        Raises:
            JournalError: it can't be opened.
        """
        key = str(Path(where).expanduser().absolute()) if isinstance(where, str | PathLike) else where
        with process.lock:
            found = self._writers.get(key)
            if found is None:
                journal = process.open_journal(key) if key is None or isinstance(key, str) else key
                found = self._writers[key] = Writer(journal)
        return found
