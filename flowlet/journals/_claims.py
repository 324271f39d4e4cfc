"""Which process executes which run: one locked byte for each, in a file beside the journal.

The system gives a byte free when its process ends, whatever ends it, so nothing expires and no clock is asked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from .._forks import at_fork
from ..settings import process
from ._locks import PLACES, holder, lock, unlock
from ._sealed import data

__all__ = ["Claims"]

_OWN = "this process"
_BIRTH = PLACES  # beyond those of runs

_lock = threading.Lock()  # whoever has it claims, or forks
_open: set[int] = set()  # the descriptors of this process


class Claims:
    """The runs of the journal at *path* that this process has claimed. Its threads share them; a forked child has none."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}-claims")
        self._places: set[int] = set()
        self._held: int | None = None

    @staticmethod
    def of(path: Path) -> Claims:
        """The one of this process for a journal: a second would give the locks of the first away."""
        known = process.of(_Known).by_path
        found = known.get(path)
        if found is None:
            with process.lock:
                found = known.setdefault(path, Claims(path))
        return found

    def take(self, run_id: str) -> str | None:
        """Claim a run; None is success, else it is who has it.

        Raises:
            OSError: the file can't be opened, or the system has no locks for it.
        """
        return self._take(_place(run_id))

    def take_birth(self) -> bool:
        """Claim to make the journal, which one does at a time; False says that somebody does.

        Raises:
            OSError: as :meth:`take` does.
        """
        return self._take(_BIRTH) is None

    def _take(self, place: int) -> str | None:
        with _lock, self._file(os.O_RDWR | os.O_CREAT) as file:
            if place in self._places:
                return _OWN
            if not lock(file, place):
                return _process(holder(file, place))
            self._places.add(place)
            return None

    def release(self, run_id: str) -> None:
        """Give a run back, if it is this process's."""
        self._release(_place(run_id))

    def release_birth(self) -> None:
        """Let others make the journal, if it is gone again."""
        self._release(_BIRTH)

    def _release(self, place: int) -> None:
        with _lock:
            if place in self._places:
                with self._file(os.O_RDWR) as file:
                    unlock(file, place)
                    self._places.discard(place)

    def owners(self, run_ids: Iterable[str]) -> dict[str, str]:
        """Tell who has each of those runs that somebody has."""
        with _lock:
            try:
                with self._file(os.O_RDONLY) as file:
                    return dict(self._owners(file, run_ids))
            except FileNotFoundError:
                return {}  # nobody ever claimed a run

    def _owners(self, file: int, run_ids: Iterable[str]) -> Generator[tuple[str, str]]:
        others = holder(file, 0, PLACES) is not None
        for run_id in run_ids if others or self._places else ():
            place = _place(run_id)
            if place in self._places:
                yield run_id, _OWN
            elif others and (found := holder(file, place)) is not None:
                yield run_id, _process(found)

    @contextmanager
    def _file(self, how: int) -> Generator[int]:
        """The one descriptor, which stays open while there are claims: closing it gives them all back."""
        if self._held is None:
            self._held = os.open(self._path, how, 0o666)
            _open.add(self._held)
        try:
            yield self._held
        finally:
            if not self._places:
                _open.discard(self._held)
                os.close(self._held)
                self._held = None


class _Known:
    def __init__(self) -> None:
        self.by_path: dict[Path, Claims] = {}


def _place(run_id: str) -> int:
    return int.from_bytes(blake2b(data(run_id), digest_size=8).digest()) % PLACES


def _process(number: int | None) -> str:
    return f"process {number}" if number else "another process"


def _leave() -> None:
    """Let go, in a forked child, of what is its parent's: locks end when nobody has their descriptor any more."""
    while _open:
        with suppress(OSError):  # the program has closed it
            os.close(_open.pop())
    _lock.release()


at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_leave)
