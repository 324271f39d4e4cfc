"""The always-replay mode of our own tests: every run goes through a journal, is stopped at each step, and resumed.

``FLOWLET_TEST_REPLAY=1 pytest tests/test_workflows.py`` runs tests so. A run that nobody gave a journal gets one in
memory. When a step has been written for the first time, the run is stopped there, as a kill would stop it; then its
body begins anew with what was written, and so on, until it gets through. Tests see nothing but the last time. A
long run is stopped at its first steps, then at every 2nd, 4th, 8th, so that the time stays within bounds.

What a journal can't hold is outside of the mode, and counted: runs whose inputs are no data, steps whose arguments
or results are none. ``left_out.py`` says which tests are left out, and why.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from flowlet._engine import _calls, _kept, _places
from flowlet._engine._memo import Memo, Place, memo_of_root
from flowlet._engine._session import OWN, Session
from flowlet._engine._writer import Journals
from flowlet.context import RunRecord
from flowlet.entries import Entry
from flowlet.errors import InputError, RunStopped
from flowlet.settings import process
from flowlet.specs import bare, spec_of

DENSE = 16
"""How many steps a run is stopped at before only every 2nd counts, then every 4th."""

counts: Counter[str] = Counter()
"""What went through a journal, how often it was stopped, and what could not."""

_numbers = itertools.count()


class Stopping(Session):
    """A session that stops its run when a step has been written for the first time."""

    def __init__(
        self, run: RunRecord, memo: Callable[[Session], Memo], name: str, steps: Iterator[int]
    ) -> None:
        super().__init__(run, process.of(Journals).of(None), "error")
        self.run_id = name  # an id may be used again where no journal is
        self.steps = steps
        self.memo = memo
        self.stopped = False
        run.place = Place(self, OWN, OWN, memo(self))
        run.simple = False

    def write(self, entry: Entry) -> None:
        self._before(entry)
        super().write(entry)
        self._after(entry)

    async def awrite(self, entry: Entry) -> None:
        self._before(entry)
        await super().awrite(entry)
        self._after(entry)

    def _before(self, entry: Entry) -> None:
        if self.stopped and entry.kind != "call":
            raise RunStopped(self.run_id, "over")

    def _after(self, entry: Entry) -> None:
        if entry.kind == "step" and entry.state == "completed" and _is_due(next(self.steps)):
            self.stopped = True
            counts["stops"] += 1
            raise RunStopped(self.run_id, "over")

    def again(self, run: RunRecord) -> bool:
        """Whether the run was stopped here; then it is as another process would find it."""
        if not self.stopped or run.over or run.scope.reason is not None:
            return False
        run.steps, run.calls, run.children, run.open_children = [], (), (), None
        Stopping(run, self.memo, self.run_id, self.steps)
        return True


def _is_due(number: int) -> bool:
    return number % 2 ** (number // DENSE) == 0


def install() -> None:
    """Put the mode in the place of the engine's own ways, for the rest of the process."""
    for module, name, mine in (
        (_calls, "new_run", _new_run),
        (_kept, "body", _body),
        (_kept, "abody", _abody),
        (_kept, "memo_of_step", _lenient),
        (_places, "memo_of_child", _lenient),
    ):
        setattr(module, name, partial(mine, getattr(module, name)))
    real = Memo.completed
    Memo.completed = lambda *args: _completed(real, *args)  # type: ignore[method-assign]


def _new_run(real: Any, fn: Any, args: Any, kwargs: Any, frame: Any) -> RunRecord:
    run: RunRecord = real(fn, args, kwargs, frame)
    spec = spec_of(fn)
    if run.parent is None and run.place is None and spec is not None:
        body = bare(fn, spec)
        try:
            name = f"{run.id}/{next(_numbers)}"
            Stopping(run, lambda s: memo_of_root(s, run, body, args, kwargs), name, itertools.count(1))
            counts["runs"] += 1
        except InputError:
            counts["runs whose inputs are no data"] += 1
    return run


def _body(real: Any, run: RunRecord, call: Callable[[], Any]) -> Any:
    while True:
        try:
            return real(run, call)
        except BaseException:
            if not _again(run):
                raise


async def _abody(real: Any, run: RunRecord, call: Callable[[], Awaitable[Any]]) -> Any:
    while True:
        try:
            return await real(run, call)
        except GeneratorExit:
            raise
        except BaseException:
            if not _again(run):
                raise


def _again(run: RunRecord) -> bool:
    session = run.place.session
    return run.parent is None and isinstance(session, Stopping) and session.again(run)


def _lenient(real: Any, *args: Any) -> Memo | None:
    try:
        memo: Memo | None = real(*args)
    except InputError:
        counts["calls whose arguments are no data"] += 1
        return None
    return memo


def _completed(real: Any, memo: Memo, *args: Any) -> Entry:
    try:
        entry: Entry = real(memo, *args)
    except InputError:
        if not isinstance(memo.session, Stopping):
            raise
        counts["results that are no data"] += 1
        return memo.unfinished("pending")
    return entry
