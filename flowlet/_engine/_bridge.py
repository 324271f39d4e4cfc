"""The bridge: a plain call in an async body suspends that body, and the event loop goes on.

A body is driven through a pooled greenlet, one resumption at a time. When a sync step is called in
it, the greenlet is kept, what is to be awaited goes to the task underneath, and its result comes
back. Between resumptions no greenlet is held. This is the only file that knows greenlets.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from types import FrameType
from typing import Any, TypeVar, cast

from greenlet import getcurrent, greenlet

from .._forks import at_fork
from ._loops import Port, interruptible

T = TypeVar("T")
_POOL_SIZE = 64


class Body(greenlet):
    """A greenlet that runs one resumption of a body at a time."""

    caller: greenlet
    job: tuple[Coroutine[Any, Any, Any], Any, BaseException | None] | None
    outcome: tuple[object, Any]
    """What the resumption came to, as one of the words below and a value."""

    answer: tuple[Any, BaseException | None] | None
    """What the awaitable gave that the body asked for."""


class _Left(Body):
    """The body in which a process was forked, in the child: its loop is the parent's."""


def _leave() -> None:
    here = getcurrent()
    if type(here) is Body:
        here.__class__ = _Left


at_fork(after_in_child=_leave)

YIELDED, ASKED, RETURNED, RAISED = object(), object(), object(), object()
_NOTHING: tuple[object, Any] = None, None


def in_body() -> bool:
    """Whether this code runs in an async body, so that :func:`suspend` works."""
    return type(getcurrent()) is Body


def frames_below(frame: FrameType | None, package: str | None) -> Iterator[Mapping[str, Any]]:
    """The local variables of those functions of *package* that *frame* was called by, also across bodies."""
    while frame is not None:
        if frame.f_globals.get("__package__") == package:
            values = frame.f_locals
            yield values
            if frame.f_code is _resume.__code__:
                frame = values["body"].caller.gr_frame
                continue
        frame = frame.f_back


def suspend(awaitable: Awaitable[T]) -> T:
    """Await *awaitable* from plain code in an async body.

    Outcomes that may be a StopIteration are passed as values (a job): one that crosses a coroutine
    becomes a RuntimeError.
    """
    body = getcurrent()
    assert type(body) is Body
    body.outcome = ASKED, awaitable
    body.caller.switch()
    assert body.answer is not None
    result, error = body.answer
    body.answer = None
    if error is not None:
        try:
            raise error
        finally:
            del error
    return result  # type: ignore[no-any-return]


_here = cast("Callable[[], Body]", getcurrent)
"""The greenlet of this code, where that is surely one of ours."""


def _serve() -> None:
    while True:  # no local names the body: a pooled one must not keep itself alive
        _resume(_here())
        _here().caller.switch()


def _resume(body: Body) -> None:
    assert body.job is not None
    coroutine, value, error = body.job
    body.job = None
    try:
        body.outcome = YIELDED, coroutine.send(value) if error is None else coroutine.throw(error)
    except StopIteration as stop:
        body.outcome = RETURNED, stop.value
    except BaseException as exc:  # noqa: BLE001 -- carried across as a value
        body.outcome = RAISED, exc


def _new_body() -> Body:
    body = Body(interruptible(_serve))
    body.job = body.answer = None
    body.outcome = _NOTHING
    return body


@types.coroutine
def driven(coroutine: Coroutine[Any, Any, Any], port: Port) -> Generator[Any, Any, Any]:
    """Await the coroutine of a body so that plain calls in it can be suspended: resume it until it ends."""
    pool: list[Body] = port.greenlets
    value: Any = None
    error: BaseException | None = None
    while True:
        body = pool.pop() if pool else _new_body()
        body.job = (coroutine, value, error)
        value = error = None
        body.caller = here = getcurrent()
        body.gr_context = here.gr_context  # a greenlet has its own context: share the task's
        body.switch()
        came, found = body.outcome
        while came is ASKED:
            body.outcome = _NOTHING
            try:
                body.answer = (yield from found.__await__()), None
            except BaseException as exc:  # noqa: BLE001 -- raised again in the body
                body.answer = None, exc
            found = None
            body.caller = getcurrent()
            body.switch()
            came, found = body.outcome
        body.outcome = _NOTHING
        if len(pool) < _POOL_SIZE:
            pool.append(body)
        del body, here
        if came is RETURNED:
            return found
        if came is RAISED:
            try:
                raise found
            finally:
                del found
        try:
            value = yield found
        except BaseException as exc:  # noqa: BLE001 -- thrown into the body
            error = exc
        del found
