"""Every error of flowlet, in one tree.

::

    FlowletError
    ├── DefinitionError (TypeError)       a step, workflow, prompt or chain is written wrongly
    ├── ConfigError (ValueError)          settings, environment or provider choice
    ├── BridgeError (RuntimeError)        a call that would block an event loop, with the line that works
    ├── InputError (ValueError)           inputs that do not fit the hints
    ├── OutputError (ValueError)          a model's answer that does not fit the type asked for
    │   ├── Refused                       the model declined to answer
    │   └── Truncated                     the answer ended at the token limit
    ├── StepTimeout (TimeoutError)        a step outlived its own limit
    ├── WorkflowTimeout (TimeoutError)    a run outlived its deadline
    ├── RunCancelled                      the run was cancelled
    ├── ResultNotReady (TimeoutError)     the wait for a result expired, the run goes on
    ├── ProviderError                     a model call failed, told as facts
    ├── BudgetExceeded                    the next call would pass a limit of tokens, calls or money
    ├── PIIRefused                        a model call held personal data, and a guard refuses it
    ├── PluginError                       a plugin is broken, missing or misbehaves
    ├── RecordingError                    a recording is missing, stale or unsafe to write
    └── JournalError                      a journal cannot be read or written
        └── DamagedRuns                   some of its runs are damaged; it has the others

    RunStopped (BaseException)            ends the body of a run that is over; never catch it

All are frozen values with positional fields. They survive pickle and copy with their notes, and a
step's exception of any type carries its place: see :func:`failure_of`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen

from ._value import Shown, Value, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .entries import JournalledRun
    from .metrics import ExecutionMetrics, TokenUsage

__all__ = [
    "BridgeError",
    "BudgetExceeded",
    "ConfigError",
    "DamagedRuns",
    "DefinitionError",
    "Failure",
    "FlowletError",
    "InputError",
    "JournalError",
    "OutputError",
    "PIIRefused",
    "PluginError",
    "ProviderError",
    "ProviderErrorKind",
    "RecordingError",
    "Refused",
    "ResultNotReady",
    "RunCancelled",
    "RunStopped",
    "StepTimeout",
    "Truncated",
    "WorkflowTimeout",
    "attribute",
    "failure_of",
    "note",
]

_MARK = "__flowlet_failure__"


def _rebuild(
    cls: type[BaseException], args: tuple[object, ...], extra: Mapping[str, object]
) -> BaseException:
    exc = cls(*args)
    exc.__dict__.update(extra)  # frozen: notes and failure go in behind __setattr__
    return exc


class _Portable(Shown):
    """Pickling and copying that keep notes, which attrs' own ``__getstate__`` drops."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))  # type: ignore[attr-defined]


def _all_without_secrets(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(without_secrets, texts))


def _maybe_without_secrets(text: str | None) -> str | None:
    return None if text is None else without_secrets(text)


class FlowletError(_Portable, Exception):
    """Base class of all errors that flowlet raises.

    ``retryable`` says whether the same call may succeed when it is made again.
    """

    retryable: bool = False


@frozen(repr=False)
class _Message(FlowletError):
    message: str = field(converter=without_secrets)

    def __str__(self) -> str:
        return self.message


class BridgeError(_Message, RuntimeError):
    """A call would have blocked an event loop; the message shows the line that works."""


class PluginError(_Message):
    """A plugin is broken, missing or misbehaves."""


class RecordingError(_Message):
    """A recording is missing, does not match, or must not be written."""


class JournalError(_Message):
    """A journal can't be read or written."""


@frozen(repr=False)
class DamagedRuns(JournalError):
    """Some runs of a journal are damaged, or lost; *runs* are the others."""

    runs: tuple[JournalledRun, ...] = field(default=(), repr=False)


@frozen(repr=False)
class _Faults(FlowletError):
    message: str = field(converter=without_secrets)
    faults: tuple[str, ...] = field(default=(), converter=_all_without_secrets)

    def __str__(self) -> str:
        return "\n".join((self.message, *(f"  {fault}" for fault in self.faults)))


class DefinitionError(_Faults, TypeError):
    """A step, workflow, prompt, chain or a file of them is written in a way that can't work."""


class ConfigError(_Faults, ValueError):
    """Settings, environment or the choice of a provider are wrong; every fault is listed."""


class InputError(_Faults, ValueError):
    """Values do not fit the hints of what they were passed to; every fault is listed with its path."""


@frozen(repr=False)
class OutputError(FlowletError, ValueError):
    """A model's answer does not fit the type asked for.

    *text* is the answer as it came; it is not part of the message, since it may be private.
    """

    retryable = True
    message: str = field(converter=without_secrets)
    faults: tuple[str, ...] = field(default=(), converter=_all_without_secrets)
    text: str = field(default="", repr=False)

    def __str__(self) -> str:
        return "\n".join((self.message, *(f"  {fault}" for fault in self.faults)))


class Refused(OutputError):
    """The model, or its provider's filter, declined to answer."""


class Truncated(OutputError):
    """The answer ended at the token limit (``finish_reason="length"``)."""


@frozen(repr=False)
class StepTimeout(FlowletError, TimeoutError):
    """A step outlived its own ``timeout``, in seconds."""

    retryable = True
    step: str
    timeout: float

    def __str__(self) -> str:
        return f"step {self.step!r} did not finish within its timeout of {self.timeout:g} s"


