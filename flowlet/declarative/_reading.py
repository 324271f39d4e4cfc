"""From the nodes of a workflow's file to a plan; what is wrong with a part by itself is told here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from attrs import frozen

from .._source import Fault, Place
from .._yaml import Node
from ._calls import call_in, misfits
from ._conditions import Condition, read_condition
from ._format import STEP, TEXTS, TOGETHER
from ._hints import hint_in
from ._plan import Input, Plan, Step
from ._tokens import Misread
from ._values import Constant, Reference, Value, value_in

__all__ = ["read_plan", "texts"]


def read_plan(node: Node, name: str, faults: list[Fault]) -> Plan:
    """Read what *node* allows to read, of a workflow that is called *name* unless it says so itself."""
    reading = _Reading(faults)
    inputs = {n: reading.input(n, part) for n, part in _parts(node, "inputs")}
    steps = {n: reading.step(n, part, node.parts["steps"].keys[n]) for n, part in _parts(node, "steps")}
    output = node.parts.get("output")
    if output is not None and isinstance(output.data, str) and output.data in (*inputs, *steps):
        reading.fault(output.place, f"output is the text {output.data}; did you mean {{{output.data}}}?")
    last = Reference(list(steps)[-1], node.place) if steps else Constant(None)
    return Plan(
        _text(node, "name") or name,
        _text(node, "description"),
        inputs,
        steps,
        _value(node, "output") or last,
        {key: node.parts[key].plain() for key in ("model", "timeout") if key in node.parts},
    )


def texts(node: Node) -> Iterator[Node]:
    """The parts of a workflow in whose texts there may be references."""
    if "output" in node.parts:
        yield node.parts["output"]
    for _, step in _parts(node, "steps"):
        yield from (part for key, part in step.parts.items() if key in TEXTS)


def _parts(node: Node, key: str) -> Iterator[tuple[str, Node]]:
    if key in node.parts:
        yield from node.parts[key].parts.items()


def _text(node: Node, key: str) -> str:
    return (node.parts[key].text or "").strip() if key in node.parts else ""


def _value(node: Node, key: str) -> Value | None:
    return value_in(node.parts[key]) if key in node.parts else None


@frozen
class _Reading:
    """Reads the parts of a workflow; what is wrong goes to *faults*."""

    faults: list[Fault]

    def fault(self, place: Place, message: str) -> None:
        """Note what is wrong."""
        self.faults.append(Fault(place, message))

    def input(self, name: str, node: Node) -> Input:
        """An input."""
        hint = hint_in(node, "type", self.faults)
        default, untrusted = node.parts.get("default"), node.parts.get("untrusted")
        if default is not None:
            self.faults.extend(misfits(name, default.plain(), hint, default.place))
        if untrusted is not None and untrusted.data and hint is not str:
            self.fault(untrusted.place, f"{name}.untrusted: only an input of the type str can be marked so")
        return Input(
            name,
            hint,
            None if default is None else Constant(default.plain(), hint),
            untrusted is not None and bool(untrusted.data),
            _text(node, "description"),
        )

    def step(self, name: str, node: Node, place: Place) -> Step:
        """A step."""
        self.together(name, node, place)
        when, limit = node.parts.get("when"), node.parts.get("max_concurrency")
        return Step(
            name,
            place,
            call_in(name, node, self.faults),
            None if when is None else self.condition(when),
            _value(node, "else") or Constant(None),
            _value(node, "for_each"),
            32 if limit is None else cast("int", limit.data),
            tuple(_listed(node.parts["needs"])) if "needs" in node.parts else (),
            "" if when is None else (when.text or " ".join(when.parts)).strip(),
        )

    def together(self, name: str, node: Node, place: Place) -> None:
        """Note the keys of a step that lack another one, or exclude one another."""
        keys = node.keys.keys()
        if {"prompt", "use"} <= keys:
            self.fault(place, f"{name}: expected either prompt or use, found both")
        elif not {"prompt", "use"} & keys:
            if keys <= STEP.fields.keys() and not node.text:  # else it is told already, and may be a slip
                self.fault(place, f"{name}: expected either prompt or use, found neither")
            return
        for key, other in TOGETHER.items():
            if key in keys and other not in keys:
                self.fault(node.keys[key], f"{key} belongs to a step with {other}; {name} has none")

    def condition(self, node: Node) -> Condition | None:
        """A condition; none where it can't be read."""
        try:
            return read_condition(node)
        except Misread as exc:
            self.faults.append(exc.fault)
            return None


def _listed(node: Node) -> Iterator[Reference]:
    for part in node.data if isinstance(node.data, tuple) else (node,):
        yield Reference((part.text or "").strip("{} "), part.place)
