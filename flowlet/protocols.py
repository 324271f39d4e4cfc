"""What others implement: providers, observers, middleware. No class to inherit from.

A provider has the methods of :class:`SyncProvider`, of :class:`AsyncProvider`, or both. The kind of
the call site wins; what a provider lacks, the runtime adapts: a sync method is moved to a worker
thread, an async one to the run's event loop, and a missing stream is the whole answer in one piece.

A middleware is a function ``def (call, next)`` or ``async def (call, next)``. It wraps steps, model
calls or runs, as the annotation of its first parameter says (:class:`StepCall`, :class:`ModelCall`,
:class:`RunCall` or a union); without one it wraps all three. ``next(call)`` goes on, with *call* or a
changed copy (``attrs.evolve``), and is of the middleware's own kind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Literal, Protocol, runtime_checkable

from attrs import frozen

from .events import Event, RunInfo
from .messages import Completion, Delta, Request

__all__ = [
    "AsyncProvider",
    "AsyncStreamingProvider",
    "LLMProvider",
    "Middleware",
    "ModelCall",
    "Observer",
    "RunCall",
    "StepCall",
    "SyncProvider",
    "SyncStreamingProvider",
]


@runtime_checkable
class SyncProvider(Protocol):
    """Answers requests in the calling thread."""

    def complete(self, request: Request, /) -> Completion:
        """Answer *request*, once, without retrying.

        Raises:
            ProviderError: whatever went wrong, as facts. Nothing else.
        """
        ...


@runtime_checkable
class AsyncProvider(Protocol):
    """Answers requests on an event loop, asyncio's or trio's."""

    async def acomplete(self, request: Request, /) -> Completion:
        """Answer *request*, once, without retrying.

        Raises:
            ProviderError: whatever went wrong, as facts. Nothing else.
        """
        ...


class SyncStreamingProvider(SyncProvider, Protocol):
    """A sync provider that can also answer piece by piece."""

    def stream(self, request: Request, /) -> AbstractContextManager[Iterator[Delta]]:
        """Answer *request* in pieces; leaving the context closes the connection."""
        ...


class AsyncStreamingProvider(AsyncProvider, Protocol):
    """An async provider that can also answer piece by piece."""

    def astream(self, request: Request, /) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Answer *request* in pieces; leaving the context closes the connection."""
        ...


LLMProvider = SyncProvider | AsyncProvider
"""A provider of either kind, or both. It may also have these attributes, each with a default:

- ``structured_output: Literal["json_schema", "json_object", "prompt"]``: how it can be asked for
  JSON (default ``"prompt"``);
- ``price(model, usage) -> Decimal | None``: the cost of an answer in US dollars (default: by model name).
"""

StructuredOutput = Literal["json_schema", "json_object", "prompt"]


@frozen
class StepCall:
    """A call of a step, on its way through the middleware."""

    step: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    run: RunInfo


@frozen
class ModelCall:
    """A model call, retries included, on its way through the middleware; ``next`` gives a Completion."""

    provider: str
    request: Request
    step: str | None
    run: RunInfo | None


@frozen
class RunCall:
    """A run, on its way through the middleware."""

    workflow: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    run: RunInfo


Observer = Callable[[Event], None]
"""Called with every event, in the thread where it happened. It must be quick and must not raise."""

Middleware = Callable[..., Any]
"""``def (call, next)`` or ``async def (call, next)``: see the top of this module."""
