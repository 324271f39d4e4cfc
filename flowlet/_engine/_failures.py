"""What goes wrong with a step: how it ended, which one it was, and the line that works."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from time import perf_counter
from types import CoroutineType
from typing import Any, TypeGuard, cast

from .._raised import describe
from ..context import RunRecord, StepRecord
from ..errors import BridgeError, DefinitionError, Failure, StepTimeout, attribute, failure_of
from ._loops import is_cancellation

ASYNC_CODE: set[object] = set()
"""The code of async wrappers, by which a coroutine that nobody awaited is known."""


def refuse_unawaited(value: object, where: str) -> None:
    """Refuse a coroutine of an async step or workflow as an argument, in the place of its result.

    Raises:
        BridgeError: naming the step that was not awaited.
    """
    if _of_a_step(value):
        raise _unawaited([value], f"{where!r} was given a coroutine in place of its result")


def _of_a_step(value: object) -> TypeGuard[CoroutineType[Any, Any, Any]]:
    return isinstance(value, CoroutineType) and value.cr_code in ASYNC_CODE


def _unawaited(found: Sequence[CoroutineType[Any, Any, Any]], told: str) -> BridgeError:
    for coroutine in found:
        coroutine.close()
    whole = found[0].__qualname__
    return BridgeError(f"{short(whole)!r} is async and was not awaited: {told}.\n{lines_that_work(whole)}")


def short(qualname: str) -> str:
    """The name of a function without those of what is around it."""
    return qualname.rpartition(".")[2]


def lines_that_work(qualname: str) -> str:
    """Show how the async function *qualname* is called."""
    name = short(qualname)
    plain = (
        f"run({name}, ...)" if qualname != f"AsyncLLM.{name}" else f"{name}(...) of an LLM, not an AsyncLLM"
    )
    return f"    in an async def body:  await {name}(...)\n    in a def body:         {plain}"


def awaited(value: object, where: str) -> object:
    """Give *value*, a result; refuse any coroutine there, since the hints promise what it would give.

    Raises:
        BridgeError: naming the function that was not awaited.
    """
    if type(value) is CoroutineType:
        raise gave_coroutine(value, where)  # pyright: ignore[reportUnknownArgumentType]
    return value


def gave_coroutine(coroutine: CoroutineType[Any, Any, Any], where: str) -> BridgeError:
    """The error of a *coroutine* that *where* gave, which promises its result."""
    return _unawaited([coroutine], f"{where!r} gave a coroutine in place of a result")


def refuse_within(result: object, where: str) -> None:
    """Refuse coroutines of async steps and workflows in a list, tuple, set or dict, the result of a run.

    Raises:
        BridgeError: naming the first that was not awaited.
    """
    kind: type = type(result)
    if kind not in (list, tuple, set, dict):
        return
    values = (
        cast("dict[object, object]", result).values() if kind is dict else cast("Collection[object]", result)
    )
    if CoroutineType in map(type, values) and (found := [one for one in values if _of_a_step(one)]):
        raise _unawaited(found, f"{where!r} gave its coroutine in a {kind.__name__}, in place of its result")


def check_callable(caller: str, fn: object) -> None:
    """Refuse what is no function in its place.

    Raises:
        DefinitionError: with the line that works.
    """
    if callable(fn):
        return
    name, found = "fn", f"{type(fn).__name__} {fn!r}"
    if isinstance(fn, CoroutineType):
        name = fn.__qualname__.rpartition(".")[2]
        fn.close()
    raise DefinitionError(
        f"{caller}(...) takes a function and what to call it with, not {found}.\n"
        f"    write:  {caller}({name}, ...)"
    )


def no_bridge(name: str) -> BridgeError:
    """The error of a plain call that would block an event loop."""
    return BridgeError(
        f"{name}(...) would block the event loop of this task, which flowlet did not start.\n"
        f"    instead of:  {name}(...)\n"
        f"    write:       await arun({name}, ...)"
    )


def failed(record: StepRecord, run: RunRecord, exc: BaseException) -> None:
    """Record how *exc* ended a step, and put the step's place on it."""
    record.ended = perf_counter()
    cancelled = is_cancellation(exc)
    if isinstance(exc, StepTimeout) and exc.step == record.name and failure_of(exc) is None:
        record.state = "timeout"
    else:
        record.state = "cancelled" if cancelled else "failed"
    record.error = describe(exc)
    old = failure_of(exc)
    if not cancelled and (old is None or old.serial < record.started):
        attribute(exc, _failure(record, run, exc))


def _failure(record: StepRecord, run: RunRecord, exc: BaseException) -> Failure:
    path = [record.name]
    parent = record.parent
    while parent is not None:
        path.append(run.steps[parent].name)
        parent = run.steps[parent].parent
    text = describe(exc).partition(": ")[2]
    path.reverse()
    return Failure(
        record.name,
        tuple(path),
        record.attempts,
        run.workflow,
        run.id,
        type(exc).__qualname__,
        text,
        record.started,
    )
