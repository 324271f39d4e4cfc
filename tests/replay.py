"""The always-replay mode of our own tests: every run goes through a journal, is stopped at each step, and resumed.

``FLOWLET_TEST_REPLAY=1 pytest tests/test_workflows.py`` runs tests so. A run that nobody gave a journal gets one in
memory. When a step has been written for the first time, the run is stopped there, as a kill would stop it; then its
body begins anew with what was written, and so on, until it gets through. Tests see nothing but the last time.
Of a run with hundreds of steps some are passed over, as ``DENSE`` says.

What a journal refuses, since another process could not have it, is kept here as it is: it is the same process that
goes on. Calls whose arguments are no data are told apart by their order. ``left_out.py`` says which tests are left
out, and why.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from flowlet._engine import _calls, _kept, _places
from flowlet._engine._memo import Memo, Place, memo_of_root, parent_at, path_at
from flowlet._engine._session import OWN, Session
from flowlet._engine._writer import Journals
from flowlet.context import Frame, RunRecord, current
from flowlet.entries import Entry
from flowlet.errors import InputError, RunStopped
from flowlet.settings import process
from flowlet.specs import bare, spec_of

counts: Counter[str] = Counter()
"""What went through a journal, and how often it was stopped."""

_numbers = itertools.count()

LONG = 10.0
"""Seconds after which a run is stopped no more: its time limit holds for all its lives together."""

DENSE = 50
"""How many steps a run is stopped at before only every 2nd counts, then every 4th; few tests have so many."""


class Life:
    """A run from its first beginning to its end: its name in the journal, and what is kept as it is."""

    def __init__(self, run: RunRecord, memo: Callable[[Session], Memo]) -> None:
        self.name = f"{run.id}/{next(_numbers)}"  # an id may be used again where no journal is
        self.memo: Callable[[Session], Memo] | None = memo
        self.live: dict[str, Any] = {}
        self.steps = itertools.count(1)
        self.began = time.monotonic()

    def is_due(self) -> bool:
        """Whether the run is to be stopped at the step that was written now."""
        number = next(self.steps)
        return number % 2 ** (number // DENSE) == 0 and time.monotonic() - self.began < LONG

    def over(self) -> None:
        """Keep nothing alive any more."""
        self.memo = None
        self.live.clear()


class Stopping(Session):
    """A session that stops its run when a step has been written for the first time."""

    def __init__(self, run: RunRecord, life: Life) -> None:
        super().__init__(run, process.of(Journals).of(None), "error")
        self.run_id = life.name
        self.life = life
        self.stopped = False
        assert life.memo is not None
        run.place = Place(self, OWN, OWN, life.memo(self))
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
        if entry.kind == "step" and entry.state == "completed" and self.life.is_due():
            self.stopped = True
            counts["stops"] += 1
            raise RunStopped(self.run_id, "over")

    def again(self, run: RunRecord) -> bool:
        """Whether the run was stopped here; then it is as another process would find it."""
        if not self.stopped or run.over or run.scope.reason is not None:
            return False
        run.steps, run.calls, run.children, run.open_children = [], (), (), None
        Stopping(run, self.life)
        return True


def install() -> None:
    """Put the mode in the place of the engine's own ways, for the rest of the process."""
    for module, name, mine in (
        (_calls, "new_run", _new_run),
        (_kept, "body", _body),
        (_kept, "abody", _abody),
        (_kept, "memo_of_step", _memo_of_step),
        (_places, "memo_of_child", _memo_of_child),
    ):
        setattr(module, name, partial(mine, getattr(module, name)))
    for name, method in (("completed", _completed), ("value", _value)):
        setattr(Memo, name, _in_place_of(getattr(Memo, name), method))


def _in_place_of(real: Any, mine: Any) -> Any:
    return lambda memo, *args: mine(partial(real, memo), memo, *args)


def _new_run(real: Any, fn: Any, args: Any, kwargs: Any, frame: Any) -> RunRecord:
    run: RunRecord = real(fn, args, kwargs, frame)
    spec = spec_of(fn)
    if run.parent is None and run.place is None and spec is not None:
        Stopping(run, Life(run, partial(_memo_of_root, run, bare(fn, spec), args, kwargs)))
        counts["runs"] += 1
    return run


def _body(real: Any, run: RunRecord, call: Callable[[], Any]) -> Any:
    here = current.get()
    while True:
        current.set(here)  # what broke off may have left the place of a step that is forgotten now
        try:
            result = real(run, call)
        except BaseException:
            if not _again(run):
                _forget(run)
                raise
        else:
            _forget(run)
            return result


async def _abody(real: Any, run: RunRecord, call: Callable[[], Awaitable[Any]]) -> Any:
    here = current.get()
    while True:
        current.set(here)
        try:
            result = await real(run, call)
        except BaseException as exc:
            if isinstance(exc, GeneratorExit) or not _again(run):
                _forget(run)
                raise
        else:
            _forget(run)
            return result


def _again(run: RunRecord) -> bool:
    session = run.place.session
    return run.parent is None and isinstance(session, Stopping) and session.again(run)


def _forget(run: RunRecord) -> None:
    """Keep nothing of a run that is over, once its last entry is written."""
    session = run.place.session
    if run.parent is None and isinstance(session, Stopping):
        session.life.over()
        process.of(Journals).of(None).post(None, then=partial(session.journal.forget, [session.run_id]))


# --- what is no data -----------------------------------------------------------------------------


def _memo_of_root(run: RunRecord, fn: Any, args: Any, kwargs: Any, session: Session) -> Memo:
    try:
        return memo_of_root(session, run, fn, args, kwargs)
    except InputError:
        return Memo(session, "run", run.workflow, OWN, inputs="{}", returns=Any)


def _memo_of_step(real: Any, spec: Any, fn: Any, frame: Frame, session: Session, *call: Any) -> Memo | None:
    try:
        memo: Memo | None = real(spec, fn, frame, session, *call)
    except InputError:
        if not isinstance(session, Stopping):
            raise
        return _numbered(session, "step", spec.name, frame)
    return memo


def _memo_of_child(real: Any, name: str, fn: Any, frame: Frame, *call: Any) -> Memo | None:
    try:
        memo: Memo | None = real(name, fn, frame, *call)
    except InputError:
        assert frame.run is not None
        if not isinstance(frame.run.place.session, Stopping):
            raise
        return _numbered(frame.run.place.session, "run", name, frame)
    return memo


def _numbered(session: Session, kind: Any, name: str, frame: Frame) -> Memo:
    key = session.key_of(path_at(frame), name, "no data")
    return Memo(session, kind, name, key, parent_at(frame), returns=Any)


def _completed(real: Any, memo: Memo, result: Any, *args: Any) -> Entry:
    try:
        entry: Entry = real(result, *args)
    except InputError:
        if not isinstance(memo.session, Stopping):
            raise
        memo.session.life.live[memo.key] = result
        entry = memo.unfinished("completed")
    return entry


def _value(real: Any, memo: Memo, found: Entry) -> Any:
    live = memo.session.life.live if isinstance(memo.session, Stopping) else {}
    return live[found.key] if found.key in live else real(found)
