"""From events to metrics: what is known of the runs that are going on."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import Factory, define, evolve

from ..events import (
    Event,
    ModelCalled,
    ModelRetried,
    RunFinished,
    RunInfo,
    RunStarted,
    StepFinished,
    StepRetried,
    StepStarted,
)
from ..metrics import CallRecord, ExecutionMetrics, Reused, RunState, StepMetrics, StepState, Usage


@define(eq=False, repr=False)
class Tracked:
    """One run as its events told it. *duration* is None until it is over."""

    info: RunInfo
    started_at: float
    state: RunState = "running"
    duration: float | None = None
    error: str | None = None
    reused: Reused | None = None
    steps: dict[int, StepMetrics] = Factory(dict[int, StepMetrics])
    calls: list[CallRecord] = Factory(list[CallRecord])
    children: list[Tracked] = Factory(list["Tracked"])

    def metrics(self, now: float) -> ExecutionMetrics:
        """The figures of this moment."""
        children = tuple(child.metrics(now) for child in self.children)
        own = Usage.of(self.calls)
        return ExecutionMetrics(
            run_id=self.info.id,
            workflow=self.info.workflow,
            state=self.state,
            started_at=self.started_at,
            duration=now - self.started_at if self.duration is None else self.duration,
            steps=tuple(self._steps(now)),
            calls=tuple(self.calls),
            children=children,
            usage=sum((child.usage for child in children), own),
            error=self.error,
            parent_id=self.info.parent_id,
            correlation_id=self.info.correlation_id,
            tags=self.info.tags,
            reused=self.reused,
        )

    def usage_of(self, index: int) -> Usage:
        """What the model calls of one step used."""
        return Usage.of(call for call in self.calls if call.step_index == index)

    def _steps(self, now: float) -> Iterator[StepMetrics]:
        used: dict[int | None, list[CallRecord]] = {}
        for call in self.calls:
            used.setdefault(call.step_index, []).append(call)
        for index in sorted(self.steps):
            step = self.steps[index]
            if step.state == "running":
                step = self._going(step, now)
            yield evolve(step, usage=Usage.of(used[index])) if index in used else step

    def _going(self, step: StepMetrics, now: float) -> StepMetrics:
        """A step that has not ended; when its run has, it was cut off there."""
        if self.duration is None:
            return evolve(step, duration=max(0.0, now - self.started_at - step.started))
        state: StepState = "timeout" if self.state == "timeout" else "cancelled"
        return evolve(step, state=state, duration=max(0.0, self.duration - step.started))


class Tracker:
    """The runs that are going on, by id; those that nobody started from within a run are ``roots``."""

    def __init__(self) -> None:
        self.runs: dict[str, Tracked] = {}
        self.roots: dict[str, Tracked] = {}

    def apply(self, event: Event) -> Tracked | None:
        """Take *event* in, and give its run, if that is known."""
        match event:
            case RunStarted():
                return self._add(event.run, event.at)
            case RunFinished():
                return self._finish(event)
            case StepStarted() | StepFinished() | StepRetried() | ModelCalled() | ModelRetried():
                run = self.runs.get(event.run.id) if event.run is not None else None
                if run is not None:
                    _note(run, event)
                return run
            case _:
                return None

    def forget(self, run: Tracked) -> None:
        """Drop a run and those below it."""
        self.roots.pop(run.info.id, None)
        self.runs.pop(run.info.id, None)
        for child in run.children:
            self.forget(child)

    def _add(self, info: RunInfo, at: float) -> Tracked:
        run = self.runs[info.id] = Tracked(info, at)
        parent = self.runs.get(info.parent_id or "")
        if parent is None:
            self.roots[info.id] = run
        else:
            parent.children.append(run)
        return run

    def _finish(self, event: RunFinished) -> Tracked | None:
        run = self.runs.get(event.run.id)
        if run is None and event.run.parent_id is None:  # it was cancelled before it began
            run = self._add(event.run, event.at)
        if run is not None:
            run.started_at = event.at - event.duration
            run.state, run.duration, run.error = event.state, event.duration, event.error
            run.reused = event.reused
        return run


def _note(run: Tracked, event: StepStarted | StepFinished | StepRetried | ModelCalled | ModelRetried) -> None:
    match event:
        case StepStarted():
            since = max(0.0, event.at - run.started_at)
            run.steps[event.index] = StepMetrics(
                event.index, event.step, "running", since, 0.0, parent=event.parent
            )
        case StepFinished():
            run.steps[event.index] = StepMetrics(
                event.index,
                event.step,
                event.state,
                max(0.0, event.at - event.duration - run.started_at),
                event.duration,
                event.attempts,
                event.parent,
                event.error,
                reused=event.reused,
            )
        case StepRetried():
            if event.index in run.steps:
                run.steps[event.index] = evolve(run.steps[event.index], attempts=event.attempt + 1)
        case ModelCalled():
            run.calls.append(event.record)
        case ModelRetried():
            pass  # the attempt that failed was a ModelCalled
