"""What model calls and runs consumed: tokens, money and time, as frozen values."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

from attrs import field, fields, frozen

from ._value import Value

__all__ = [
    "CallRecord",
    "ExecutionMetrics",
    "Reused",
    "RunState",
    "StepMetrics",
    "StepState",
    "TokenUsage",
    "Usage",
]

RunState = Literal["pending", "running", "completed", "failed", "cancelled", "timeout"]
StepState = Literal["running", "completed", "failed", "cancelled", "timeout"]
Reused = Literal["journal", "cache"]


@frozen(eq=False, repr=False)
class TokenUsage(Value):
    """The tokens of one answer, as the provider reported them.

    *cached_tokens* are a part of *prompt_tokens*, *reasoning_tokens* of *completion_tokens*. With
    ``source="unknown"`` the provider said nothing, and the zeros mean nothing.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    source: Literal["provider", "unknown"] = "provider"


UNKNOWN = TokenUsage(source="unknown")


@frozen(eq=False, repr=False)
class CallRecord(Value):
    """One attempt of one model call, failed ones too. *duration* is in seconds, *cost* in US dollars.

    *cost* is None when tokens or price are unknown. *step_index* is the step's place in the run's
    ``ExecutionMetrics.steps``. *replayed* answers came from a recording and cost nothing.
    """

    provider: str
    model: str
    usage: TokenUsage
    cost: Decimal | None
    duration: float
    at: float
    attempt: int = 1
    ok: bool = True
    error: str | None = None
    finish_reason: str | None = None
    request_id: str | None = None
    run_id: str | None = None
    workflow: str | None = None
    step: str | None = None
    step_index: int | None = None
    replayed: bool = False


@frozen(eq=False, repr=False)
class Usage(Value):
    """Totals over model calls.

    *unknown* counts the calls whose tokens no one reported, *unpriced* those whose price is not known;
    *cost* (US dollars) is the sum over the others.
    """

    calls: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal = Decimal(0)
    unknown: int = 0
    unpriced: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in _FIELDS))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) - getattr(other, name) for name in _FIELDS))

    @classmethod
    def of(cls, records: Iterable[CallRecord]) -> Usage:
        """Sum *records* up."""
        calls = failed = prompt = completion = total = cached = reasoning = unknown = unpriced = 0
        cost = Decimal(0)
        for record in records:
            usage = record.usage
            calls += 1
            failed += not record.ok
            prompt += usage.prompt_tokens
            completion += usage.completion_tokens
            total += usage.total_tokens
            cached += usage.cached_tokens
            reasoning += usage.reasoning_tokens
            unknown += usage.source == "unknown"
            if record.cost is not None:
                cost += record.cost
            elif usage.source != "unknown":
                unpriced += 1
        return cls(calls, failed, prompt, completion, total, cached, reasoning, cost, unknown, unpriced)


_FIELDS = tuple(a.name for a in fields(Usage))


@frozen(eq=False, repr=False)
class StepMetrics(Value):
    """One call of a step. *started* is seconds after the run's start, *duration* in seconds.

    *index* is the step's place in ``ExecutionMetrics.steps``, *parent* that of the step that called it.
    *reused* says where the result came from when the step did not run.
    """

    index: int
    name: str
    state: StepState
    started: float
    duration: float
    attempts: int = 1
    parent: int | None = None
    error: str | None = None
    usage: Usage = Usage()
    reused: Reused | None = None


@frozen(eq=False, repr=False)
class ExecutionMetrics(Value):
    """A run as figures: its steps in the order of their start, its model calls and its child runs.

    *started_at* is a Unix time, *duration* in seconds, so far or in all. *calls* are this run's own;
    *usage* counts child runs too. *reused* says where the result came from when the body did not run.
    """

    run_id: str
    workflow: str
    state: RunState
    started_at: float
    duration: float
    steps: tuple[StepMetrics, ...] = ()
    calls: tuple[CallRecord, ...] = field(default=(), repr=False)
    children: tuple[ExecutionMetrics, ...] = field(default=(), repr=False)
    usage: Usage = Usage()
    error: str | None = None
    parent_id: str | None = None
    correlation_id: str | None = None
    tags: tuple[str, ...] = ()
    reused: Reused | None = None

    def all_steps(self) -> list[StepMetrics]:
        """The steps of this run and of its child runs."""
        return [*self.steps, *(step for child in self.children for step in child.all_steps())]
