"""A run as if it were open again from a step on: nothing of that is written before something of it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import evolve

from .entries import Entry, JournalledRun
from .errors import JournalError

if TYPE_CHECKING:
    from .protocols import Journal

__all__ = ["Rewound", "undone"]


class Rewound:
    """The journal *store*, where the run is open again from the first call of *step* on.

    That is written with the first entry which tells more than that the run has begun. So a run that is
    refused, as the code of a step has changed, stays as it was.
    """

    def __init__(self, store: Journal, run_id: str, step: str) -> None:
        self._store = store
        self._run_id = run_id
        self._step = step
        self._lock = threading.Lock()
        self._held: list[Entry] | None = []  # None once it is written

    def append(self, entries: Sequence[Entry], /) -> None:
        """Add *entries*, after what opens the run again."""
        with self._lock:
            if self._held is not None:
                entries = [*self._held, *entries]
                if all(not entry.key and entry.state == "running" for entry in entries):
                    self._held = entries
                    return
                entries = [*undone(self._store.read(self._run_id), self._step), *entries]
            self._store.append(entries)
            self._held = None

    def read(self, run_id: str, /) -> Sequence[Entry]:
        """Tell the entries of a run, and what opens it again.

        Raises:
            JournalError: the run has no such step.
        """
        with self._lock:
            entries = self._store.read(run_id)
            if self._held is None or run_id != self._run_id or not entries:
                return entries
            return [*entries, *undone(entries, self._step)]

    def runs(self) -> Sequence[JournalledRun]:
        """Tell the runs as they are."""
        return self._store.runs()

    def run(self, run_id: str, /) -> JournalledRun | None:
        """Tell how one run stands."""
        return self._store.run(run_id)

    def claim(self, run_id: str, /) -> str | None:
        """Take a run."""
        return self._store.claim(run_id)

    def release(self, run_id: str, /) -> None:
        """Give a run back."""
        self._store.release(run_id)

    def forget(self, run_ids: Sequence[str], /) -> None:
        """Drop runs."""
        self._store.forget(run_ids)

    def kept(self, key: str, now: float, /) -> str | None:
        """Tell a cached value."""
        return self._store.kept(key, now)

    def keep(self, key: str, value: str, expires: float | None, /) -> None:
        """Cache a value."""
        self._store.keep(key, value, expires)

    def expire(self, now: float, /) -> None:
        """Drop expired values."""
        self._store.expire(now)

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def undone(entries: Sequence[Entry], step: str) -> list[Entry]:
    """Say of the first call of *step*, of all after it and all that belongs to them, that they are open again.

    Raises:
        JournalError: the run has no such step.
    """
    latest = {entry.key: entry for entry in entries}
    parents = {entry.key: entry.parent for entry in entries}
    keys = _since(entries, step)
    for key in parents:
        above = key
        while above and above not in keys:
            above = parents.get(above, "")
        if above:
            keys.add(key)
    now = time.time()
    opened = [
        evolve(one, state="pending", value="", error="", at=now) for key, one in latest.items() if key in keys
    ]
    return [*opened, evolve(entries[0], state="pending", at=now)]


def _since(entries: Sequence[Entry], step: str) -> set[str]:
    """The keys that were first told of with the first call of *step*, or later."""
    for at, entry in enumerate(entries):
        if entry.key and entry.name == step:
            return {later.key for later in entries[at:] if later.key}
    names = dict.fromkeys(one.name for one in entries if one.key and one.kind != "call")
    raise JournalError(
        f"run {entries[0].run_id!r} has no recorded step {step!r}; it has {', '.join(names) or 'none'}"
    )
