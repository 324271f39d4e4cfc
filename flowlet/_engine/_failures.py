"""What goes wrong with a step: how it ended, which one it was, and the line that works."""

from __future__ import annotations

from time import perf_counter
from types import CoroutineType

from .._raised import describe
from ..context import RunRecord, StepRecord
from ..errors import BridgeError, DefinitionError, Failure, StepTimeout, attribute, failure_of

ASYNC_CODE: set[object] = set()
"""The code of async wrappers, by which a coroutine that nobody awaited is known."""


def refuse_unawaited(value: object, where: str) -> None:
    """Refuse a coroutine of an async step or workflow in the place of its result.

    Raises:
        BridgeError: naming the step that was not awaited.
    """
    if isinstance(value, CoroutineType) and value.cr_code in ASYNC_CODE:
        name = value.__qualname__.rpartition(".")[2]
        value.close()
        raise BridgeError(
            f"{name!r} is async and was not awaited: {where!r} was given a coroutine in place of its result.\n"
            f"{lines_that_work(name)}"
        )


def lines_that_work(name: str) -> str:
    """Show how the async step *name* is called."""
    return f"    in an async def body:  await {name}(...)\n    in a def body:         run({name}, ...)"


def awaited(value: object, where: str) -> object:
    """Give *value*, a result; refuse any coroutine there, since the hints promise what it would give.

    Raises:
        BridgeError: naming the function that was not awaited.
    """
    if type(value) is CoroutineType:
        refuse_unawaited(value, where)  # pyright: ignore[reportUnknownArgumentType]
        name = value.__qualname__.rpartition(".")[2]
        value.close()
        raise BridgeError(
            f"{name!r} is async and was not awaited: {where!r} gave a coroutine in place of a result.\n"
            f"    pass {name!r} itself, with functools.partial where arguments are to be bound,\n"
            f"    or await it in an async def"
        )
    return value


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
    if isinstance(exc, StepTimeout) and exc.step == record.name and failure_of(exc) is None:
        record.state = "timeout"
    elif isinstance(exc, Exception | SystemExit):
        record.state = "failed"
    else:
        record.state = "cancelled"
    record.error = describe(exc)
    old = failure_of(exc)
    if isinstance(exc, Exception) and (old is None or old.serial < record.started):
        attribute(exc, _failure(record, run, exc))


def _failure(record: StepRecord, run: RunRecord, exc: Exception) -> Failure:
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