@frozen(repr=False)
class WorkflowTimeout(FlowletError, TimeoutError):
    """A run outlived its deadline; *metrics* were taken at that moment, before it was stopped."""

    workflow: str
    timeout: float
    run_id: str
    metrics: ExecutionMetrics = field(repr=False)

    def __str__(self) -> str:
        steps = self.metrics.all_steps()
        names = [s.name for s in steps if s.state == "running"]
        running = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        done = sum(s.state == "completed" for s in steps)
        where = f"in step {running}" if running else "between steps"
        return (
            f"workflow {self.workflow!r} did not finish within its timeout of {self.timeout:g} s "
            f"(run {self.run_id}): {where}, {done} finished, "
            f"{self.metrics.usage.total_tokens} tokens used so far"
        )


@frozen(repr=False)
class RunCancelled(FlowletError):
    """The run was cancelled; *metrics* tell how far it came."""

    workflow: str
    run_id: str
    metrics: ExecutionMetrics | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"workflow {self.workflow!r} was cancelled (run {self.run_id})"


@frozen(repr=False)
class ResultNotReady(FlowletError, TimeoutError):
    """The wait for a result expired, or nothing is left to fetch; the run itself is not touched."""

    run_id: str
    reason: str

    def __str__(self) -> str:
        return f"run {self.run_id}: {self.reason}"


ProviderErrorKind = Literal[
    "authentication",
    "permission",
    "bad_request",
    "unsupported",
    "not_found",
    "quota",
    "rate_limit",
    "server",
    "timeout",
    "connection",
    "bad_response",
    "cancelled",
    "other",
]


@frozen(repr=False)
class ProviderError(FlowletError):
    """A model call failed. Facts only: no SDK exception, and so no key, hangs on it.

    *retry_after* is in seconds, as the server asked. *retryable* says whether the same request may
    succeed when it is sent again, *usage* what was used all the same, where the server told.
    """

    kind: ProviderErrorKind
    message: str = field(converter=without_secrets)
    retryable: bool = False
    status: int | None = None
    code: str | None = field(default=None, converter=_maybe_without_secrets)
    request_id: str | None = field(default=None, converter=_maybe_without_secrets)
    retry_after: float | None = None
    provider: str | None = None
    usage: TokenUsage | None = field(default=None, repr=False)

    def __str__(self) -> str:
        facts: list[str] = [self.kind]
        if self.status is not None:
            facts.append(f"HTTP {self.status}")
        if self.code is not None:
            facts.append(self.code)
        if self.request_id is not None:
            facts.append(f"request {self.request_id}")
        return f"{self.provider or 'provider'}: {self.message} ({', '.join(facts)})"


@frozen(repr=False)
class BudgetExceeded(FlowletError):
    """The next model call would pass a limit; nothing was sent."""

    budget: str
    limit: str
    spent: str

    def __str__(self) -> str:
        return (
            f"budget of {self.limit} per {self.budget} is used up ({self.spent} spent); the call was not made"
        )


@frozen(repr=False)
class PIIRefused(FlowletError):
    """A model call held personal data, and a guard refuses that; nothing was sent.

    *kinds* and *places* tell what and where, never the data itself.
    """

    kinds: tuple[str, ...]
    places: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = f"\n  and {len(self.places) - 10} more" if len(self.places) > 10 else ""
        return (
            f"the call was not made: it holds personal data ({', '.join(self.kinds)})"
            + "".join(f"\n  {place}" for place in self.places[:10])
            + more
        )


@frozen(repr=False)
class RunStopped(_Portable, BaseException):
    """Ends a body whose run is over (cancelled, timed out, or failed elsewhere).

    A ``BaseException``, so that ``except Exception`` in a body can't keep a dead run alive.
    """

    run_id: str
    reason: str

    def __str__(self) -> str:
        return f"run {self.run_id} is over ({self.reason}); no further step of it starts"


@frozen(eq=False, repr=False)
class Failure(Value):
    """Where an exception left a step: the innermost step that it passed through.

    *path* names the steps from the outermost to the failing one. *serial* orders steps within a process.
    """

    step: str
    path: tuple[str, ...]
    attempt: int
    workflow: str
    run_id: str
    error: str
    message: str = field(converter=without_secrets)
    serial: float = field(default=0.0, repr=False)

    def note(self) -> str:
        """Say the place in one line, as the exception's note does."""
        attempt = f", attempt {self.attempt}" if self.attempt > 1 else ""
        path = self.path if len(self.path) <= 6 else (*self.path[:2], "…", *self.path[-3:])
        return f"in step {' > '.join(path)!r}{attempt} of workflow {self.workflow!r} (run {self.run_id})"


def attribute(exc: BaseException, failure: Failure) -> None:
    """Put *failure* on *exc* as data and as a note, in place of an older one."""
    old = failure_of(exc)
    notes = exc.__dict__.get("__notes__", ())
    if old is not None:
        exc.__dict__["__notes__"] = [note for note in notes if note != old.note()]
    exc.__dict__[_MARK] = failure  # not setattr: the exception may forbid it
    note(exc, failure.note())


def note(exc: BaseException, text: str) -> None:
    """Add a note to *exc*, once; it may forbid that its attributes are set."""
    notes = exc.__dict__.get("__notes__", ())
    if text not in notes:
        exc.__dict__["__notes__"] = [*notes, text]


def failure_of(exc: BaseException) -> Failure | None:
    """Tell which step *exc* came out of, or None when it never passed through one.

    Works as well on an exception that was pickled in another process.
    """
    found = exc.__dict__.get(_MARK)
    return found if isinstance(found, Failure) else None
