"""``@step``: a plain function whose calls in a run are recorded, limited, timed and retried."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar, overload

from ._functions import decorated
from .specs import spec_of

__all__ = ["is_step", "step"]

F = TypeVar("F", bound=Callable[..., Any])


@overload
def step(fn: F, /) -> F: ...
@overload
def step(
    *,
    name: str | None = None,
    attempts: int = 1,
    retry_on: type[BaseException] | Iterable[type[BaseException]] = Exception,
    timeout: float | None = None,
    max_concurrency: int | None = None,
    check: bool = False,
    cache: bool | timedelta | Callable[..., object] = False,
) -> Callable[[F], F]: ...
def step(fn: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
    """Mark a function, sync or async, as a step.

    Outside a run the step is the function itself. Inside a run each call is recorded, and:

    Args:
        fn: the function.
        name: its name in records and errors (default: the function's).
        attempts: how often it is tried when it raises one of *retry_on*, the first time included,
            with exponential backoff between. Errors that say ``retryable = False`` are final, and a
            ``ProviderError`` is, unless *retry_on* names it: a model call has attempts of its own.
        retry_on: the exception types that are worth another attempt.
        timeout: seconds that each attempt may take; a sync step then runs in a thread of its own.
        max_concurrency: how many calls may run at once in this process.
        check: check arguments and result against the hints, without converting.
        cache: keep results across runs, for good or for a time, by the step's code, its arguments and the model;
            a function gives a key in place of the arguments. They are kept in the journal, without one in
            this process. Of equal calls at once one is made; errors are not kept.

    Raises:
        DefinitionError: it is no plain function, or an option can't have its value.
    """
    if fn is not None:
        return decorated("step", fn, options)
    return lambda fn: decorated("step", fn, options)


def is_step(fn: Callable[..., object]) -> bool:
    """Whether *fn* is a step."""
    spec = spec_of(fn)
    return spec is not None and spec.kind == "step"
