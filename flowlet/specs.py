"""What a decorated function is: one frozen recipe on it, and the names of every option."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from functools import partial
from os import PathLike
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from attrs import field, fields, frozen

from ._value import Shown, Value
from .errors import DefinitionError

if TYPE_CHECKING:
    from datetime import timedelta

    from .entries import ChangedCode

if TYPE_CHECKING:
    from .protocols import Journal

__all__ = [
    "Backend",
    "Budget",
    "ExcludeFromKey",
    "Options",
    "RunOptions",
    "Spec",
    "StepOptions",
    "spec_of",
]

Backend = Literal["asyncio", "trio"]

SPEC_ATTRIBUTE = "__flowlet__"


class ExcludeFromKey:
    """Marks a parameter that is no data, such as a client: ``client: Annotated[Client, ExcludeFromKey]``.

    It has no part in what tells one call from another, for the journal and the cache.
    """


_DOLLARS = "a number of US dollars, 0 or more"


def _dollars(value: Decimal | float | str | None) -> Decimal | None:
    try:
        return None if value is None else Decimal(str(value))
    except InvalidOperation:
        raise DefinitionError(f"Budget: cost={value!r} is not {_DOLLARS}") from None


@frozen(eq=False, repr=False)
class Budget(Value):
    """What model calls may use at most. None is no limit.

    Attributes:
        calls: how many calls, every attempt counted.
        tokens: how many tokens, those of prompts and of answers.
        cost: how many US dollars; calls whose price is not known don't count.
    """

    calls: int | None = None
    tokens: int | None = None
    cost: Decimal | None = field(default=None, converter=_dollars)

    def __attrs_post_init__(self) -> None:
        checked_options("Budget", {a.name: getattr(self, a.name) for a in fields(Budget)})


@frozen(eq=False, repr=False)
class RunOptions(Value):
    """Options of one execution; None leaves a thing to the caller's run or to the settings.

    *timeout* is in seconds from the moment the run is asked for. *correlation_id* ties a run to
    what caused it (a request id); child runs take it over. *journal* is where the run is recorded, a file
    or a store.
    """

    timeout: float | None = None
    run_id: str | None = None
    correlation_id: str | None = None
    tags: tuple[str, ...] = ()
    backend: Backend | None = None
    model: str | None = None
    middleware: tuple[Callable[..., object] | str, ...] = ()
    budget: Budget | None = None
    journal: str | PathLike[str] | Journal | None = None
    changed_code: ChangedCode | None = None


@frozen(eq=False, repr=False)
class StepOptions(Value):
    """Options of a step. *timeout* (seconds) bounds each attempt, *max_concurrency* this process."""

    attempts: int = 1
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    timeout: float | None = None
    max_concurrency: int | None = None
    check: bool = False
    cache: bool | timedelta | Callable[..., object] = False


class Options(TypedDict, total=False):
    """What ``with_options`` takes: every option of a step and of one execution."""

    name: str
    timeout: float | None
    run_id: str | None
    correlation_id: str | None
    tags: Iterable[str]
    backend: Backend | None
    model: str | None
    middleware: Iterable[Callable[..., object] | str]
    budget: Budget | None
    journal: str | PathLike[str] | Journal | None
    changed_code: ChangedCode | None
    attempts: int
    retry_on: type[BaseException] | Iterable[type[BaseException]]
    max_concurrency: int | None
    check: bool
    cache: bool | timedelta | Callable[..., object]


@frozen(eq=False, repr=False)
class Spec(Shown):
    """The recipe on a decorated function: what it is, its name and its options.

    *fn* is the function as it was written. *plain* says that a call of the step needs nothing but a record.
    """

    kind: Literal["step", "workflow"]
    fn: Callable[..., object]
    name: str
    is_async: bool
    run: RunOptions = RunOptions()
    step: StepOptions = StepOptions()
    plain: bool = True


def spec_of(fn: Callable[..., object]) -> Spec | None:
    """The recipe on *fn*, or None for a function that is neither a step nor a workflow.

    A decorator around a step copies the recipe with the other attributes; what it makes is no step.
    """
    found = getattr(fn, SPEC_ATTRIBUTE, None)
    return found if isinstance(found, Spec) and getattr(fn, "__wrapped__", None) is found.fn else None


def is_async(fn: Callable[..., object]) -> bool:
    """Whether a call of *fn* is to be awaited: a coroutine function, or an object whose ``__call__`` is one.

    A partial is as what it calls.
    """
    while isinstance(fn, partial):
        fn = fn.func
    if inspect.iscoroutinefunction(fn):
        return True
    return not isinstance(fn, _PLAIN) and inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def is_async_def(fn: Callable[..., object]) -> bool:
    """Whether *fn* is an async function, or a plain wrapper around one (``functools.wraps``), which gives its coroutine."""
    return inspect.iscoroutinefunction(inspect.unwrap(fn, stop=inspect.iscoroutinefunction))


_PLAIN = (FunctionType, MethodType, BuiltinFunctionType)


def bare(fn: Callable[..., object], spec: Spec) -> Callable[..., object]:
    """The function below the decorator, bound as *fn* is."""
    return MethodType(spec.fn, fn.__self__) if isinstance(fn, MethodType) else spec.fn


def checked_options(fn: str, options: Mapping[str, object]) -> None:
    """Refuse values that no option can have, all faults at once.

    Raises:
        DefinitionError: naming *fn*, each option, what was found and what is expected.
    """
    faults = [fault for name, value in options.items() if (fault := _fault(name, value)) is not None]
    if faults:
        raise DefinitionError(f"{fn}: " + "; ".join(faults))


def _fault(name: str, value: object) -> str | None:
    if name not in _EXPECTED or (value is None and name not in _NEVER_NONE):
        return None
    check, expected = _EXPECTED[name]
    return None if check(value) else f"{name}={value!r} is not {expected}"


_NEVER_NONE = ("attempts", "retry_on", "check", "cache", "tags", "middleware")


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _whole(value: object, least: float = float("-inf")) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _count(value: object) -> bool:
    return _whole(value, 1)


def _amount(value: object) -> bool:
    return _whole(value, 0)


def _between(least: float, most: float) -> Callable[[object], bool]:
    def accepts(value: Any) -> bool:
        number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
        return number and value == value and least <= value <= most

    return accepts


def _all(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, tuple) and all(map(check, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _cache(value: object) -> bool:
    from datetime import timedelta

    lasts = isinstance(value, timedelta) and value > timedelta(0)
    return lasts or isinstance(value, bool) or callable(value)


def _text(value: object) -> bool:
    return isinstance(value, str)


def is_journal(value: object) -> bool:
    """Whether *value* looks like a store; a class is none, nor is a list."""
    return not isinstance(value, type) and hasattr(value, "append") and hasattr(value, "claim")


def _name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _model(value: object) -> bool:
    return isinstance(value, str) and all(part and part == part.strip() for part in value.split(":", 1))


_EXPECTED: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "timeout": (_seconds, "a positive number of seconds"),
    "attempts": (_count, "a whole number of at least 1"),
    "max_concurrency": (_count, "a whole number of at least 1"),
    "name": (_name, "a name"),
    "run_id": (_name, "a name"),
    "correlation_id": (_name, "a name"),
    "calls": (_amount, "a whole number of at least 0"),
    "tokens": (_amount, "a whole number of at least 0"),
    "cost": (_between(0, sys.float_info.max), _DOLLARS),
    "temperature": (_between(0, 2), "a number from 0 to 2"),
    "max_tokens": (_count, "a whole number of at least 1"),
    "top_p": (_between(0, 1), "a number from 0 to 1"),
    "seed": (_whole, "a whole number"),
    "stop": (_all(_text), "a text, or a list of texts"),
    "system": (_text, "a text"),
    "extra": (lambda value: isinstance(value, Mapping), "a mapping"),
    "model": (_model, 'a model such as "openai:gpt-5-mini" or "offline"'),
    "backend": (lambda value: value in ("asyncio", "trio"), '"asyncio" or "trio"'),
    "check": (lambda value: isinstance(value, bool), "True or False"),
    "budget": (lambda value: isinstance(value, Budget), "a Budget(calls=…, tokens=…, cost=…)"),
    "journal": (
        lambda value: isinstance(value, str | PathLike) or is_journal(value),
        'a file such as "runs.db", or a journal',
    ),
    "changed_code": (lambda value: value in ("error", "reuse", "rerun"), '"error", "reuse" or "rerun"'),
    "cache": (_cache, "True, how long (a timedelta above 0), or a function of the arguments for the key"),
    "retry_on": (_all(_error), "an exception type or several of them"),
    "tags": (_all(_name), "a sequence of names"),
    "middleware": (_all(lambda value: callable(value) or _name(value)), "a sequence of functions or names"),
}
