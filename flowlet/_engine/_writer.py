"""Entries on their way into a journal, many at once: whoever comes first writes for all who wait."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from types import CoroutineType
from typing import Any, cast

from .._doors import Door
from .._raised import describe
from ..entries import Entry
from ..errors import FlowletError, JournalError
from ..protocols import Journal
from ..settings import process
from ._loops import Port
from ._threads import Latch, started

GROUP = 256
"""How many entries are written at once at most."""

UNTIDY = 2000
"""How many entries a journal that loops write to gets before it is tidied; a long one counts once for each *PAGE* of it."""
PAGE = 2048
"""Bytes."""

QUICK = 0.5
"""Seconds in which a group fails that is tried again run by run; what takes longer waited for the journal itself."""

_NONE: Mapping[str, JournalError | None] = {}


class Wish:
    """An entry that somebody wants to be written, what is to be done *then*, and how that went."""

    __slots__ = ("done", "entry", "error", "then", "wake")

    def __init__(
        self, entry: Entry | None, wake: Callable[[], object], then: Callable[[], object] | None
    ) -> None:
        self.entry = entry
        self.wake = wake
        self.then = then
        self.done = False
        self.error: JournalError | None = None

    def check(self) -> None:
        """Go on, if it was written.

        Raises:
            JournalError: it could not be.
        """
        if self.error is not None:
            raise JournalError(self.error.message) from self.error


def _nobody() -> None:
    return


class Sound:
    """A journal, which may be anybody's, so that whatever goes wrong in it is a :class:`JournalError`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(_asked, self._journal, name)


def _asked(journal: Journal, name: str, *args: object) -> Any:
    try:
        found = getattr(journal, name)(*args)
    except JournalError:
        raise
    except Exception as exc:
        raise JournalError(f"the journal failed: {describe(exc)}") from exc
    if type(found) is CoroutineType:
        found.close()
        raise JournalError(f"the journal failed: its {name!r} is async; a journal has plain functions")
    return found


def _is_nowait(kind: type) -> bool:
    """Whether loops may write to journals of *kind*: not where ``append`` was changed below ``append_nowait``."""
    for base in kind.__mro__:
        if "append_nowait" in vars(base):
            return True
        if "append" in vars(base):
            return False
    return False


