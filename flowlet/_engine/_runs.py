"""The life of a run's record: made, begun, and ended once, by whoever is first.

A body, a deadline and a cancellation may all end a run. The first decides its outcome; what comes
later is fenced off.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from .._figures import metrics_of
from ..context import MAX_DEPTH, Frame, RunRecord, current
from ..errors import BridgeError, DefinitionError, RunCancelled, RunStopped, WorkflowTimeout
from ..events import FailureUnfetched, RunStarted
from ..metrics import RunState
from ..protocols import StepCall
from ..settings import process
from ..specs import RunOptions, Spec, bare, spec_of
from ._loops import in_ipython, is_cancellation, task_identity
from ._middleware import wrapping
from ._options import check_inputs, check_limits

Function = Callable[..., Any]


class _Thread(threading.local):
    """What tells this thread from all others, also from those that come after its end."""

    def __init__(self) -> None:
        self.token = object()


_thread = _Thread()


class Recent:
    """The newest runs of this process, started by its own code (child runs hang on them)."""

    def __init__(self) -> None:
        self._runs: deque[tuple[RunRecord, object]] = deque(maxlen=256)  # with who asked for each

    def add(self, run: RunRecord) -> None:
        """Add *run*, which this thread or task asked for."""
        self._runs.append((run, _origin()))

    def all(self) -> list[RunRecord]:
        """Tell the runs, the newest first."""
        return [run for run, _ in reversed(self._runs.copy())]

    def of_here(self) -> RunRecord | None:
        """The newest run that this thread or task asked for."""
        here = _origin()
        return next((run for run, origin in reversed(self._runs.copy()) if origin == here), None)


def _origin() -> object:
    # each cell of a notebook is a task of its own, but one person's thread of work
    return (None if in_ipython() else task_identity()) or _thread.token


def new_run(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame | None) -> RunRecord:
    """Make the record of a run of *fn*, with its inputs checked.

    Raises:
        InputError: arguments don't fit the hints of a workflow.
        DefinitionError: child runs nest too deeply.
    """
    spec = spec_of(fn)
    parent = None if frame is None else frame.run
    options = RunOptions() if spec is None else spec.run
    name = spec.name if spec is not None else getattr(fn, "__qualname__", type(fn).__qualname__)
    if spec is not None and spec.kind == "workflow":
        check_inputs(bare(fn, spec), args, kwargs)
        if parent is None:
            check_limits(bare(fn, spec), args, kwargs)
    run = RunRecord(name, options, frame)
    if run.depth > MAX_DEPTH:
        raise DefinitionError(_too_deep(run))
    if options.journal is not None or process.settings.journal is not None or (parent and parent.place):
        run.place = _placed(run, fn, spec, args, kwargs, frame)
    run.simple = not run.observers and run.place is None and steps_unwrapped(run)
    budget = options.budget or (process.settings.budget.run if parent is None else None)
    if budget is not None:
        from ._budget import Meter  # not with this module, which every program loads

        run.meter = Meter(budget, f"run of {name!r}")
    if parent is None:
        process.of(Recent).add(run)
    else:
        parent.adopt(run)
    return run


def _placed(
    run: RunRecord,
    fn: Function,
    spec: Spec | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    frame: Frame | None,
) -> Any:
    """Where *run* is in a journal, its own or that of the run around it."""
    from ._places import child_place, root_place  # imported with the first run that is journalled

    body = fn if spec is None else bare(fn, spec)
    if frame is not None and frame.run is not None and frame.run.place is not None:
        return child_place(run, body, spec, frame, args, kwargs)
    return None if spec is None else root_place(run, body, spec, args, kwargs)


def steps_unwrapped(run: RunRecord) -> bool:
    """Whether no middleware of *run* wraps its steps."""
    return not (run.middleware and wrapping(run.middleware, StepCall))


def _too_deep(run: RunRecord) -> str:
    """Name the circle that *run* closes, as a → b → a; or else the runs right around it."""
    names, above = [run.workflow], run.parent
    while above is not None and run.workflow not in names[1:]:
        names.append(above.workflow)
        above = above.parent
    if run.workflow in names[1:]:
        circle = " → ".join(reversed(names))
        told = f"this circle does not end before: {circle}. Let it end sooner, or write it as a loop"
    else:
        told = f"found … → {' → '.join(reversed(names[:4]))}. Call some of them from one body, one after the other"
    return f"child runs nest {MAX_DEPTH} deep at most; {told}"


def begin(run: RunRecord, frame: Frame) -> None:
    current.set(frame)
    run.begin()
    if run.observers and not run.over:
        run.emit(RunStarted(run.info, time.time()))


def end(run: RunRecord, state: RunState, result: object = None, error: BaseException | None = None) -> bool:
    """End *run*, unless it is over."""
    if not run.end(state, result, error):
        return False
    if run.parent is not None and run.parent.open_children is not None:
        run.parent.open_children.discard(run)
    return True


def late(run: RunRecord) -> bool:
    """Whether the time of *run* is over."""
    return run.deadline is not None and time.monotonic() >= run.deadline


def expire(run: RunRecord) -> None:
    """End *run* as timed out, with the figures of this moment, and stop what is left of it."""
    if run.over or run.timeout is None:
        return
    error = WorkflowTimeout(run.workflow, run.timeout, run.id, metrics_of(run))
    if end(run, "timeout", error=error):
        run.scope.stop("timeout")


def cancel(run: RunRecord) -> bool:
    """Ask *run* to stop; False when it is over."""
    if run.over:
        return False
    if run.state == "pending":
        end(run, "cancelled", error=RunCancelled(run.workflow, run.id, metrics_of(run)))
    run.scope.stop("cancelled")
    return True


def conclude(run: RunRecord, result: object, exc: BaseException | None) -> None:
    """End *run* as its body did, unless it was ended before; then close what hangs on it."""
    if not run.over:
        if isinstance(exc, KeyboardInterrupt):
            end(run, "cancelled", error=exc)
        elif isinstance(exc, SystemExit):
            end(run, "failed", error=exc)
        elif run.scope.reason is not None:
            end_stopped(run)
        elif late(run):
            expire(run)
        elif exc is None:
            end(run, "completed", result)
        elif is_cancellation(exc):
            end(run, "cancelled", error=RunCancelled(run.workflow, run.id, metrics_of(run)))
        else:
            if run.dropped is not None and not isinstance(exc, BridgeError):
                exc.add_note(run.dropped)
            end(run, "failed", error=exc)
    close(run)


def end_stopped(run: RunRecord) -> None:
    """End *run*, which was stopped: as cancelled, or with the fault of its journal."""
    fault = None if run.place is None else run.place.session.fault
    if fault is not None:
        end(run, "failed", error=fault)
    else:
        end(run, "cancelled", error=RunCancelled(run.workflow, run.id, metrics_of(run)))


def break_off(run: RunRecord, exc: BaseException) -> None:
    """End *run*, unless it is over, with *exc*, which its body did not raise."""
    end(run, "cancelled" if is_cancellation(exc) else "failed", error=exc)
    close(run)


def close(run: RunRecord) -> None:
    run.scope.end(run.state)
    for step in run.steps:
        step.run = None  # no cycles: a run that nobody holds goes at once
    run.port = None  # and none keeps what belongs to its loop
    if run.place is not None:
        run.place.forget()


def raise_end(run: RunRecord, exc: BaseException | None) -> None:
    """Raise what *run* ended with, if it did not complete; *exc* is what its body raised.

    What is no mere exception (Ctrl-C, a cancellation from outside) goes on unchanged.
    """
    if _is_stop(exc):
        if run.scope.parent is not None:
            run.scope.parent.check()
    elif exc is not None and (exc is run.error or not isinstance(exc, Exception)):
        raise exc
    if run.error is not None:
        raise run.error from (exc if isinstance(exc, Exception) else None)


def _is_stop(exc: BaseException | None) -> bool:
    """Whether the body ended because its run was over, in one task or in several."""
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_stop(one) for one in cast("BaseExceptionGroup[BaseException]", exc).exceptions)
    return isinstance(exc, RunStopped)


def dropped(run: RunRecord) -> None:
    """Release what nobody can fetch any more; a failure that nobody fetched is told."""
    if run.handle is not None and run.handle() is not None:
        return
    tell_unfetched(run)
    run.release()


def tell_unfetched(run: RunRecord) -> None:
    """Tell how *run* failed, if it was started in the background and nobody fetched that."""
    untold = run.launched and not run.fetched and run.state in ("failed", "timeout")
    if untold and run.error_text is not None:
        process.notice(FailureUnfetched(run.info, time.time(), run.error_text))
