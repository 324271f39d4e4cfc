"""Many calls at once: ``pmap`` and ``gather``, and their async twins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from inspect import isawaitable
from types import CoroutineType
from typing import Any, TypeVar, overload

from ._engine import _fanout
from ._engine._failures import check_callable
from ._engine._handle import Run
from ._tracebacks import conceal
from .errors import DefinitionError

__all__ = ["agather", "apmap", "gather", "pmap"]

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")

MAX_CONCURRENCY = 32


@overload
def pmap(
    fn: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], *, max_concurrency: int = ...
) -> list[R]: ...
@overload
def pmap(fn: Callable[[T], R], items: Iterable[T], *, max_concurrency: int = ...) -> list[R]: ...
def pmap(
    fn: Callable[[Any], Any], items: Iterable[Any], *, max_concurrency: int = MAX_CONCURRENCY
) -> list[Any]:
    """Call *fn* with each item, at most *max_concurrency* at once, and give the results in order.

    The first failure stops the others and is raised as it is. An async *fn* runs in tasks of the run's loop.

    Raises:
        BridgeError: an event loop runs in this thread; write ``await apmap(...)``.
    """
    check_callable("pmap", fn)
    _check_items("pmap", items)
    try:
        return _fanout.map_in_threads(fn, items, _checked(max_concurrency))
    except Exception as exc:
        conceal(exc)
        raise


@overload
async def apmap(
    fn: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], *, max_concurrency: int = ...
) -> list[R]: ...
@overload
async def apmap(fn: Callable[[T], R], items: Iterable[T], *, max_concurrency: int = ...) -> list[R]: ...
async def apmap(
    fn: Callable[[Any], Any], items: Iterable[Any], *, max_concurrency: int = MAX_CONCURRENCY
) -> list[Any]:
    """Call *fn* with each item, at most *max_concurrency* at once, and give the results in order.

    The first failure cancels the others and is raised as it is. A sync *fn* runs on worker threads.
    """
    check_callable("apmap", fn)
    _check_items("apmap", items)
    try:
        return await _fanout.map_in_tasks(fn, items, _checked(max_concurrency))
    except Exception as exc:
        conceal(exc)
        raise


def _check_items(caller: str, items: object) -> None:
    if not (isinstance(items, Iterable) or hasattr(items, "__getitem__")):
        raise DefinitionError(
            f"{caller}(...) takes a list of items, or another iterable, not {_found(items)}.\n"
            f"    write:  {caller}(fn, [...])"
        )


def _found(given: object) -> str:
    """Say what was given in a wrong place; a coroutine is closed, since nobody else will."""
    found = f"{type(given).__name__} {given!r}"
    if isinstance(given, CoroutineType):
        given.close()
    return found


def _checked(max_concurrency: int) -> int:
    if type(max_concurrency) is not int or max_concurrency < 1:
        raise DefinitionError(f"max_concurrency={max_concurrency!r} is not a whole number of at least 1")
    return max_concurrency


@overload
def gather(a: Run[A], /) -> tuple[A]: ...
@overload
def gather(a: Run[A], b: Run[B], /) -> tuple[A, B]: ...
@overload
def gather(a: Run[A], b: Run[B], c: Run[C], /) -> tuple[A, B, C]: ...
@overload
def gather(a: Run[A], b: Run[B], c: Run[C], d: Run[D], /) -> tuple[A, B, C, D]: ...
@overload
def gather(a: Run[A], b: Run[B], c: Run[C], d: Run[D], e: Run[E], /) -> tuple[A, B, C, D, E]: ...
@overload
def gather(*handles: Run[A]) -> tuple[A, ...]: ...
def gather(*handles: Run[Any]) -> tuple[Any, ...]:
    """Wait for several runs; when one fails, cancel the others and raise its error as it is.

    Raises:
        BridgeError: an event loop runs in this thread; write ``await agather(...)``.
        DefinitionError: what is given is no handle.
    """
    return tuple(_fanout.wait_all([_handle(given) for given in handles]))


def _handle(given: object) -> Run[Any]:
    if isinstance(given, Run):
        return given  # pyright: ignore[reportUnknownVariableType] -- of whatever it gives
    raise DefinitionError(
        f"gather() takes the handles that start() returns, not {_found(given)}.\n"
        "    write:  gather(start(fn, x), start(fn, y))  or  await agather(fn(x), fn(y))"
    )


@overload
async def agather(a: Awaitable[A], /) -> tuple[A]: ...
@overload
async def agather(a: Awaitable[A], b: Awaitable[B], /) -> tuple[A, B]: ...
@overload
async def agather(a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /) -> tuple[A, B, C]: ...
@overload
async def agather(
    a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], /
) -> tuple[A, B, C, D]: ...
@overload
async def agather(
    a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], e: Awaitable[E], /
) -> tuple[A, B, C, D, E]: ...
@overload
async def agather(*awaitables: Awaitable[A]) -> tuple[A, ...]: ...
async def agather(*awaitables: Awaitable[Any]) -> tuple[Any, ...]:
    """Await several things at once; when one fails, cancel the others and raise its error as it is.

    Raises:
        DefinitionError: one of them can't be awaited.
    """
    wrong = [given for given in awaitables if not isawaitable(given)]
    if wrong:
        for given in awaitables:
            _found(given)
        raise DefinitionError(
            f"agather() takes what can be awaited, not {_found(wrong[0])}.\n"
            "    write:  await agather(afn(x), start(fn, y))"
        )
    return tuple(await _fanout.await_all(awaitables))
