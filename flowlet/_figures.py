"""A run as figures: what its record tells at one moment, as a frozen value."""

from __future__ import annotations

import time

from .context import FullStepRecord, RunRecord, StepRecord
from .metrics import CallRecord, ExecutionMetrics, StepMetrics, Usage

__all__ = ["metrics_of"]


def metrics_of(run: RunRecord) -> ExecutionMetrics:
    """The figures of this moment."""
    calls = tuple(run.calls)
    return ExecutionMetrics(
        run_id=run.id,
        workflow=run.workflow,
        state=run.state,
        started_at=run.started_at,
        duration=run.duration(),
        steps=_steps(run, calls),
        calls=calls,
        children=tuple(metrics_of(child) for child in list(run.children)),
        usage=Usage.of(_all_calls(run)),
        error=run.error_text,
        parent_id=None if run.parent is None else run.parent.id,
        correlation_id=run.correlation_id,
        tags=run.tags,
        reused=run.reused,
    )


def _all_calls(run: RunRecord) -> list[CallRecord]:
    """The model calls of *run* and of all runs below it."""
    found = list(run.calls)
    for child in list(run.children):
        found.extend(_all_calls(child))
    return found


def _steps(run: RunRecord, calls: tuple[CallRecord, ...]) -> tuple[StepMetrics, ...]:
    by_step: dict[int | None, list[CallRecord]] = {}
    for call in calls:
        by_step.setdefault(call.step_index, []).append(call)
    return tuple(
        _step(run, index, step, Usage.of(by_step.get(index, ())))
        for index, step in enumerate(list(run.steps))
    )


def _step(run: RunRecord, index: int, step: StepRecord, usage: Usage) -> StepMetrics:
    state, ended = step.state, step.ended
    if run.ended is not None and (not ended or ended > run.ended):
        ended = run.ended  # it outlived the run: what it did afterwards is not the run's any more
        state = "timeout" if run.state == "timeout" else "cancelled"
    return StepMetrics(
        index=index,
        name=step.name,
        state=state,
        started=step.started - run.started,
        duration=(ended or time.perf_counter()) - step.started,
        attempts=step.attempts,
        parent=step.parent,
        error=step.error,
        usage=usage,
        reused=step.reused if isinstance(step, FullStepRecord) else None,
    )
