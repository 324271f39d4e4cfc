"""Calls whose outcomes are kept: known ones are taken from the journal or the cache, others are made and written."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import anyio

from .._scope import Scope
from ..context import OUTSIDE, Frame, FullStepRecord, RunRecord, innermost
from ..entries import Entry
from ..errors import JournalError, RunStopped
from ..settings import process
from ..specs import Spec
from ._cache import Flights, Slot, slot_of
from ._crossing import in_thread, park
from ._loops import current_port, is_cancellation
from ._memo import Found, Memo, memo_of_step
from ._retry import Raised
from ._session import OWN
from ._threads import Latch, here_busy

Function = Callable[..., Any]


# --- steps ---------------------------------------------------------------------------------------


class Kept:
    """A call of a step, with its memo in the journal and its slot in the cache, where it has them."""

    def __init__(
        self,
        spec: Spec,
        fn: Function,
        frame: Frame,
        record: FullStepRecord,
        run: RunRecord,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._run = run
        self._record = record
        self._memo: Memo | None = None
        self._slot = slot_of(spec, fn, record, run, args, kwargs)
        if run.place is not None:
            self._memo = memo_of_step(spec, fn, frame, run.place.session, args, kwargs)

    def result(self, call: Callable[[], Any]) -> Any:
        """Give what is known, or else what *call* gives, in this thread."""
        found = self._known()
        if found is not None:
            return found.value
        memo = self._memo
        try:
            result = call() if self._slot is None else self._cached(self._slot, call)
        except Exception as exc:
            if memo is not None and memo.may_write:
                memo.session.write(memo.failed(exc, attempts=self._record.attempts))
            raise
        if memo is not None:
            entry = memo.completed(result, self._record.attempts)
            result = memo.given(entry, result)
            memo.session.write(entry)
        return result

    async def aresult(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Give what is known, or else what *call* gives, while the loop goes on; a StopIteration comes as a value."""
        found = self._known()
        if found is not None:
            return found.value
        memo = self._memo
        try:
            result = await (call() if self._slot is None else self._acached(self._slot, call))
        except Exception as exc:
            if memo is not None and memo.may_write:
                await memo.session.awrite(memo.failed(exc, attempts=self._record.attempts))
            raise
        if memo is not None and isinstance(result, Raised):
            await memo.session.awrite(memo.failed(result.error, attempts=self._record.attempts))
        elif memo is not None:
            entry = memo.completed(result, self._record.attempts)
            result = memo.given(entry, result)
            await memo.session.awrite(entry)
        return result

    def _known(self) -> Found | None:
        memo = self._memo
        if memo is None:
            return None
        found = memo.known(self._run)
        if found is None:
            self._record.key = memo.key
        else:
            self._record.reused = "journal"
        return found

    def _cached(self, slot: Slot, call: Callable[[], Any]) -> Any:
        flights, scope = process.of(Flights), self._record.scope
        latch = Latch()
        while not flights.board(slot.key, scope, latch.set):
            now = innermost(self._record).scope
            try:
                park(latch, now)
                now.check()
            finally:
                flights.wait_no_more(slot.key, latch.set)
            latch = Latch()
        with flights.landing(slot.key, scope):
            found = self._look(slot)
            return self._keep(slot, call()) if found is None else found.value

    async def _acached(self, slot: Slot, call: Callable[[], Awaitable[Any]]) -> Any:
        flights, scope = process.of(Flights), self._record.scope
        waiter = current_port().waiter()
        while not flights.board(slot.key, scope, waiter.wake):
            try:
                await waiter.wait()
            finally:
                flights.wait_no_more(slot.key, waiter.wake)
            waiter = current_port().waiter()
        with flights.landing(slot.key, scope):
            found = await _off_loop(self._look, slot)
            if found is not None:
                return found.value
            result = await call()
            return result if isinstance(result, Raised) else await _off_loop(self._keep, slot, result)

    def _look(self, slot: Slot) -> Found | None:
        memo = self._memo
        if memo is not None and memo.session.is_anew(memo.key, slot.key):
            return None
        found = slot.look()
        if found is not None:
            self._record.reused = "cache"
        return found

    def _keep(self, slot: Slot, result: Any) -> Any:
        session = None if self._memo is None else self._memo.session
        if session is not None:
            session.check()
        given = slot.keep(result)
        if session is not None:
            session.renew(slot.key)
        return given


