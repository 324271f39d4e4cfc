"""A run as if it were open again from a step on: nothing of that is written before something of it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from itertools import dropwhile
from typing import TYPE_CHECKING, NoReturn

from attrs import evolve

from .entries import Entry, JournalledRun
from .errors import JournalError

if TYPE_CHECKING:
    from .protocols import Journal

__all__ = ["Rewound", "undone"]


class Rewound:
    """The journal *store*, where the run is open again from the first call of *step* on.

    That is written with the first entry which tells more than that the run has begun, or is open. So a run
    that is refused, as the code of a step has changed, stays as it was.
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
                if all(not entry.key and entry.state in ("running", "pending") for entry in entries):
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
    """Say of the first call of *step*, of what it called, and of all that became known after it, that it is open again.

    Raises:
        JournalError: the run has no such step.
    """
    latest = dict[str, Entry]()
    for entry in entries:
        latest.pop(entry.key, None)
        latest[entry.key] = entry  # at the end: what was made again became known again
    del latest[""]
    made = {key: one for key, one in latest.items() if one.state != "pending"}
    first = _first(made, step) or _first(latest, step) or _unknown(latest, step, entries[0].run_id)
    later = dict(dropwhile(lambda item: item[0] != first, made.items()))
    below = {key: one for key, one in made.items() if _is_below(key, first, latest)}
    now = time.time()
    opened = [evolve(one, state="pending", value="", error="", at=now) for one in (below | later).values()]
    return [*opened, evolve(entries[0], state="pending", at=now)]


def _is_below(key: str, above: str, latest: Mapping[str, Entry]) -> bool:
    """Whether the call *key* was made in the call *above*, as far as calls have ended."""
    while key not in ("", above):
        key = latest[key].parent if key in latest else ""
    return key == above


def _first(known: Mapping[str, Entry], step: str) -> str | None:
    """The key of the first call of *step*."""
    return next((key for key, entry in known.items() if entry.name == step), None)


def _unknown(known: Mapping[str, Entry], step: str, run_id: str) -> NoReturn:
    names = dict.fromkeys(entry.name for entry in known.values() if entry.kind != "call")
    raise JournalError(f"run {run_id!r} has no recorded step {step!r}; it has {', '.join(names) or 'none'}")
