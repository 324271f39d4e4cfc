"""Calls on their way through the middleware, each of it in its own colour.

Sync middleware of an async call runs on a worker thread, async middleware of a sync call on the
run's loop; ``next`` changes sides again.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any

from ..context import Frame
from ..protocols import ModelCall, RunCall, StepCall
from ._crossing import in_thread, on_loop
from ._loops import Port, current_port

Next = Callable[[Any], Any]
Anext = Callable[[Any], Awaitable[Any]]
KINDS = (StepCall, ModelCall, RunCall)


def kinds_of(middleware: Callable[..., Any]) -> frozenset[type]:
    """The kinds of call that *middleware* wraps, as the annotation of its first parameter says."""
    if inspect.isroutine(middleware):
        return _kinds(middleware, 0)
    return _kinds(type(middleware).__call__, 1)  # the object itself may have no hash


@lru_cache(maxsize=1024)
def _kinds(target: Callable[..., Any], place: int) -> frozenset[type]:
    parameters = list(inspect.signature(target).parameters.values())
    if len(parameters) <= place:
        return frozenset(KINDS)
    parameter = parameters[place]
    try:
        hint = typing.get_type_hints(target).get(parameter.name)
    except NameError:  # a name that only type checkers import: go by the text
        hint = parameter.annotation
    if isinstance(hint, str):
        words = set(re.findall(r"\w+", hint))
        return frozenset(kind for kind in KINDS if kind.__name__ in words) or frozenset(KINDS)
    members = set(typing.get_args(hint)) or {hint}
    return frozenset(kind for kind in KINDS if kind in members) or frozenset(KINDS)


def wrapping(middleware: Sequence[Callable[..., Any]], kind: type) -> tuple[Callable[..., Any], ...]:
    """Those of *middleware* that wrap calls of *kind*."""
    return tuple(one for one in middleware if kind in kinds_of(one))


def _is_async(middleware: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(middleware) or inspect.iscoroutinefunction(
        getattr(middleware, "__call__", None)  # noqa: B004 -- asks for its colour, not for callability
    )


def through(
    middleware: Sequence[Callable[..., Any]], call: Any, last: Next, frame: Frame, port: Callable[[], Port]
) -> Any:
    """Send *call* through *middleware* to *last*, in this thread."""
    if not middleware:
        return last(call)
    first, rest = middleware[0], middleware[1:]

    def following(call: Any) -> Any:
        return through(rest, call, last, frame, port)

    if not _is_async(first):
        return first(call, following)

    async def afollowing(call: Any) -> Any:
        job = await in_thread(frame.below(frame.scope), following, (call,), {})
        return job.outcome()

    afollowing.__qualname__ = "next"  # in the message about one that was not awaited
    return on_loop(frame.below(frame.scope), port(), first, (call, afollowing))


async def athrough(middleware: Sequence[Callable[..., Any]], call: Any, last: Anext, frame: Frame) -> Any:
    """Send *call* through *middleware* to *last*, in this task."""
    if not middleware:
        return await last(call)
    first, rest = middleware[0], middleware[1:]

    async def afollowing(call: Any) -> Any:
        return await athrough(rest, call, last, frame)

    if _is_async(first):
        afollowing.__qualname__ = "next"  # in the message about one that was not awaited
        return await first(call, afollowing)
    port = current_port()

    def following(call: Any) -> Any:
        return on_loop(frame.below(frame.scope), port, afollowing, (call,))

    job = await in_thread(frame.below(frame.scope), first, (call, following), {})
    return job.outcome()
