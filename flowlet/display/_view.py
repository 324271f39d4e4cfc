"""What a run looks like, before anybody draws it: a small tree of frozen values made from its metrics.

Terminal, notebook and report draw the same view. Calls of one name below one parent are folded into
one node when there are many; an error stands only where it arose.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from attrs import evolve, frozen

from ..metrics import CallRecord, ExecutionMetrics, Reused, RunState, StepMetrics, Usage
from ._words import Clean, visible

FOLD = 4
"""From how many calls of one name on siblings are one node."""

_NOTHING = Usage()

LEVELS = 30
"""How deep steps are drawn; what is deeper is drawn on the last level."""

_GRAVEST: tuple[RunState, ...] = ("running", "failed", "timeout", "cancelled", "pending", "completed")


@frozen
class Node:
    """A run, a call of a step, or many calls in one: then *members* has them.

    *started* is seconds after the start of the outermost run. *usage* counts what is below, too.
    """

    kind: Literal["run", "step"]
    name: str
    state: RunState
    started: float
    duration: float
    usage: Usage = _NOTHING
    attempts: int = 1
    error: str | None = None
    children: tuple[Node, ...] = ()
    members: tuple[Node, ...] = ()
    reused: Reused | None = None

    @property
    def calls(self) -> tuple[Node, ...]:
        """The members, or the node itself."""
        return self.members or (self,)

    @property
    def end(self) -> float:
        """Seconds after the start of the outermost run."""
        return self.started + self.duration

    @property
    def retries(self) -> int:
        """How many attempts followed a first one."""
        return sum(call.attempts - 1 for call in self.calls)

    @property
    def counts(self) -> Mapping[RunState, int]:
        """How many calls are in which state."""
        return Counter(call.state for call in self.calls)

    @property
    def sources(self) -> Mapping[Reused, int]:
        """How many results came from where."""
        return Counter(call.reused for call in self.calls if call.reused is not None)


@frozen
class Failure:
    """What ended a run, and where: *path* leads from the run to the step. *place* is a line of source."""

    error: str
    path: tuple[str, ...]
    attempts: int = 1
    place: str | None = None


@frozen
class Call:
    """One attempt of a model call. *started* is seconds after the start of the outermost run."""

    step: str
    model: str
    started: float
    duration: float
    usage: Usage
    attempt: int = 1
    error: str | None = None
    note: str = ""


@frozen
class View:
    """A run to be drawn. *steps* has every call of a step unfolded, in the order of their start."""

    root: Node
    run_id: str
    started_at: float
    failure: Failure | None = None
    steps: tuple[Node, ...] = ()
    calls: tuple[Call, ...] = ()
    tags: tuple[str, ...] = ()
    correlation_id: str | None = None
    parent_id: str | None = None


def view_of(metrics: ExecutionMetrics, clean: Clean = visible, place: str | None = None) -> View:
    """Make the view of a run; *clean* makes every text in it harmless, *place* is the failing line."""
    root = _run_node(metrics, metrics.started_at, clean, 0)
    calls = sorted(_calls(metrics, metrics.started_at, clean), key=lambda call: call.started)
    steps = sorted(_steps_below(root), key=lambda node: node.started)
    return View(
        root=_folded((_told_once(root),))[0],
        run_id=clean(metrics.run_id),
        started_at=metrics.started_at,
        failure=_failure(root, place and clean(place)),
        steps=tuple(steps),
        calls=tuple(calls),
        tags=tuple(map(clean, metrics.tags)),
        correlation_id=metrics.correlation_id and clean(metrics.correlation_id),
        parent_id=metrics.parent_id and clean(metrics.parent_id),
    )


def _run_node(metrics: ExecutionMetrics, origin: float, clean: Clean, depth: int) -> Node:
    offset = max(0.0, metrics.started_at - origin)
    steps = _step_nodes(metrics.steps, offset, clean, max(1, LEVELS - depth))
    runs = [_run_node(child, origin, clean, depth + 1) for child in metrics.children]
    return Node(
        kind="run",
        name=clean(metrics.workflow),
        state=metrics.state,
        started=offset,
        duration=metrics.duration,
        usage=metrics.usage,
        error=_error(metrics, clean),
        children=tuple(sorted((*steps, *runs), key=lambda node: node.started)),
        reused=metrics.reused,
    )


def _step_nodes(steps: Sequence[StepMetrics], offset: float, clean: Clean, levels: int) -> list[Node]:
    """Build from the last to the first, so that children are there before their parents, at any depth."""
    parents = _parents(steps, levels)
    below: dict[int | None, list[Node]] = defaultdict(list)
    for step in reversed(steps):
        children = tuple(reversed(below.pop(step.index, ())))
        below[parents[step.index]].append(_step_node(step, offset, clean, children))
    return below[None][::-1]


def _parents(steps: Sequence[StepMetrics], levels: int) -> Mapping[int, int | None]:
    parents: dict[int, int | None] = {}
    level: dict[int | None, int] = {None: 0}
    for step in steps:
        parent = step.parent if step.parent in parents else None
        if level[parent] >= levels:
            parent = parents[parent] if parent is not None else None
        parents[step.index] = parent
        level[step.index] = level[parent] + 1
    return parents


def _step_node(step: StepMetrics, offset: float, clean: Clean, children: tuple[Node, ...]) -> Node:
    return Node(
        kind="step",
        name=clean(step.name),
        state=step.state,
        started=offset + step.started,
        duration=step.duration,
        usage=_sum((step.usage, *(child.usage for child in children))),
        attempts=step.attempts,
        error=_error(step, clean),
        children=children,
        reused=step.reused,
    )


def _error(of: ExecutionMetrics | StepMetrics, clean: Clean) -> str | None:
    """The error of what failed; of what was cancelled the state says enough."""
    return clean(of.error) if of.error and of.state in ("failed", "timeout") else None


def _sum(usages: Iterable[Usage]) -> Usage:
    used = [usage for usage in usages if usage.calls]
    return sum(used[1:], used[0]) if used else Usage()


def _told_once(node: Node) -> Node:
    told_below = any(child.error == node.error for child in node.children)
    return evolve(
        node,
        error=None if told_below else node.error,
        children=tuple(map(_told_once, node.children)),
    )


def _folded(siblings: Sequence[Node]) -> tuple[Node, ...]:
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in siblings:
        groups.setdefault((node.kind, node.name), []).append(node)
    few = [node for group in groups.values() if len(group) < FOLD for node in group]
    nodes = [evolve(node, children=_folded(node.children)) for node in few]
    nodes += [_fold(group) for group in groups.values() if len(group) >= FOLD]
    return tuple(sorted(nodes, key=lambda node: node.started))


def _fold(members: Sequence[Node]) -> Node:
    states = {node.state for node in members}
    started = min(node.started for node in members)
    return Node(
        kind=members[0].kind,
        name=members[0].name,
        state=next(state for state in _GRAVEST if state in states),
        started=started,
        duration=max(node.end for node in members) - started,
        usage=_sum(node.usage for node in members),
        error=next((node.error for node in members if node.error), None),
        children=_folded([child for node in members for child in node.children]),
        members=tuple(members),
    )


def _failure(root: Node, place: str | None) -> Failure | None:
    if root.error is None:
        return None
    path = [root]
    while (cause := _cause(path[-1], root)) is not None:
        path.append(cause)
    return Failure(root.error, tuple(node.name for node in path), path[-1].attempts, place)


def _cause(node: Node, root: Node) -> Node | None:
    """The child from which the error of *root* came; of a deadline, the last that was still running."""
    same = [child for child in node.children if child.error == root.error]
    late = [child for child in node.children if child.state == root.state == "timeout"]
    return same[0] if same else late[-1] if late else None


def _steps_below(node: Node) -> Iterator[Node]:
    for child in node.children:
        if child.kind == "step":
            yield child
        yield from _steps_below(child)


def _calls(metrics: ExecutionMetrics, origin: float, clean: Clean) -> Iterator[Call]:
    for record in metrics.calls:
        yield _call(record, origin, clean)
    for child in metrics.children:
        yield from _calls(child, origin, clean)


def _call(record: CallRecord, origin: float, clean: Clean) -> Call:
    unusual = record.finish_reason not in (None, "stop")
    notes = ("replayed" if record.replayed else "", (record.finish_reason or "") if unusual else "")
    return Call(
        step=clean(record.step or record.workflow or ""),
        model=clean(f"{record.provider}:{record.model}"),
        started=max(0.0, record.at - record.duration - origin),
        duration=record.duration,
        usage=Usage.of((record,)),
        attempt=record.attempt,
        error=None if record.ok else clean(record.error or "failed"),
        note=clean(", ".join(filter(None, notes))),
    )
