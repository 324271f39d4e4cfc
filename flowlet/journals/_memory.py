"""A journal in memory, for tests: it ends with the process, and only its threads can share it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from attrs import evolve

from ..entries import Entry, JournalledRun
from ._lines import by_run, grown

__all__ = ["MemoryJournal"]

MANY = 1000
"""How many values are cached before expired ones are looked for; then twice as many as were left."""


class MemoryJournal:
    """Keeps runs until the process ends; what it can do is what :class:`~flowlet.protocols.Journal` says."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, JournalledRun] = {}
        self._entries: dict[str, list[Entry]] = {}
        self._claimed: set[str] = set()
        self._cache: dict[str, tuple[str, float | None]] = {}
        self._many = MANY

    def append(self, entries: Sequence[Entry], /) -> None:
        """Add *entries*, all or none.

        Raises:
            JournalError: the first entry of a run does not say that it begins.
        """
        with self._lock:
            groups = by_run(entries)
            self._runs |= {run_id: grown(self._runs.get(run_id), group) for run_id, group in groups.items()}
            for run_id, group in groups.items():
                self._entries.setdefault(run_id, []).extend(group)

    def append_nowait(self, entries: Sequence[Entry], /) -> bool:
        """Add *entries*: that never takes long."""
        self.append(entries)
        return True

    def tidy(self) -> None:
        """Do nothing: nothing is put off."""

    def read(self, run_id: str, /) -> Sequence[Entry]:
        """Tell all entries of a run in their order."""
        with self._lock:
            return tuple(self._entries.get(run_id, ()))

    def runs(self) -> Sequence[JournalledRun]:
        """Tell the runs, the newest first."""
        with self._lock:
            return tuple(map(self._told, reversed(self._runs.values())))

    def run(self, run_id: str, /) -> JournalledRun | None:
        """Tell how one run stands; None for a run that is not known."""
        with self._lock:
            found = self._runs.get(run_id)
            return None if found is None else self._told(found)

    def _told(self, run: JournalledRun) -> JournalledRun:
        return evolve(run, entries=len(self._entries[run.run_id]), owner=self._owner(run.run_id))

    def _owner(self, run_id: str) -> str | None:
        return "this process" if run_id in self._claimed else None

    def claim(self, run_id: str, /) -> str | None:
        """Take a run; None is success, else it is text that says who has it."""
        with self._lock:
            owner = self._owner(run_id)
            self._claimed.add(run_id)
            return owner

    def release(self, run_id: str, /) -> None:
        """Give a run back."""
        with self._lock:
            self._claimed.discard(run_id)

    def forget(self, run_ids: Sequence[str], /) -> None:
        """Drop runs with all their entries."""
        with self._lock:
            for run_id in run_ids:
                self._runs.pop(run_id, None)
                self._entries.pop(run_id, None)

    def kept(self, key: str, now: float, /) -> str | None:
        """Tell the cached value of *key*, unless it has expired. When there are many, expired ones are dropped."""
        if len(self._cache) > self._many:
            self.expire(now)
            self._many = max(MANY, 2 * len(self._cache))
        with self._lock:
            value, expires = self._cache.get(key, (None, None))
        return None if expires is not None and expires <= now else value

    def keep(self, key: str, value: str, expires: float | None, /) -> None:
        """Cache *value* until *expires*, or for good."""
        with self._lock:
            self._cache[key] = value, expires

    def expire(self, now: float, /) -> None:
        """Drop the cached values that have expired."""
        with self._lock:
            for key, (_, expires) in [*self._cache.items()]:
                if expires is not None and expires <= now:
                    del self._cache[key]

    def close(self) -> None:
        """Do nothing: nothing is open."""