async def _off_loop(fn: Callable[..., Any], *args: Any) -> Any:
    """Call *fn*, which may block, on a worker thread; who is cancelled waits for it within the grace."""

    def busy() -> Any:
        with here_busy():
            return fn(*args)

    job = await in_thread(Frame(None, Scope(OUTSIDE)), busy, (), {})
    return job.outcome()


# --- bodies --------------------------------------------------------------------------------------


def body(run: RunRecord, call: Callable[[], Any]) -> Any:
    """Give the recorded result of *run*, or else what its body gives, in this thread."""
    memo: Memo | None = run.place.memo
    if memo is None:
        return call()
    try:
        found = _opened(run, memo)
        if found is not None:
            return found.value
        result = call()
        entry = _concluded(run, memo, result)
        result = memo.given(entry, result)
        memo.session.write(entry)
    except BaseException as exc:
        last = _broken_off(run, memo, exc)
        if last is not None:
            memo.session.write(last)
        raise
    finally:
        if memo.key == OWN:
            memo.session.close()
    return result


async def abody(run: RunRecord, call: Callable[[], Awaitable[Any]]) -> Any:
    """Give the recorded result of *run*, or else what its body gives, while the loop goes on."""
    memo: Memo | None = run.place.memo
    if memo is None:
        return await call()
    try:
        found = await _off_loop(_opened, run, memo) if memo.key == OWN else _opened(run, memo)
        if found is not None:
            return found.value
        result = await call()
        entry = _concluded(run, memo, result)
        result = memo.given(entry, result)
        await memo.session.awrite(entry)
    except GeneratorExit:  # which lets nothing be awaited
        if memo.key == OWN:
            memo.session.leave(memo.unfinished("cancelled") if memo.may_write else None)
        raise
    except BaseException as exc:
        last = _broken_off(run, memo, exc)
        if last is not None:
            with anyio.CancelScope(shield=True):
                await memo.session.awrite(last)
        raise
    finally:
        if memo.key == OWN:
            await memo.session.aclose()
    return result


def _opened(run: RunRecord, memo: Memo) -> Found | None:
    """Begin, or give what is known."""
    try:
        found = _begun(run, memo) if memo.key == OWN else memo.known(run)
    except JournalError as exc:
        if memo.session.is_open:  # what the journal failed at once the run was ours is no outcome of it
            memo.session.suspend(exc)
        raise
    if found is not None:
        run.reused = "journal"
    return found


def _begun(run: RunRecord, memo: Memo) -> Found | None:
    """Take the run for this process, unless its result is known."""
    session = memo.session
    run.on_end(partial(_left, run, memo), first=True)  # whoever waits for the end may resume it
    for look in (session.completed, session.open):
        own = look()
        if own is not None:
            memo.check_same(own[0])
            found = memo.taken(own[1], run) if own[1].state == "completed" else None
            if found is not None:
                return found
    session.begin(memo.opening())
    return None


def _left(run: RunRecord, memo: Memo) -> None:
    """Write how *run* ended and give it back, where its body has not: it goes on, or it was left behind."""
    memo.session.leave(memo.unfinished(run.state) if memo.may_write else None)


def _concluded(run: RunRecord, memo: Memo, result: object) -> Entry:
    """What is to be written when the body has given *result*.

    Raises:
        RunStopped: the run is suspended, which the body did not heed.
    """
    memo.session.check()
    memo.session.check_way(run, memo.key)
    late = run.deadline is not None and time.monotonic() >= run.deadline
    if run.scope.reason is None and not late:
        return memo.completed(result)
    return memo.unfinished("timeout" if late or run.scope.reason == "timeout" else "cancelled")


def _broken_off(run: RunRecord, memo: Memo, exc: BaseException) -> Entry | None:
    """What is to be written when *exc* came out of the body, if anything is."""
    if not memo.may_write:
        return None
    ended_from_outside = isinstance(exc, KeyboardInterrupt | RunStopped) or is_cancellation(exc)
    if run.scope.reason is None and not ended_from_outside:
        memo.session.check_way(run, memo.key)
        return memo.failed(exc)
    if memo.key != OWN:
        return None
    return memo.unfinished("timeout" if run.scope.timed_out else "cancelled")
