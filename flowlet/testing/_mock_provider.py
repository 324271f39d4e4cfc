"""A provider that answers from a script and fails a test whose calls differ from it.

An answer is text (as the model would write it, JSON where a type was asked for), a value of the type
asked for, a :class:`Completion`, an exception to raise as it is, or a function of the request that gives one of
these. For async calls that may be an async function, which is how a test makes a call wait.
"""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from decimal import Decimal
from types import TracebackType
from typing import Self, cast

import anyio.lowlevel

from .._value import without_secrets
from ..errors import DefinitionError, ProviderError
from ..messages import Completion, Delta, Request
from ..metrics import TokenUsage
from ..protocols import StructuredOutput
from ..providers.offline import after_checkpoints, counted_usage, deltas_of, last_message, sample_text
from ._fitting import fitted

__all__ = ["AsyncMockProvider", "MockProvider", "SyncMockProvider", "UnexpectedCall", "UnusedAnswers"]

_WIDTH = 200
_PIECES = 3


class UnexpectedCall(AssertionError):
    """A model was called once more than the test's script has answers."""

    retryable = False


class UnusedAnswers(AssertionError):
    """A test ended before all answers of its script were asked for."""


class _Script:
    """The answers that are left and the requests that came. A call from any thread takes the next answer."""

    structured_output: StructuredOutput = "json_schema"
    keeps_time = True
    live = False
    scripted = True
    """What it raises is meant by the test, also an error that no provider may raise."""

    def __init__(
        self,
        answers: Sequence[object] | Callable[[Request], object] | None = None,
        *,
        usage: TokenUsage | None = None,
        latency: float = 0.0,
        name: str = "mock",
    ) -> None:
        """Prepare *answers*: one for each call, or a function that answers every call.

        Without any, text is the last message again and a typed answer a value made up from the schema.
        *usage* is what every answer reports, by default a count as the offline provider's; ``UNKNOWN``
        is possible. *latency* is virtual, in seconds: nothing waits, and a request whose timeout is
        shorter fails as one to a slow provider does.

        Raises:
            DefinitionError: *answers* is one text or value, not a list of them.
        """
        if not (answers is None or callable(answers) or _is_list(answers)):
            raise DefinitionError(f"answers are a list, such as [{answers!r}], or a function of the request")
        self.name = name
        every = _sample if answers is None else answers
        self._every = every if callable(every) else None
        self._answers = () if callable(every) else tuple(every)
        self._usage = usage
        self._latency = latency
        self._lock = threading.Lock()
        self._requests: list[Request] = []

    @property
    def requests(self) -> tuple[Request, ...]:
        """What was asked so far, in order, unexpected calls included."""
        return tuple(self._requests)

    def price(self, model: str, usage: TokenUsage) -> Decimal:
        """Cost nothing."""
        return Decimal(0)

    def verify(self) -> None:
        """Check that the calls were those of the script, also where the test's own code hid the failure.

        Raises:
            UnexpectedCall: there were more calls than answers.
            UnusedAnswers: there were fewer.
        """
        if self._every is not None:
            return
        asked, scripted = len(self._requests), len(self._answers)
        if asked > scripted:
            raise self._unexpected(scripted)
        if asked < scripted:
            first = without_secrets(_shortened(self._answers[asked]))
            raise UnusedAnswers(
                f"{self.name}: {scripted - asked} of {scripted} answers were not used, first {first}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            self.verify()

    def _next(self, request: Request) -> object:
        """Take the next answer; where it is a function, call it."""
        with self._lock:
            index = len(self._requests)
            self._requests.append(request)
        if self._every is None and index >= len(self._answers):
            raise self._unexpected(index)
        answer = self._answers[index] if self._every is None else self._every
        if self._latency > request.timeout:
            late = f"no answer within {request.timeout:g} s (latency {self._latency:g} s)"
            raise ProviderError("timeout", late, retryable=True, provider=self.name)
        is_function = callable(answer) and not isinstance(answer, type)
        return cast("Callable[[Request], object]", answer)(request) if is_function else answer

    def _completion(self, request: Request, answer: object) -> Completion:
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Completion):
            return answer
        text = answer if type(answer) is str else _json(answer, request)  # a StrEnum is a value
        usage = counted_usage(request, text) if self._usage is None else self._usage
        return Completion(text, usage, model=request.model)

    def _unexpected(self, index: int) -> UnexpectedCall:
        message = last_message(self._requests[index])
        return UnexpectedCall(
            f"{self.name}: call {index + 1} of a script with {len(self._answers)} answers\n"
            f"  it asked, as {message.role}: {_shortened(without_secrets(message.content))}\n"
            "  give one answer for each call, or a function of the request for all"
        )


class SyncMockProvider(_Script):
    """A scripted provider that has only sync methods."""

    def complete(self, request: Request, /) -> Completion:
        """Give the next answer.

        Raises:
            UnexpectedCall: the script is used up.
            DefinitionError: the answer is an async function.
        """
        answer = self._next(request)
        if inspect.iscoroutine(answer):
            answer.close()
            raise DefinitionError("an async function can't answer a sync call; pass a plain one")
        return self._completion(request, answer)

    @contextmanager
    def stream(self, request: Request, /) -> Generator[Iterator[Delta], None, None]:
        """Give the next answer in up to three pieces; raises as :meth:`complete` does."""
        yield _pieces(self.complete(request))


class AsyncMockProvider(_Script):
    """A scripted provider that has only async methods."""

    async def acomplete(self, request: Request, /) -> Completion:
        """Give the next answer, after letting other tasks go first.

        Raises:
            UnexpectedCall: the script is used up.
        """
        await anyio.lowlevel.checkpoint()
        answer = self._next(request)
        return self._completion(request, await answer if inspect.isawaitable(answer) else answer)

    @asynccontextmanager
    async def astream(self, request: Request, /) -> AsyncGenerator[AsyncIterator[Delta], None]:
        """Give the next answer in up to three pieces; raises as :meth:`acomplete` does."""
        async with aclosing(after_checkpoints(_pieces(await self.acomplete(request)))) as deltas:
            yield deltas


class MockProvider(SyncMockProvider, AsyncMockProvider):
    """A scripted provider with sync and async methods.

    ``with MockProvider(["first", "second"]) as mock:`` fails at its end when an answer was not used.
    """


def _sample(request: Request) -> str:
    prompt = last_message(request).content
    return prompt if request.output is None else sample_text(request.output, prompt)


def _json(value: object, request: Request) -> str:
    return json.dumps(fitted(value, request.output), ensure_ascii=False)


def _is_list(answers: object) -> bool:
    return isinstance(answers, Sequence) and not isinstance(answers, str)


def _pieces(completion: Completion) -> Iterator[Delta]:
    size = max(1, -(-len(completion.text) // _PIECES))
    starts = range(0, len(completion.text), size)
    return deltas_of(completion, (completion.text[start : start + size] for start in starts))


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
