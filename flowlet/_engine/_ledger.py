"""What this process has used: its model calls summed up, and its budget."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping

from ..metrics import CallRecord, Usage
from ..settings import process
from ._budget import Meter

NEWEST = 10_000
"""How many calls are remembered one by one, so that they can be summed up since a time."""

Key = tuple[str, str | None, str | None]


class ProcessMeter:
    """The budget of the whole process, if there is one; another one in the settings begins anew."""

    def __init__(self) -> None:
        self._meter: Meter | None = None

    def now(self) -> Meter | None:
        """The meter of the budget that holds now."""
        budget = process.settings.budget.process
        if budget is None:
            return None
        with process.lock:
            if self._meter is None or self._meter.budget is not budget:
                self._meter = Meter(budget, "process")
            return self._meter


class Ledger:
    """The model calls of this process, summed up by model, workflow and step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[Key, Usage] = {}
        self._newest: deque[tuple[float, Key, Usage]] = deque(maxlen=NEWEST)
        self._count = 0

    def add(self, record: CallRecord) -> None:
        """Count *record*."""
        key = (record.model, record.workflow, record.step)
        one = Usage.of((record,))
        with self._lock:
            self._count += 1
            self._sums[key] = self._sums.get(key, Usage()) + one
            self._newest.append((record.at, key, one))

    def sums(self, since: float | None = None) -> Mapping[Key, Usage]:
        """The sums by model, workflow and step, of all calls or of those that ended at *since* or later.

        Raises:
            ValueError: *since* lies before the calls that are remembered one by one.
        """
        with self._lock:
            if since is None:
                return dict(self._sums)
            if self._count > NEWEST and since < self._newest[0][0]:
                raise ValueError(
                    f"only the newest {NEWEST} calls are remembered one by one; take the difference "
                    "of two usage() instead"
                )
            found: dict[Key, Usage] = {}
            for at, key, one in self._newest:
                if at >= since:
                    found[key] = found.get(key, Usage()) + one
            return found
