"""What a journal holds: facts about one run, as frozen values whose data is JSON text."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from ._value import Value
from .metrics import RunState

__all__ = ["ChangedCode", "Entry", "JournalledRun"]

ChangedCode = Literal["error", "reuse", "rerun"]
"""What becomes of a recorded result when the code of its step has changed since."""


@frozen(eq=False, repr=False)
class Entry(Value):
    """A fact about a run, told once it is known; of two with the same *key* the later one holds.

    Attributes:
        run_id: the run, the outermost one where runs nest.
        key: which call of what this is; empty for the run itself.
        kind: a run (a child run, where *key* is not empty), a call of a step, or a call of a model.
        name: what was called: the workflow, the step, or ``provider:model``.
        state: how it ended, or ``running``.
        parent: the key of what called it; empty for the body of the run.
        inputs: its arguments, as a JSON object.
        value: its result, as JSON; empty without one.
        error: what went wrong, for people to read.
        code: the fingerprint of the code of the step or workflow.
        at: when this became known, a Unix time in seconds.
        duration: how long it took, in seconds.
        attempts: how many attempts it took.
        info: what else is to be kept, as a JSON object.
    """

    run_id: str
    key: str
    kind: Literal["run", "step", "call"]
    name: str
    state: RunState
    parent: str = ""
    inputs: str = ""
    value: str = ""
    error: str = ""
    code: str = ""
    at: float = 0.0
    duration: float = 0.0
    attempts: int = 1
    info: str = ""


@frozen(eq=False, repr=False)
class JournalledRun(Value):
    """A run as a journal lists it. *started* and *ended* are Unix times; *owner* says who executes it now."""

    run_id: str
    workflow: str
    state: RunState
    started: float
    ended: float | None = None
    entries: int = 0
    owner: str | None = None
