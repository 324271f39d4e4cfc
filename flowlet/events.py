"""Facts that the engine tells observers, as frozen values, in the order in which they happened.

Times are Unix times in seconds, durations seconds. *step* is None outside a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from ._value import Value

if TYPE_CHECKING:
    from .entries import ChangedCode
    from .messages import Completion, Request
    from .metrics import CallRecord, Reused, RunState, StepState

__all__ = [
    "BodyDiverged",
    "BudgetRefused",
    "CacheFailed",
    "CodeChanged",
    "Event",
    "FailureUnfetched",
    "LoopRetired",
    "ModelCalled",
    "ModelRetried",
    "PIIFound",
    "PluginFailed",
    "RunFinished",
    "RunInfo",
    "RunStarted",
    "RunsCancelledAtExit",
    "StepFinished",
    "StepRetried",
    "StepStarted",
    "ThreadAbandoned",
]


@frozen(eq=False, repr=False)
class RunInfo(Value):
    """Which run a fact belongs to. *correlation_id* is shared by a run and all its child runs."""

    id: str
    workflow: str
    correlation_id: str
    parent_id: str | None = None
    tags: tuple[str, ...] = ()


@frozen(eq=False, repr=False)
class RunStarted(Value):
    """A run left ``pending`` for ``running``."""

    run: RunInfo
    at: float


@frozen(eq=False, repr=False)
class RunFinished(Value):
    """A run reached a terminal state. *error* is the exception's text, None when it completed.

    *reused* says where the result came from when the body did not run.
    """

    run: RunInfo
    at: float
    state: RunState
    duration: float
    error: str | None = None
    reused: Reused | None = None


@frozen(eq=False, repr=False)
class StepStarted(Value):
    """A call of a step began. *index* is the call's place among the run's steps."""

    run: RunInfo
    at: float
    step: str
    index: int
    parent: int | None = None


@frozen(eq=False, repr=False)
class StepFinished(Value):
    """A call of a step ended, after *attempts* attempts. *reused* says where the result of one that did not run came from."""

    run: RunInfo
    at: float
    step: str
    index: int
    state: StepState
    duration: float
    attempts: int = 1
    error: str | None = None
    parent: int | None = None
    reused: Reused | None = None


@frozen(eq=False, repr=False)
class StepRetried(Value):
    """An attempt of a step failed and another follows in *wait* seconds."""

    run: RunInfo
    at: float
    step: str
    index: int
    attempt: int
    wait: float
    reason: str


@frozen(eq=False, repr=False)
class ModelCalled(Value):
    """An attempt of a model call ended, well or badly. *run* is None outside a run.

    *request* and *completion* hold what the user sent and got: an observer that shows them does so on
    request only, and redacted. There is no *completion* where none came.
    """

    run: RunInfo | None
    at: float
    record: CallRecord
    request: Request | None = field(default=None, repr=False)
    completion: Completion | None = field(default=None, repr=False)


@frozen(eq=False, repr=False)
class ModelRetried(Value):
    """An attempt of a model call failed and another follows in *wait* seconds."""

    run: RunInfo | None
    at: float
    step: str | None
    model: str
    attempt: int
    wait: float
    reason: str


@frozen(eq=False, repr=False)
class BudgetRefused(Value):
    """A model call was not made, since a budget is used up. *limit* and *spent* say their unit."""

    run: RunInfo | None
    at: float
    step: str | None
    model: str
    budget: str
    limit: str
    spent: str


@frozen(eq=False, repr=False)
class PIIFound(Value):
    """A guard found personal data of *kinds* in a model call; *action* is what became of it."""

    run: RunInfo | None
    at: float
    step: str | None
    model: str
    action: Literal["mask", "refuse", "warn"]
    kinds: tuple[str, ...]


@frozen(eq=False, repr=False)
class ThreadAbandoned(Value):
    """A thread did not stop with its run; it may go on in the background. *count* such threads exist now."""

    run: RunInfo | None
    at: float
    step: str | None
    count: int


@frozen(eq=False, repr=False)
class LoopRetired(Value):
    """A background event loop was blocked, or a run on it ignored its cancellation.

    *run* is the one whose code blocks it, or that does not end; None where no run of ours does.
    It is left alone, and later runs get a fresh one.
    """

    run: RunInfo | None
    at: float
    backend: str
    step: str | None


@frozen(eq=False, repr=False)
class CodeChanged(Value):
    """The code of *step* has changed since the journal kept its result, which was reused or not as *policy* says.

    *kind* says what *step* is: a step, or a workflow that ran as a child or has completed.
    """

    run: RunInfo
    at: float
    step: str
    policy: ChangedCode
    kind: Literal["step", "workflow"] = "step"


@frozen(eq=False, repr=False)
class BodyDiverged(Value):
    """A resumed body took another way: it called *found*, and not the recorded *expected*.

    A name that is in both was called with other arguments.
    """

    run: RunInfo
    at: float
    expected: tuple[str, ...]
    found: tuple[str, ...]


@frozen(eq=False, repr=False)
class CacheFailed(Value):
    """What the cache has of *step* could not be read, or its result not be kept; the run goes on without."""

    run: RunInfo
    at: float
    step: str
    error: str


@frozen(eq=False, repr=False)
class FailureUnfetched(Value):
    """A handle was dropped without anybody asking for its failed result."""

    run: RunInfo
    at: float
    error: str


@frozen(eq=False, repr=False)
class RunsCancelledAtExit(Value):
    """The interpreter ended while background runs were going on; they were cancelled."""

    runs: tuple[RunInfo, ...]
    at: float


@frozen(eq=False, repr=False)
class PluginFailed(Value):
    """A plugin, an observer or a middleware failed. Those of a package have a *distribution* and its *version*."""

    run: RunInfo | None
    at: float
    plugin: str
    error: str
    distribution: str | None = None
    version: str | None = None


Event = (
    RunStarted
    | CodeChanged
    | BodyDiverged
    | CacheFailed
    | RunFinished
    | StepStarted
    | StepFinished
    | StepRetried
    | ModelCalled
    | ModelRetried
    | BudgetRefused
    | PIIFound
    | ThreadAbandoned
    | LoopRetired
    | FailureUnfetched
    | RunsCancelledAtExit
    | PluginFailed
)
