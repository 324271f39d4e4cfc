"""The run we are in: one context variable, and the records that it points to.

A :class:`RunRecord` is the mutable truth about one run, a :class:`StepRecord` about one call of a
step. The engine writes them; everyone else reads the frozen values made from them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from types import CodeType, TracebackType
from typing import Any

from ._forks import at_fork
from ._raised import describe, trail_of
from ._scope import Scope, call_all, guard
from .events import Event, RunFinished, RunInfo, StepFinished
from .metrics import CallRecord, Reused, RunState, StepState
from .settings import process
from .specs import RunOptions

TERMINAL = frozenset({"completed", "failed", "cancelled", "timeout"})

OUTSIDE = ""
"""The run id of a scope that belongs to no run (a fan-out outside of one)."""

MAX_DEPTH = 100
"""How deep child runs may nest; a body that recurses without end meets this first."""

_ids = random.Random()  # noqa: S311 -- no secret, and a third of the cost of the system's randomness
at_fork(after_in_child=_ids.seed)


def new_run_id() -> str:
    """Make a run id: 16 hexadecimal digits, unlike any other."""
    return _ids.randbytes(8).hex()


class Frame:
    """Where a piece of code runs: in which run, below which step, stopped by which scope."""

    __slots__ = ("__weakref__", "index", "run", "scope")

    def __init__(self, run: RunRecord | None, scope: Scope, index: int | None = None) -> None:
        self.run: RunRecord | None = run
        self.scope = scope
        self.index = index

    def below(self, scope: Scope) -> Frame:
        """Make the frame of a part of this one."""
        return Frame(self.run, scope, self.index)

    @property
    def step(self) -> StepRecord | None:
        """The innermost call of a step around this place."""
        return None if self.run is None or self.index is None else self.run.steps[self.index]

    @property
    def models(self) -> tuple[str, ...]:
        """The models that the steps and the runs around this place were given, the nearest first."""
        run, index = self.run, self.index
        found: tuple[str, ...] = ()
        if run is None:
            return found
        while index is not None:
            step = run.steps[index]
            if isinstance(step, FullStepRecord) and step.of_model is not None:
                found += (step.of_model,)
            index = step.parent
        return found + run.models

    @property
    def outside(self) -> bool:
        """Whether this place is in no run: its run has completed, or there never was one."""
        root = self.scope.root
        return (root.run_id == OUTSIDE or root.reason == "completed") and self.scope.reason in (
            None,
            "completed",
        )


class Lane(Frame):
    """The place of one of several calls that are made at once; *key* tells it from the others, in the journal."""

    __slots__ = ("key",)

    def __init__(self, frame: Frame, scope: Scope, key: str) -> None:
        super().__init__(frame.run, scope, frame.index)
        self.key = key

    def below(self, scope: Scope) -> Frame:
        """Make the frame of a part of this one."""
        return Lane(self, scope, self.key)


class StepRecord(Frame):
    """One call of a step: the frame its body runs in, and what is known of it."""

    __slots__ = ("attempts", "ended", "error", "name", "parent", "serial", "started", "state")

    def __init__(self, frame: Frame, run: RunRecord, name: str) -> None:
        self.run = run
        self.scope = frame.scope
        self.parent = frame.index
        self.name = name
        self.state: StepState = "running"
        self.attempts = 1
        self.error: str | None = None
        self.ended = 0.0
        self.started = time.perf_counter()
        steps = run.steps
        self.index = len(steps)
        steps.append(self)  # from here on, other threads read it
        if steps[self.index] is not self:  # another thread was quicker: rare, and cheaper than a lock
            self.index = steps.index(self)


class FullStepRecord(StepRecord):
    """A call of a step that needs more than a record: *of_model* it was given, *key* in the journal, where *reused* from."""

    __slots__ = ("key", "of_model", "reused")

    def __init__(self, frame: Frame, run: RunRecord, name: str, model: str | None) -> None:
        self.of_model = model
        self.key = ""
        self.reused: Reused | None = None
        super().__init__(frame, run, name)


class RunRecord:
    """One run: who asked for it, where it is, what it used, how it ended."""

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "backend",
        "calls",
        "children",
        "correlation_id",
        "deadline",
        "depth",
        "dropped",
        "ended",
        "error",
        "error_text",
        "fetched",
        "handle",
        "id",
        "kept",
        "launched",
        "limit",
        "meter",
        "middleware",
        "models",
        "observers",
        "open_children",
        "parent",
        "place",
        "plugins",
        "port",
        "result",
        "reused",
        "scope",
        "simple",
        "started",
        "started_at",
        "state",
        "steps",
        "tags",
        "timeout",
        "traceback",
        "trail",
        "workflow",
    )

    def __init__(self, workflow: str, options: RunOptions, frame: Frame | None) -> None:
        parent = None if frame is None else frame.run
        self.started = time.perf_counter()
        self.started_at = time.time()
        self.workflow = workflow
        self.id = options.run_id or new_run_id()
        self.parent = parent
        self.timeout = options.timeout
        self.deadline = None if options.timeout is None else time.monotonic() + options.timeout
        self.scope = Scope(self.id, None if frame is None else frame.scope, self.deadline)
        self.state: RunState = "pending"
        self.ended: float | None = None
        self.steps: list[StepRecord] = []
        self.calls: list[CallRecord] | tuple[()] = ()  # a list with the first one: most runs have none
        self.children: list[RunRecord] | tuple[()] = ()
        self.open_children: set[RunRecord] | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.error_text: str | None = None
        self.traceback: TracebackType | None = None
        self.trail: tuple[tuple[CodeType, int], ...] = ()
        self.dropped: str | None = None
        self.kept = False
        self.fetched = False
        self.handle: Any = None
        self.port: Any = None
        self._callbacks: list[Callable[[], object]] | None = None
        self.launched = False
        self.limit: Any = None
        self.meter: Any = None
        self.place: Any = None
        self.reused: Reused | None = None
        self.plugins: Any = None
        self.models = (() if options.model is None else (options.model,)) + (
            () if frame is None else frame.models
        )
        self._inherit(parent, options)
        self.simple = not self.observers and not self.middleware

    def _inherit(self, parent: RunRecord | None, options: RunOptions) -> None:
        """Take what holds for all runs below *parent*, or from the settings, and what *options* add to it."""
        settings = process.settings
        self.observers = process.observers
        self.depth: int = 0 if parent is None else parent.depth + 1
        if parent is None:
            self.correlation_id = options.correlation_id or self.id
            self.tags = options.tags
            self.backend = options.backend or settings.backend
            self.middleware = settings.middleware + options.middleware
        else:
            self.correlation_id = options.correlation_id or parent.correlation_id
            self.tags = parent.tags + options.tags
            self.backend = options.backend or parent.backend
            self.middleware = parent.middleware + options.middleware
            self.port = parent.port
            self.observers = parent.observers

    @property
    def info(self) -> RunInfo:
        """The run's place among others, as events tell it."""
        parent = self.parent
        return RunInfo(
            self.id, self.workflow, self.correlation_id, None if parent is None else parent.id, self.tags
        )

    @property
    def over(self) -> bool:
        """Whether the run reached a terminal state."""
        return self.state in TERMINAL

    def emit(self, event: Event) -> None:
        """Tell the observers of this run."""
        process.tell(event, self.observers)

    def book(self, record: CallRecord) -> None:
        """Add a model call."""
        with guard:
            if not isinstance(self.calls, list):
                self.calls = []
            self.calls.append(record)

    def adopt(self, child: RunRecord) -> None:
        """Add a child run."""
        with guard:
            if not isinstance(self.children, list):
                self.children = []
            self.children.append(child)

    def wait_for(self, child: RunRecord) -> None:
        """Add a child run that must end before this one."""
        with guard:
            if self.open_children is None:
                self.open_children = set()
            self.open_children.add(child)

    def cancel_task(self) -> None:
        """Cancel the task that executes the body, from any thread."""
        limit, port = self.limit, self.port
        if limit is not None and port is not None:
            port.call(limit.cancel)

    def tell_finished(self, step: StepRecord) -> None:
        """Tell the observers of this run that *step* ended."""
        assert step.index is not None
        self.emit(
            StepFinished(
                self.info,
                time.time(),
                step.name,
                step.index,
                step.state,
                step.ended - step.started,
                step.attempts,
                step.error,
                step.parent,
                step.reused if isinstance(step, FullStepRecord) else None,
            )
        )

    def begin(self) -> None:
        """Leave ``pending`` for ``running``, unless the run is over already."""
        with guard:
            if self.state == "pending":
                self.state = "running"

    def end(self, state: RunState, result: object = None, error: BaseException | None = None) -> bool:
        """Reach a terminal state; the first one counts, and only it answers True."""
        text = None if error is None else describe(error)
        with guard:
            if self.state in TERMINAL:
                return False
            self.result = result if self.kept else None
            self.error = error
            self.error_text = text
            self.traceback = None if error is None else error.__traceback__
            self.ended = time.perf_counter()
            if error is not None:
                self.scope.fence(state)
            self.state = state  # after that, since a Ctrl-C between would leave an end that nobody hears of
            callbacks, self._callbacks = self._callbacks, None
        if self.observers:  # before anybody who waits goes on
            self.emit(RunFinished(self.info, time.time(), state, self.duration(), text, self.reused))
        if callbacks:
            call_all(callbacks)
        return True

    def release(self) -> None:
        """Forget the outcome, which went to the caller; of an error what records tell stays."""
        error, self.error, self.result, self.traceback = self.error, None, None, None
        self.kept = self.launched = False
        if error is not None:
            self.trail = trail_of(error)

    def on_end(self, callback: Callable[[], object], *, first: bool = False) -> None:
        """Call *callback* when the run is over, at once if it is; *first* of all, or after those before it."""
        with guard:
            if self.state not in TERMINAL:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.insert(0 if first else len(self._callbacks), callback)
                return
        callback()

    def forget(self, callback: Callable[[], object]) -> None:
        """Take *callback* back."""
        with guard:
            if self._callbacks is not None and callback in self._callbacks:
                self._callbacks.remove(callback)

    def duration(self) -> float:
        """Seconds from being asked for to the end, or to now."""
        return (self.ended or time.perf_counter()) - self.started


def chosen(models: Sequence[str]) -> str:
    """The one to ask of the *models* that are named around a place, the nearest first: once said, ``offline`` holds."""
    offline = (model for model in models if model.partition(":")[0] == "offline")
    return next(offline, models[0])


current: ContextVar[Frame | None] = ContextVar("flowlet_frame", default=None)


def innermost(frame: Frame) -> Frame:
    """The frame of this code, which is part of *frame*; that itself, where the context of the run was left."""
    now = current.get()
    return frame if now is None or now.run is not frame.run else now


at_fork(after_in_child=lambda: current.set(None))  # the runs around it are the parent's


def here() -> Frame:
    """The frame of this place; outside a run one that belongs to none."""
    frame = current.get()
    if frame is None or (frame.scope.reason is not None and frame.outside):
        return Frame(None, Scope(OUTSIDE))
    return frame
