"""The events of one run for one task that follows it: what has happened already, then what happens."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from .._figures import metrics_of
from .._scope import guard
from ..context import TERMINAL, RunRecord
from ..events import Event, ModelCalled, RunFinished, RunInfo, RunStarted, StepFinished, StepStarted
from ..metrics import StepMetrics
from ._loops import Waiter, current_port
from ._runs import steps_unwrapped


class Feed:
    """A queue that any thread fills and one task empties, until the run is over.

    What happens while the past is read may come from both sides, so each fact is taken once.
    """

    def __init__(self, run: RunRecord) -> None:
        self._run = run
        self._queue: deque[Event] = deque()
        self._seen: set[tuple[object, ...]] = set()
        self._waiter: Waiter | None = None
        self._over = False
        self._port = current_port()

    def open(self) -> None:
        """Begin to listen, then tell the past, so that nothing falls between."""
        with guard:
            self._run.observers = (*self._run.observers, self.put)
            self._run.simple = False
        for event in _past(self._run):
            self.put(event)

    def close(self) -> None:
        """Listen no more."""
        unwrapped = steps_unwrapped(self._run)
        with guard:
            self._run.observers = tuple(o for o in self._run.observers if o != self.put)
            self._run.simple = unwrapped and not self._run.observers

    def put(self, event: Event) -> None:
        """Take *event*, if it is the run's own and new."""
        info = getattr(event, "run", None)
        if info is None or info.id != self._run.id:
            return
        if isinstance(event, StepFinished) and ("StepStarted", event.index) not in self._seen:
            self.put(StepStarted(info, event.at - event.duration, event.step, event.index, event.parent))
        key = _key(event)
        if key is not None:
            if key in self._seen:
                return
            self._seen.add(key)
        self._queue.append(event)
        waiter = self._waiter
        if waiter is not None:
            waiter.wake()

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._over:
                raise StopAsyncIteration
            self._waiter = self._port.waiter()
            if not self._queue:
                await self._waiter.wait()
            self._waiter = None
        event = self._queue.popleft()
        self._over = self._over or isinstance(event, RunFinished)
        return event


def _key(event: Event) -> tuple[object, ...] | None:
    """What makes an event of a run the same fact as another; None for one that the past does not tell."""
    if isinstance(event, StepStarted | StepFinished):
        return type(event).__name__, event.index
    if isinstance(event, ModelCalled):
        return type(event).__name__, id(event.record)
    return (type(event).__name__,) if isinstance(event, RunStarted | RunFinished) else None


def _past(run: RunRecord) -> list[Event]:
    """What the records tell, in order."""
    return [event for _, event in sorted(_dated(run), key=lambda dated: dated[0])]


def _dated(run: RunRecord) -> Iterator[tuple[float, Event]]:
    """Facts with the seconds since the run's start, which are finer than Unix times."""
    info, metrics = run.info, metrics_of(run)
    epoch = metrics.started_at
    if metrics.state != "pending":
        yield float("-inf"), RunStarted(info, epoch)
    for step in metrics.steps:
        begun, end = step.started, step.started + step.duration
        yield begun, StepStarted(info, epoch + begun, step.name, step.index, step.parent)
        if step.state != "running":
            yield end, finished(info, epoch + end, step)
    for record in metrics.calls:
        yield record.at - epoch, ModelCalled(info, record.at, record)
    if metrics.state in TERMINAL:
        at = epoch + metrics.duration
        yield float("inf"), RunFinished(info, at, metrics.state, metrics.duration, metrics.error)


def finished(info: RunInfo, at: float, step: StepMetrics) -> StepFinished:
    """The event of a step that ended."""
    return StepFinished(
        info, at, step.name, step.index, step.state, step.duration, step.attempts, step.error, step.parent
    )
