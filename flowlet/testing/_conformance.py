"""What every provider must keep to, checked from outside: ``check_provider(MyProvider())``."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, get_args

import anyio
from attrs import evolve, fields

from .._codec import answer_from_json
from .._engine._models import async_method, sync_method
from .._schema import output_format
from ..errors import InputError, ProviderError
from ..messages import Completion, Delta, FinishReason, Message, Request
from ..metrics import TokenUsage
from ..protocols import LLMProvider, StructuredOutput

__all__ = ["check_provider"]

_TYPED = "Answer with the JSON of an object whose word is tea."


def check_provider(provider: LLMProvider, model: str = "test", *, failing: Request | None = None) -> None:
    """Check that *provider* keeps to the protocol, in all the ways it can be called, on both backends.

    It is asked some ten short questions for *model*. *failing* is a request that it can't answer, such as one
    for a model that does not exist; with it the errors are checked, too. trio is left out where it is not
    installed. Call it from a sync test.

    Raises:
        AssertionError: it does not; every fault is told.
    """
    check = _Check(provider, model)
    check.attributes()
    check.sync_calls(failing)
    for backend in ("asyncio", "trio"):
        if backend == "asyncio" or find_spec("trio") is not None:
            anyio.run(check.async_calls, failing, backend, backend=backend)
    if check.faults:
        name = type(provider).__name__
        raise AssertionError(
            "\n  ".join((f"{name} does not keep to the protocol of providers:", *check.faults))
        )


class _Check:
    """The checks, and the *faults* that they found."""

    def __init__(self, provider: LLMProvider, model: str) -> None:
        self.faults: list[str] = []
        self._provider = provider
        self._request = Request(model, (Message("user", "Say tea."),))
        self._mode: StructuredOutput = "prompt"

    @contextmanager
    def _part(self, name: str) -> Generator[Callable[[bool, str], None]]:
        """Take what is wrong in one way of calling, whatever that raises."""

        def holds(right: bool, fault: str) -> None:
            if not right and f"{name}: {fault}" not in self.faults:
                self.faults.append(f"{name}: {fault}")

        try:
            yield holds
        except Exception as exc:  # noqa: BLE001 -- told as a fault
            holds(False, f"it raised {type(exc).__name__}: {exc}")

    def attributes(self) -> None:
        """Check what the provider is, before it is asked anything."""
        provider = self._provider
        with self._part("methods") as holds:
            asks = [hasattr(provider, name) for name in ("complete", "acomplete")]
            holds(any(asks), "it needs complete(request), acomplete(request) or both")
            method = getattr(provider, "acomplete", None)
            holds(method is None or inspect.iscoroutinefunction(method), "acomplete must be an async def")
        with self._part("structured_output") as holds:
            mode: Any = getattr(provider, "structured_output", "prompt")
            fits = mode in get_args(StructuredOutput)
            holds(fits, f"{mode!r} is none of {', '.join(get_args(StructuredOutput))}")
            self._mode = mode if fits else "prompt"
        with self._part("price") as holds:
            price = getattr(provider, "price", None)
            cost = None if price is None else price(self._request.model, TokenUsage(1, 1, 2))
            holds(cost is None or isinstance(cost, Decimal), f"it gave {cost!r}, not a Decimal or None")

    def _typed(self) -> Request | None:
        if self._mode == "prompt":
            return None
        messages = (Message("user", _TYPED),)
        return evolve(
            self._request, messages=messages, output=evolve(output_format(dict[str, str]), mode=self._mode)
        )

    def sync_calls(self, failing: Request | None) -> None:
        """Check the sync methods, if there are any."""
        complete, stream = sync_method(self._provider, "complete"), sync_method(self._provider, "stream")
        if complete is not None:
            for request in (self._request, self._typed()):
                if request is not None:
                    with self._part("complete"):
                        self._answer("complete", request, complete(request))
            if failing is not None:
                self._failure("complete", lambda: complete(failing))
        if stream is not None:
            with self._part("stream") as holds:
                opened: AbstractContextManager[Any] = stream(self._request)
                with opened as deltas:
                    found = list(deltas)
                self._deltas(holds, found)
                with stream(self._request) as deltas:  # left early
                    next(iter(deltas))

    def _failure(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as exc:  # noqa: BLE001 -- told as a fault
            self._error(name, exc)
        else:
            self._error(name, None)

    async def async_calls(self, failing: Request | None, backend: str) -> None:
        """Check the async methods, if there are any, on an event loop of their own."""
        complete, stream = async_method(self._provider, "complete"), async_method(self._provider, "stream")
        name = f"acomplete on {backend}"
        if complete is not None:
            for request in (self._request, self._typed()):
                if request is not None:
                    with self._part(name):
                        self._answer(name, request, await complete(request))
            if failing is not None:
                try:
                    await complete(failing)
                except Exception as exc:  # noqa: BLE001 -- told as a fault
                    self._error(name, exc)
                else:
                    self._error(name, None)
        if stream is not None:
            with self._part(f"astream on {backend}") as holds:
                opened: AbstractAsyncContextManager[Any] = stream(self._request)  # type: ignore[assignment]
                async with opened as deltas:
                    found = [delta async for delta in deltas]
                self._deltas(holds, found)
                again: AbstractAsyncContextManager[Any] = stream(self._request)  # type: ignore[assignment]
                async with again as deltas:  # left early
                    await anext(aiter(deltas))

    def _answer(self, name: str, request: Request, answer: object) -> None:
        with self._part(name) as holds:
            if not isinstance(answer, Completion):
                holds(False, f"it gave {type(answer).__name__}, not a Completion")
                return
            holds(type(answer.text) is str, f"its text is {type(answer.text).__name__}, not str")
            self._facts(holds, answer.usage, answer.finish_reason)
            if request.output is not None and answer.refusal is None and answer.finish_reason == "stop":
                try:
                    answer_from_json(answer.text, dict[str, str])
                except InputError as exc:
                    holds(False, f"the answer does not fit the schema it was given: {'; '.join(exc.faults)}")

    def _deltas(self, holds: Callable[[bool, str], None], found: list[object]) -> None:
        deltas = [delta for delta in found if isinstance(delta, Delta)]
        holds(len(deltas) == len(found), "it gave something else than a Delta")
        holds(bool(deltas), "it gave nothing")
        reasons = [delta.finish_reason for delta in deltas if delta.finish_reason is not None]
        holds(len(reasons) == 1, f"{len(reasons)} deltas have a finish_reason, expected one, at the end")
        usages = [delta.usage for delta in deltas if delta.usage is not None]
        for usage in usages:
            self._facts(holds, usage, reasons[0] if reasons else "stop")

    def _facts(self, holds: Callable[[bool, str], None], usage: object, reason: object) -> None:
        holds(
            reason in get_args(FinishReason), f"finish_reason {reason!r} is none of {get_args(FinishReason)}"
        )
        if not isinstance(usage, TokenUsage):
            holds(False, f"its usage is {type(usage).__name__}, not a TokenUsage")
            return
        counts = {a.name: getattr(usage, a.name) for a in fields(TokenUsage) if a.name != "source"}
        whole = all(type(count) is int and count >= 0 for count in counts.values())
        holds(whole, f"its usage has counts that are none: {counts}")
        known = usage.source == "unknown" or any(counts.values())
        holds(known, 'its usage is all zeros; what was not reported is TokenUsage(source="unknown")')

    def _error(self, name: str, error: Exception | None) -> None:
        with self._part(f"{name}, failing") as holds:
            if not isinstance(error, ProviderError):
                found = "nothing" if error is None else type(error).__name__
                holds(False, f"it raised {found}, expected a ProviderError")
                return
            again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- made here
            holds(again.args == error.args, "its error does not survive pickle")
            foreign = next((e for e in (error.__cause__, error.__context__) if e is not None), None)
            holds(
                foreign is None, f"{type(foreign).__name__} hangs on its error, with what the SDK put there"
            )