class Writer:
    """The way into one journal. Who waits writes, a loop only what takes no time; else the writer's own thread does."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.sound = cast("Journal", Sound(journal))
        self._wishes: deque[Wish] = deque()
        self._door = Door(threading.RLock())
        self._starting = threading.Lock()
        self._asked: Latch | None = None
        self._nowait = _is_nowait(type(journal))
        self._by_loops = False  # whether some have written, and so put off what a thread has to do
        self._new = 0
        self._untidy = False

    @property
    def name(self) -> str:
        """What messages call the journal: by its path, where it has one."""
        return f"the journal {getattr(self.journal, 'path', '')}".rstrip()

    def post(
        self,
        entry: Entry | None,
        wake: Callable[[], object] = _nobody,
        then: Callable[[], object] | None = None,
    ) -> Wish:
        """Put *entry* behind what is to be written already; it is written when somebody waits, or is asked to."""
        wish = Wish(entry, wake, then)
        self._wishes.append(wish)
        return wish

    def wait(self, wish: Wish) -> None:
        """Write, in this thread, until *wish* is done; then its entry survives a kill of the process.

        Raises:
            JournalError: it could not be written.
        """
        self._door.enter(self._write_until, wish)
        wish.check()

    async def await_(self, wish: Wish, port: Port) -> None:
        """Wait for *wish* in a task. When that is cancelled, the entry is written all the same.

        The loop goes round once before it writes, so that one group has all that its tasks post meanwhile.

        Raises:
            JournalError: it could not be written.
        """
        waiter = port.waiter()
        try:
            if self._nowait:
                await port.turn()
                if not wish.done:
                    self._door.enter_nowait(self._write_nowait)
            if not wish.done:
                wish.wake = waiter.wake
        finally:
            if not wish.done:
                self.ask()
        if not wish.done:
            await waiter.wait()
        wish.check()

    def settle(self) -> None:
        """Do, in this thread, what was posted until now."""
        self._door.enter(self._write_all)

    def _write_until(self, wish: Wish) -> None:
        while not wish.done:
            self._write_group()

    def _write_all(self) -> None:
        while self._wishes:
            self._write_group()

    def _write_group(self) -> None:
        group = [*self._wishes][:GROUP]
        try:
            entries = [wish.entry for wish in group if wish.entry is not None]
            self._told(group, self._append(entries) if entries else _NONE)
        except BaseException:
            self.ask()
            raise

    def _write_nowait(self) -> bool:
        """Write what was posted, if that does not wait."""
        group = [*self._wishes][:GROUP]
        entries = [wish.entry for wish in group if wish.entry is not None and wish.then is None]
        errors = self._append_nowait(entries) if entries and len(entries) == len(group) else None
        if errors is not None:
            self._by_loops = True
            self._told(group, errors)
        return errors is not None

    def _told(self, group: Sequence[Wish], errors: Mapping[str, JournalError | None]) -> None:
        """Tell all who wait how it went; a Ctrl-C amidst leaves the rest for the next who writes: twice does no harm."""
        for wish in group:
            if self._by_loops and wish.entry is not None:
                self._new += 1 + len(wish.entry.value) // PAGE
            error = errors.get(wish.entry.run_id) if errors and wish.entry is not None else None
            wish.error = error if wish.then is None else _tried(wish.then) or error
            wish.done = True
            wish.wake()
            self._wishes.popleft()
        if self._new >= UNTIDY:
            self._new, self._untidy = 0, True
            self.ask()

    def _append_nowait(self, entries: Sequence[Entry]) -> Mapping[str, JournalError | None] | None:
        """Append *entries* as :meth:`_append` does; None says that nothing was done."""
        try:
            added = _asked(self.journal, "append_nowait", entries)
        except JournalError as exc:
            run_id = entries[0].run_id
            return {run_id: exc} if all(entry.run_id == run_id for entry in entries) else None
        return _NONE if added else None

    def _append(self, entries: Sequence[Entry]) -> Mapping[str, JournalError | None]:
        """Append *entries*; tell what went wrong with which run. A run that is damaged takes no other with it."""
        began = time.monotonic()
        try:
            _asked(self.journal, "append", entries)
        except JournalError as exc:
            runs = {entry.run_id: list[Entry]() for entry in entries}
            if len(runs) == 1 or time.monotonic() - began > QUICK:
                return dict.fromkeys(runs, exc)
        else:
            return _NONE
        for entry in entries:
            runs[entry.run_id].append(entry)
        return {run_id: _tried(_asked, self.journal, "append", own) for run_id, own in runs.items()}

    def ask(self) -> None:
        """Let the writer's own thread do what was posted; where there can be none, this one does."""
        if self._asked is None:
            with self._starting:
                if self._asked is None:
                    asked = Latch()
                    try:
                        started(lambda: self._serve(asked), "flowlet journal")
                    except FlowletError:  # as the interpreter ends, or is out of threads
                        self.settle()
                        return
                    self._asked = asked
        self._asked.set()

    def _serve(self, asked: Latch) -> None:
        while asked.wait():
            self.settle()
            if self._untidy:
                self._untidy = False
                _tried(_asked, self.journal, "tidy")


def _tried(call: Callable[..., object], *args: object) -> JournalError | None:
    """Call a journal, and give its error as a value, for all who wait."""
    try:
        call(*args)
    except JournalError as exc:
        return exc
    return None


class Journals:
    """The journals that this process writes to, each with its one writer."""

    def __init__(self) -> None:
        self._writers: dict[object, Writer] = {}

    def of(self, where: str | PathLike[str] | Journal | None) -> Writer:
        """The writer of the journal at a path, of the one given, or, for None, of one in memory.

        Raises:
            JournalError: it can't be opened.
        """
        try:
            key = str(Path(where).expanduser().absolute()) if isinstance(where, str | PathLike) else where
            with process.lock:
                found = self._writers.get(key)
                if found is None:
                    journal = process.open_journal(key) if key is None or isinstance(key, str) else key
                    found = self._writers[key] = Writer(journal)
            return found
        except (OSError, ValueError, RuntimeError) as exc:  # such as a NUL in it, or the home of nobody
            raise JournalError(f"journal {where!r}: no file can have this name ({exc})") from exc

    def settle(self) -> None:
        """Do what was posted to any of them until now."""
        for writer in tuple(self._writers.values()):
            writer.settle()


def _settle() -> None:
    journals = process.existing(Journals)
    if journals is not None:
        journals.settle()


process.at_end(_settle)
