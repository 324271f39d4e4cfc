"""A run and its journal: what was known of it before, and what is added now.

The entries of a run with all its child runs hang below the id of the outermost. Each is found by its key:
the way of names and arguments that leads to the call, and which of several equal calls it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Literal

import anyio

from .._fingerprint import digest
from .._forks import this_process
from .._scope import Scope, guard
from ..entries import ChangedCode, Entry
from ..errors import JournalError, RunStopped
from ..events import BodyDiverged, CodeChanged, PluginFailed
from ..settings import process
from ._loops import current_port
from ._writer import Wish, Writer

if TYPE_CHECKING:
    from ..context import RunRecord

OWN = ""
"""The key of the run itself."""


def _nothing() -> None:
    return


class Session:
    """What this process knows and does of one journalled run. It is open while the body runs."""

    def __init__(self, run: RunRecord, writer: Writer, policy: ChangedCode) -> None:
        self.run_id = run.id
        self.policy: ChangedCode = policy
        self.fault: JournalError | None = None
        self.resumed = False
        self._earlier: Entry | None = None
        self._restored: Wish | None = None
        self._scope: Scope = run.scope
        self._writer = writer
        self.journal = writer.journal
        self._sound = writer.sound
        self._info = run.info
        self._recorded: bool | None = None
        self.forget()
        self._phase: Literal["new", "open", "closed"] = "new"
        self._process = this_process()

    def forget(self) -> None:
        """Let go of what is known of the calls; a run that is over may be remembered for long."""
        self._known: dict[str, Entry] = {}
        self._unused: dict[str, dict[str, str]] = {}
        self._new: dict[str, list[str]] = {}
        self._changed: set[str] = set()
        self._anew: set[str] = set()
        self._renewed: set[str] = set()
        self._counts: dict[str, int] = {}

    # --- open and closed ---

    def recorded(self) -> tuple[Entry, Entry] | None:
        """Read what is known; tell the oldest and the newest entry about the run itself, if there are any.

        Raises:
            JournalError: the journal can't be read.
        """
        with self._advising():
            entries = self._sound.read(self.run_id)
        self._recorded = bool(entries)
        self._known = known = {entry.key: entry for entry in entries}
        opened = {entry.key for entry in entries if entry.state == "pending" and entry.key != OWN}
        self._anew = {key for key in opened if known[key].state != "completed"}
        self._unused = _way_of(entries)
        own = [entry for entry in entries if entry.key == OWN]
        return (own[0], own[-1]) if own else None

    def completed(self) -> tuple[Entry, Entry] | None:
        """Tell as :meth:`recorded` does, of a run that has completed: its result can be read whoever has it.

        Raises:
            JournalError: the journal can't be read.
        """
        with self._advising():
            run = self._sound.run(self.run_id)
        self._recorded = run is not None
        return None if run is None or run.state != "completed" else self.recorded()

    def open(self) -> tuple[Entry, Entry] | None:
        """Take the run for this process, and tell as :meth:`recorded` does.

        Raises:
            JournalError: somebody else executes it, or the journal can't be used.
            RunStopped: the run has ended meanwhile.
        """
        self._writer.settle()
        with self._advising():
            owner = self._sound.claim(self.run_id)
        if owner is not None:
            raise JournalError(
                f"run {self.run_id!r} is being executed by {owner}; when that has ended, its result can be "
                "fetched, or the run resumed"
            )
        with guard:
            ended = self._phase == "closed"
            self._phase = "closed" if ended else "open"
        if ended:
            self._give_back()
            raise RunStopped(self.run_id, "over")
        own = self.recorded()
        self.resumed = own is not None
        self._earlier = own[1] if own is not None and own[1].state != "running" else None
        return own

    def is_anew(self, key: str, slot: str) -> bool:
        """Whether a call, or one around it, was opened again by a rewind, and no result was cached in *slot* since."""
        return key in self._anew and slot not in self._renewed

    def renew(self, slot: str) -> None:
        """Note that a result was cached in *slot*."""
        self._renewed.add(slot)

    @property
    def is_open(self) -> bool:
        """Whether the run is this process's, and not that of the process which this one was forked from."""
        return self._phase == "open" and self._process is this_process()

    def close(self) -> None:
        """Give the run back; from here on nothing is written."""
        with guard:
            was_open, self._phase = self.is_open, "closed"
        if not was_open:
            return
        try:
            if self._restored is not None:
                with suppress(JournalError):
                    self._writer.wait(self._restored)
        finally:
            self._give_back()

    def leave(self, last: Entry | None = None, wake: Callable[[], object] = _nothing) -> bool:
        """Give the run back, soon, after a *last* entry; from here on nothing else is written.

        *wake* comes when that is done. False says that the run was not open.
        """
        with guard:
            was_open, self._phase = self.is_open, "closed"
            if was_open:
                self._writer.post(last, wake, self._give_back)
        if was_open:
            self._writer.ask()
        return was_open

    async def aclose(self) -> None:
        """Give the run back while the loop goes on, whatever is cancelled meanwhile."""
        waiter = current_port().waiter()
        if self.leave(wake=waiter.wake):
            with anyio.CancelScope(shield=True):
                await waiter.wait()

    # --- keys ---

    def key_of(self, parent: str, name: str, arguments: str) -> str:
        """The key of a call that is made now: the next of its equals."""
        first = digest(parent, name, arguments)
        with guard:
            count = self._counts[first] = self._counts.get(first, 0) + 1
        return first if count == 1 else digest(first, str(count))

    def find(self, key: str, parent: str, name: str) -> Entry | None:
        """The entry of a call that has completed before, if there is one."""
        entry = self._known.get(key)
        if entry is not None and entry.state == "completed":
            with guard:
                self._unused.get(parent, {}).pop(key, None)
            return entry
        if self.resumed:
            with guard:
                self._new.setdefault(parent, []).append(name)
                if parent in self._anew:
                    self._anew.add(key)
        return None

    def check_way(self, run: RunRecord, key: str) -> None:
        """Tell when the body of *run* has called something else than is recorded of it."""
        expected, found = self._unused.get(key), self._new.get(key)
        if expected and found:
            process.notice(BodyDiverged(run.info, time.time(), tuple(expected.values()), tuple(found)))

    def tell_changed(self, run: RunRecord, kind: str, name: str, policy: ChangedCode) -> None:
        """Tell, once, that the code of *name* has changed since its result was recorded, and what becomes of that."""
        with guard:
            told = name in self._changed
            self._changed.add(name)
        if not told:
            what: Literal["step", "workflow"] = "workflow" if kind == "run" else "step"
            process.notice(CodeChanged(run.info, time.time(), name, policy, what))

    # --- entries ---

    def begin(self, opening: Entry) -> None:
        """Write that the run has begun.

        Raises:
            JournalError: it could not be written; the run is suspended.
            RunStopped: the run is over.
        """
        self.write(opening)
        self._recorded = True

    def write(self, entry: Entry) -> None:
        """Write *entry* in this thread.

        Raises:
            JournalError: it could not be written; the run is suspended.
            RunStopped: the run is over, or suspended.
        """
        with guard:
            self._check_open()
            wish = self._writer.post(entry)
        try:
            self._writer.wait(wish)
        except JournalError as exc:
            raise self._suspended(exc) from exc

    async def awrite(self, entry: Entry) -> None:
        """Write *entry* while the loop goes on.

        Raises:
            JournalError: it could not be written; the run is suspended.
            RunStopped: the run is over, or suspended.
        """
        with guard:
            self._check_open()
            wish = self._writer.post(entry)
        try:
            await self._writer.await_(wish, current_port())
        except JournalError as exc:
            raise self._suspended(exc) from exc

    def add_late(self, entry: Entry) -> None:
        """Write the *entry* of a call that ended when the run was over, soon, where nobody has gone on with it."""
        if self._process is this_process():
            self._writer.post(None, then=partial(self._add, entry))
            self._writer.ask()

    def _add(self, entry: Entry) -> None:
        if self._sound.claim(self.run_id) is not None:
            return  # who has the run makes the call anew
        try:
            known = self._sound.read(self.run_id)
            if known and all(one.key != entry.key for one in known):
                self._sound.append([entry])
        finally:
            self._give_back()

    def _give_back(self) -> None:
        """Release the run. Where that fails, what the run has come to is known all the same."""
        try:
            self._sound.release(self.run_id)
        except JournalError as exc:
            process.notice(PluginFailed(self._info, time.time(), "the release of a run", exc.message))

    def check(self) -> None:
        """Go on, unless the run is suspended: what a body made of the fault is no outcome.

        Raises:
            RunStopped: it is.
        """
        if self.fault is not None:
            raise RunStopped(self.run_id, "failed")

    def _check_open(self) -> None:
        if not self.is_open:
            raise RunStopped(self.run_id, "over")
        self.check()

    def _suspended(self, exc: JournalError) -> JournalError:
        """Suspend the run, as an entry could not be written."""
        fault = self._advised(exc)
        self.suspend(fault)
        return fault

    @contextmanager
    def _advising(self) -> Generator[None]:
        try:
            yield
        except JournalError as exc:
            raise self._advised(exc) from exc

    def _advised(self, exc: JournalError) -> JournalError:
        """Say what to do with the run when the fault is mended, where that is known."""
        if self._recorded is None:
            return JournalError(exc.message)
        then = f"resume run {self.run_id!r}" if self._recorded else "start it again"
        return JournalError(f"{exc.message}; then {then}")

    def refuse(self, fault: JournalError) -> None:
        """Suspend the run, which is told to stand as it did: this code can't go on with what is recorded."""
        with guard:
            if self.is_open and self.fault is None and self._earlier is not None:
                self._restored = self._writer.post(self._earlier)
            self.fault = self.fault or fault
        self.suspend(fault)

    def suspend(self, fault: JournalError) -> None:
        """End the run here, resumably: what its outcome is stays open."""
        if self.fault is None:
            self.fault = fault
        self._scope.stop("failed")


def _way_of(entries: Sequence[Entry]) -> dict[str, dict[str, str]]:
    """The names of the calls in each body, by their keys, of the way that it took last.

    A call that was made again leaves out all that came after it before: it may have been made of what that gave.
    """
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        calls = found.setdefault(entry.parent, {})
        if entry.key in calls:
            while calls.popitem()[0] != entry.key:
                pass
        if entry.state == "completed" and entry.kind != "call" and entry.key != OWN:
            calls[entry.key] = entry.name
    return found
