"""Calls on their way through the middleware, each of it in its own colour.

Sync middleware of an async call runs on a worker thread, async middleware of a sync call on the
run's loop; ``next`` changes sides again. What a middleware raises itself is attributed to it.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from types import CoroutineType
from typing import Any

from ..context import Frame, innermost
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


def wrapping(middleware: Sequence[Callable[..., Any] | str], kind: type) -> tuple[Callable[..., Any], ...]:
    """Those of *middleware* that wrap calls of *kind*, as functions."""
    return tuple(one for one in functions(middleware) if kind in kinds_of(one))


def functions(middleware: Sequence[Callable[..., Any] | str]) -> list[Callable[..., Any]]:
    """Give *middleware* with what is registered or installed in place of names.

    Raises:
        ConfigError: there is no middleware of such a name.
        PluginError: it is broken.
    """
    return [_named(one) if isinstance(one, str) else one for one in middleware]


def _named(name: str) -> Callable[..., Any]:
    from .._plugins import middleware_named  # not with this module, which every program loads

    return middleware_named(name)


class _Own:
    """A block in which a middleware runs. What it raises itself is attributed to it, what comes out of ``next`` is not."""

    __slots__ = ("_call", "_middleware", "passing")

    def __init__(self, middleware: Callable[..., Any], call: Any) -> None:
        self._middleware = middleware
        self._call = call
        self.passing = _Passing()

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        came = self.passing.came.copy()
        self.passing.came.clear()  # no cycle from the traceback back to here
        if exc is None or any(one is exc for one in came):
            return
        from ._isolation import blamed_middleware  # only failures need it

        seen = blamed_middleware(self._middleware, self._call, exc)
        if seen is not exc:
            raise seen from exc


class _Passing:
    """A block around ``next``, which remembers what came out of it."""

    __slots__ = ("came",)

    def __init__(self) -> None:
        self.came: list[BaseException] = []

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        if exc is not None:
            self.came.append(exc)


def _fitting(middleware: Callable[..., Any], call: Any, result: object) -> object:
    """Give the result of a middleware, if the caller can use it.

    Raises:
        PluginError: a model call gave no completion.
    """
    kind: type = type(result)
    if type(call) is not ModelCall or kind is CoroutineType:
        return result
    from ..messages import Completion  # not with this module, which every program loads

    if isinstance(result, Completion):
        return result
    from ._isolation import no_completion

    raise no_completion(middleware, call, result)


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
    own = _Own(first, call)

    def following(call: Any) -> Any:
        with own.passing:
            return through(rest, call, last, frame, port)

    async def afollowing(call: Any) -> Any:
        place = innermost(frame)
        job = await in_thread(place.below(place.scope), following, (call,), {})
        return job.outcome()

    afollowing.__qualname__ = "next"  # in the message about one that was not awaited
    with own:
        if _is_async(first):
            result = on_loop(frame.below(frame.scope), port(), first, (call, afollowing))
        else:
            result = first(call, following)
    return _fitting(first, call, result)


async def athrough(middleware: Sequence[Callable[..., Any]], call: Any, last: Anext, frame: Frame) -> Any:
    """Send *call* through *middleware* to *last*, in this task."""
    if not middleware:
        return await last(call)
    first, rest = middleware[0], middleware[1:]
    port = current_port()
    own = _Own(first, call)

    async def afollowing(call: Any) -> Any:
        with own.passing:
            return await athrough(rest, call, last, frame)

    def following(call: Any) -> Any:
        place = innermost(frame)
        return on_loop(place.below(place.scope), port, afollowing, (call,))

    afollowing.__qualname__ = "next"  # in the message about one that was not awaited
    with own:
        if _is_async(first):
            result = await first(call, afollowing)
        else:
            job = await in_thread(frame.below(frame.scope), first, (call, following), {})
            result = job.outcome()
    return _fitting(first, call, result)
