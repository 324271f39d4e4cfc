"""Events as plain lines, one for every change of state, for logs and pipes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from ..events import (
    Event,
    ModelRetried,
    RunFinished,
    RunInfo,
    RunStarted,
    StepFinished,
    StepRetried,
    StepStarted,
)
from ..metrics import Usage
from ._tracker import Tracked, Tracker
from ._words import Clean, clean_for, cost_of, counted, time_of, tokens_of, word_of


class Lines:
    """A painter of plain lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._clean = clean_for(getattr(stream, "encoding", None))
        self._tracker = Tracker()

    def show(self, events: Iterable[Event]) -> None:
        """Write a line for every change of state."""
        lines = [line for event in events if (line := self._line(event)) is not None]
        if lines:
            self._stream.write("".join(f"{line}\n" for line in lines))
            self._stream.flush()

    def close(self) -> None:
        """Do nothing: every line is whole."""

    def _line(self, event: Event) -> str | None:
        run = self._tracker.apply(event)
        if run is None:
            return None
        line = line_of(event, run, self._clean)
        if isinstance(event, RunFinished) and run.info.id in self._tracker.roots:
            self._tracker.forget(run)
        return line


def line_of(event: Event, run: Tracked, clean: Clean) -> str | None:
    """Say in a line how *event* changed the state of *run*, or None if it did not."""
    match event:
        case RunStarted():
            return f"{_run(run.info, clean)}  running"
        case RunFinished():
            usage = run.metrics(event.at).usage
            end = _end(word_of(event.state, event.reused), event.duration, usage)
            return f"{_run(run.info, clean)}  {end}{_why(event.error, clean)}"
        case StepStarted():
            return f"{_step(event, run.info, clean)}  running"
        case StepFinished():
            word = word_of(event.state, event.reused)
            end = _end(word, event.duration, run.usage_of(event.index), event.attempts)
            error = event.error if event.state in ("failed", "timeout") else None
            return f"{_step(event, run.info, clean)}  {end}{_why(error, clean)}"
        case StepRetried():
            return f"{_step(event, run.info, clean)}  {_again(event)}{_why(event.reason, clean)}"
        case ModelRetried():
            where = f"{_run(run.info, clean)}  {clean(event.step or '')} {clean(event.model)}"
            return f"{where}  {_again(event)}{_why(event.reason, clean)}"
        case _:
            return None


def _run(run: RunInfo, clean: Clean) -> str:
    return f"{clean(run.workflow)} {clean(run.id)}"


def _step(event: StepStarted | StepFinished | StepRetried, run: RunInfo, clean: Clean) -> str:
    return f"{_run(run, clean)}  {clean(event.step)} #{event.index}"


def _end(word: str, duration: float, usage: Usage, attempts: int = 1) -> str:
    tokens = tokens_of(usage)
    facts = (
        f"{word} in {time_of(duration)}",
        counted(attempts, "attempt") if attempts > 1 else "",
        f"{tokens} tokens" if tokens else "",
        cost_of(usage),
    )
    return ", ".join(filter(None, facts))


def _again(event: StepRetried | ModelRetried) -> str:
    return f"attempt {event.attempt} failed, the next in {time_of(event.wait)}"


def _why(error: str | None, clean: Clean) -> str:
    return f": {clean(error)}" if error else ""
