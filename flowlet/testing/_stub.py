"""A step replaced inside a run: ``with_options(report, middleware=[stub(ask, "Leaves.")])``."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import DefinitionError
from ..protocols import StepCall
from ..specs import is_async, spec_of

__all__ = ["AsyncStub", "Stub", "stub"]


def stub(step: Callable[..., object], answer: object) -> Stub | AsyncStub:
    """Make a middleware that answers the calls of *step* in its place.

    *answer* is the result of every call, an exception to raise, or a function that takes the step's arguments
    (an async one, too, for an async step). Calls are recorded as steps of that name, but neither checked nor
    tried again: what the step's options say belongs to the step.

    Raises:
        DefinitionError: *step* is none, or an async function is to answer for a sync step.
    """
    spec = spec_of(step)
    if spec is None or spec.kind != "step":
        raise DefinitionError(f"stub() replaces a step, not {getattr(step, '__name__', repr(step))}")
    if is_async(step):
        return AsyncStub(spec.name, answer)
    if inspect.iscoroutinefunction(answer):
        raise DefinitionError(
            f"an async function can't answer for the sync step {spec.name!r}; pass a plain one"
        )
    return Stub(spec.name, answer)


class _Stub:
    """What both have: the answer, and the calls so far, which any thread may make."""

    def __init__(self, step: str, answer: object) -> None:
        self._step = step
        self._answer = answer
        self._calls: list[StepCall] = []

    @property
    def calls(self) -> tuple[StepCall, ...]:
        """The calls that were answered so far, with their arguments."""
        return tuple(self._calls)

    def _answered(self, call: StepCall) -> Any:
        self._calls.append(call)
        answer = self._answer
        if isinstance(answer, BaseException):
            raise answer
        return answer(*call.args, **call.kwargs) if callable(answer) else answer


class Stub(_Stub):
    """Answers for a sync step; see :func:`stub`."""

    def __call__(self, call: StepCall, next: Callable[[StepCall], Any]) -> Any:
        """Answer a call of the step, and let those of others go on."""
        return self._answered(call) if call.step == self._step else next(call)


class AsyncStub(_Stub):
    """Answers for an async step; see :func:`stub`."""

    async def __call__(self, call: StepCall, next: Callable[[StepCall], Awaitable[Any]]) -> Any:
        """Answer a call of the step, and let those of others go on."""
        if call.step != self._step:
            return await next(call)
        answer = self._answered(call)
        return await answer if inspect.isawaitable(answer) else answer
