"""What others implement: providers, step plugins, journals, observers, middleware. No class to inherit from.

A provider has the methods of :class:`SyncProvider`, of :class:`AsyncProvider`, or both. The kind of
the call site wins; what a provider lacks, the runtime adapts: a sync method is moved to a worker
thread, an async one to the run's event loop, and a missing stream is the whole answer in one piece.

A middleware is a function ``def (call, next)`` or ``async def (call, next)``. It wraps steps, model
calls or runs, as the annotation of its first parameter says (:class:`StepCall`, :class:`ModelCall`,
:class:`RunCall` or a union); without one it wraps all three. ``next(call)`` goes on, with *call* or a
changed copy (``attrs.evolve``), and is of the middleware's own kind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from attrs import frozen

from ._value import Value
from .events import Event, RunInfo

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from .entries import Entry, JournalledRun
    from .messages import Completion, Delta, Request

__all__ = [
    "AsyncProvider",
    "AsyncStreamingProvider",
    "Journal",
    "LLMProvider",
    "Middleware",
    "ModelCall",
    "NowaitJournal",
    "Observer",
    "RunCall",
    "StepCall",
    "StepPlugin",
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
- ``price(model, usage) -> Decimal | None``: the cost of an answer in US dollars (default: by model name);
- ``replayed: bool``: whether its answers are of the past, so that they cost nothing and no budget bounds them
  (default False);
- ``load()``: imports what is slow to import; called on a worker thread before the first call on an event loop;
- ``open()`` and ``close()``, both or none: called once in a process, before the first call and at its end; what they hold
  must not belong to one event loop;
- ``keeps_time: bool``: whether ``complete`` always ends within ``request.timeout``. By default it is not trusted
  to: sync code calls it on a thread that can be left behind;
- ``live: bool``: whether asking it is a live call, which a test makes with ``pytest --flowlet-live`` only (default True).
  A fake says False; ``offline`` then does not replace it, when it was registered.
"""


class StepPlugin(Protocol):
    """A step that holds something open while it is used: a connection, a process, a model in memory.

    Its three methods may each be ``def`` or ``async def``. ``open`` is called once before the first call in a
    run, ``close`` once at the end of that run, whatever its end is. With ``lifetime = "process"`` they are called
    once in a process.
    """

    def open(self) -> object:
        """Get ready."""
        ...

    @property
    def __call__(self) -> Callable[..., Any]:
        """Do the work of the step; its hints are those of the step."""
        ...

    def close(self) -> object:
        """Give back what ``open`` took. What it raises is told, and does not fail the run."""
        ...


StructuredOutput = Literal["json_schema", "json_object", "prompt"]


@frozen(eq=False, repr=False)
class StepCall(Value):
    """A call of a step, on its way through the middleware."""

    step: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    run: RunInfo


@frozen(eq=False, repr=False)
class ModelCall(Value):
    """A model call, retries included, on its way through the middleware; ``next`` gives a Completion."""

    provider: str
    request: Request
    step: str | None
    run: RunInfo | None


@frozen(eq=False, repr=False)
class RunCall(Value):
    """A run, on its way through the middleware."""

    workflow: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    run: RunInfo


Observer = Callable[[Event], None]
"""Called with every event, in the thread where it happened. It must be quick and must not raise."""

Middleware = Callable[..., Any]
"""``def (call, next)`` or ``async def (call, next)``: see the top of this module."""


class Journal(Protocol):
    """Keeps what is known of runs, so that another process can go on with them.

    Its methods are called from any thread, also several at once, and may block; none is called from an
    event loop, as long as threads can be had. Each is all or nothing. Whatever goes wrong is a ``JournalError``, after which the same
    call may be made again. A journal that event loops may write to is a :class:`NowaitJournal`.
    """

    def append(self, entries: Sequence[Entry], /) -> None:
        """Add *entries*, of any runs, in this order; when this returns they survive a kill of the process.

        An entry with an empty key is about the run itself: one that says that it begins (``running`` or ``pending``)
        makes it known, and others of a run that is not known are refused.
        """
        ...

    def read(self, run_id: str, /) -> Sequence[Entry]:
        """Tell all entries of a run in their order; nothing for a run that is not known."""
        ...

    def runs(self) -> Sequence[JournalledRun]:
        """Tell the runs, the newest first. Where some are damaged, the others come with ``DamagedRuns``."""
        ...

    def run(self, run_id: str, /) -> JournalledRun | None:
        """Tell how one run stands, whatever has become of others; None for a run that is not known."""
        ...

    def claim(self, run_id: str, /) -> str | None:
        """Take a run for this process, known or not. None is success; else it is text that says who has it.

        A claim ends with :meth:`release` or with the process, however that ends.
        """
        ...

    def release(self, run_id: str, /) -> None:
        """Give a run back."""
        ...

    def forget(self, run_ids: Sequence[str], /) -> None:
        """Drop runs with all their entries."""
        ...

    def kept(self, key: str, now: float, /) -> str | None:
        """Tell the cached value of *key*, unless it has expired at *now* (a Unix time)."""
        ...

    def keep(self, key: str, value: str, expires: float | None, /) -> None:
        """Cache *value* under *key* until *expires* (a Unix time), or for good; an older one is replaced."""
        ...

    def expire(self, now: float, /) -> None:
        """Drop the cached values that have expired at *now* (a Unix time)."""
        ...

    def close(self) -> None:
        """Give back what is open; a later call opens it again."""
        ...


@runtime_checkable
class NowaitJournal(Journal, Protocol):
    """A journal that event loops write to themselves, which saves two switches of threads a step.

    One that has ``append`` below its ``append_nowait``, as a subclass that changes nothing else, is none.
    """

    def append_nowait(self, entries: Sequence[Entry], /) -> bool:
        """Add *entries* as :meth:`~Journal.append` does, where that does not wait.

        False says that it would wait, for a lock or for a disk, and that nothing was added: a thread appends
        them then. An event loop calls this.
        """
        ...

    def tidy(self) -> None:
        """Do what :meth:`append_nowait` has put off. A thread calls this after some thousand entries, while others append."""
        ...
