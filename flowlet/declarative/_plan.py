"""What a workflow in YAML says, as values: inputs, steps and the output, read and connected, ready to be checked and run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

from .._source import Place
from ._conditions import Condition
from ._format import ITEM
from ._values import Constant, Reference, Value

__all__ = ["Argument", "Call", "Input", "Plan", "Step"]


@frozen
class Input:
    """An input: its hint, its default where it has one, and whether it is text that comes from outside."""

    name: str
    hint: Any
    default: Constant | None
    untrusted: bool
    description: str


@frozen
class Argument:
    """What a function is given, and what it takes there."""

    value: Value
    taken: Any
    place: Place


@frozen
class Call:
    """What a step calls: *function*, a step itself, with *arguments*. *kind* is what the file says it is.

    *returns* is the hint of the result.
    """

    kind: str
    function: Callable[..., Any]
    arguments: Mapping[str, Argument]
    returns: Any


@frozen
class Step:
    """A step: its *call*, when, and for each of which *items* it is made.

    *otherwise* is the result where the step is skipped, *condition* what *when* was written as.
    """

    name: str
    place: Place
    call: Call
    when: Condition | None
    otherwise: Value
    items: Value | None
    max_concurrency: int
    after: tuple[Reference, ...]
    condition: str

    def __flowlet_key__(self) -> str:
        """What tells it from the other steps, in a journal, wherever it stands in the file."""
        return self.name

    @property
    def references(self) -> Iterator[Reference]:
        """Every reference in it, those to the item left out."""
        for argument in self.call.arguments.values():
            yield from (r for r in argument.value.references if self.items is None or r.name != ITEM)
        for part in (self.when, self.items, self.otherwise):
            yield from () if part is None else part.references
        yield from self.after


@frozen
class Plan:
    """A workflow: *returns* is the hint of its *output*, *options* are those of its runs.

    *file* is where it is written, *code* what is written there, without comments and layout.
    """

    name: str
    description: str
    inputs: Mapping[str, Input]
    steps: Mapping[str, Step]
    output: Value
    options: Mapping[str, Any]
    returns: Any = Any
    file: str = ""
    code: str = ""

    @property
    def needs(self) -> dict[str, list[str]]:
        """The steps, each with those that it needs."""
        return {
            name: list(dict.fromkeys(r.name for r in step.references if r.name in self.steps))
            for name, step in self.steps.items()
        }
