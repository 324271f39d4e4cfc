"""What is wrong between the parts of a plan: names that do not exist, circles, and types that do not fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, evolve, field

from .._fits import fits, told
from .._graph import circles, drawn, stages
from .._source import Fault
from .._suggest import nearest
from ._clashes import clashes
from ._conditions import conjuncts, narrowed
from ._format import ITEM
from ._plan import Argument, Call, Plan, Step
from ._types import either, item_of, list_of, members, without_null
from ._values import Constant, Reference, Value

__all__ = ["checked"]

_MOST = 50
"""To so many unknown names the nearest is sought, which takes its time; no more are told."""


def checked(plan: Plan, faults: list[Fault]) -> Plan:
    """Note what is wrong in *plan*, and give it with the hint of its result."""
    found = circles(plan.needs)
    faults += _misnamed(plan)
    faults += (_circle(circle, plan) for circle in found)
    types = _Types(plan, faults)
    for name in _order(plan.needs, found):
        types.step(plan.steps[name])
    return evolve(plan, returns=types.value(plan.output, types.hints))


def _misnamed(plan: Plan) -> Iterator[Fault]:
    known = [*plan.inputs, *plan.steps]
    unknown = [r for r in plan.output.references if r.name not in known]
    for name, step in plan.steps.items():
        if name in plan.inputs:
            yield Fault(step.place, f"{name} is an input already; give the step another name")
        unknown += (r for r in step.references if r.name not in known and r not in step.after)
        yield from (_no_step(r, plan) for r in step.after if r.name not in plan.steps)
    for number, reference in enumerate(unknown):
        yield _unknown(reference, known if number < _MOST else ())


def _unknown(reference: Reference, known: Collection[str]) -> Fault:
    name = reference.name
    if name == ITEM:
        return Fault(reference.place, "{item} is what a for_each goes through; there is none here")
    near = nearest(name, known)
    escape = f"; write {{{{{name}}}}} for the text {{{name}}}" if reference.in_text else ""
    hint = f"; did you mean {near}?" if near else escape or f"; there are: {', '.join(known) or 'none'}"
    return Fault(reference.place, f"there is no input or step {name!r}{hint}")


def _no_step(reference: Reference, plan: Plan) -> Fault:
    if reference.name in plan.inputs:
        return Fault(
            reference.place, f"{reference.name} is an input, and there from the start; remove it here"
        )
    near = nearest(reference.name, plan.steps)
    hint = f"did you mean {near}?" if near else f"there are: {', '.join(plan.steps)}"
    return Fault(reference.place, f"there is no step {reference.name!r}; {hint}")


def _circle(circle: Sequence[str], plan: Plan) -> Fault:
    closing = next(r for r in plan.steps[circle[0]].references if r.name == circle[-2])
    told = f"these steps wait for one another: {drawn(circle)}; remove one of the references"
    return Fault(closing.place, told)


def _order(needs: Mapping[str, list[str]], found: Sequence[Sequence[str]]) -> Iterator[str]:
    """The steps, each behind those that it needs; those in circles first."""
    circled = {name for circle in found for name in circle}
    left = {name: [] if name in circled else needed for name, needed in needs.items()}
    for stage in stages(left) if not circled or not circles(left) else [list(left)]:
        yield from stage


@define
class _Types:
    """Goes through the steps in their order; *hints* are those of all results so far, *ran* those of steps that ran."""

    plan: Plan
    faults: list[Fault]
    hints: dict[str, Any] = field(init=False)
    ran: dict[str, Any] = field(factory=dict[str, Any])

    def __attrs_post_init__(self) -> None:
        self.hints = {name: found.hint for name, found in self.plan.inputs.items()}

    def fault(self, place: Any, message: str) -> None:
        """Note what is wrong."""
        self.faults.append(Fault(place, message))

    def step(self, step: Step) -> None:
        """Check *step*, and note the hint of its result."""
        if step.when is not None:
            self.faults += clashes(step.when, self.hints)
        seen = self.seen_by(step)
        if step.items is not None:
            seen[ITEM] = self.item(step, step.items, seen)
        for name, argument in step.call.arguments.items():
            self.argument(step.call, name, argument, seen)
        returns = step.call.returns
        found = returns if step.items is None else list_of(returns)
        self.ran[step.name] = self.hints[step.name] = found
        if step.when is not None:
            self.hints[step.name] = either(found, self.value(step.otherwise, self.hints))

    def seen_by(self, step: Step) -> dict[str, Any]:
        """The hints as they are where *step* is not skipped."""
        found, holds = dict(self.hints), conjuncts(step.when)
        for name in {reference.name for reference in step.references} & self.ran.keys():
            other = self.plan.steps[name].when
            if other is not None and all(part in holds for part in conjuncts(other)):
                found[name] = self.ran[name]
        return narrowed(found, step.when)

    def item(self, step: Step, items: Value, seen: Mapping[str, Any]) -> Any:
        """The hint of one of *items*."""
        hint = self.value(items, seen)
        found = item_of(hint)
        if found is None:
            place = items.references[0].place if items.references else step.place
            why = self.why_null(items, hint)
            if isinstance(items, Constant) and isinstance(items.data, str) and items.data in seen:
                why = f"; did you mean {{{items.data}}}?"
            self.fault(place, f"{step.name}.for_each: expected a list, found {told(hint)}{why}")
            return Any
        return found

    def argument(self, call: Call, name: str, argument: Argument, seen: Mapping[str, Any]) -> None:
        """Check that what is given is what is taken."""
        value, taken = argument.value, argument.taken
        given = self.value(value, seen)
        if isinstance(value, Constant) or fits(given, taken):
            return
        what = value.name if isinstance(value, Reference) else "this"
        why = self.why_null(value, given) if fits(without_null(given), taken) else ""
        self.fault(
            argument.place, f"{what} is {told(given)}, but {call.kind} takes {told(taken)} for {name}{why}"
        )

    def value(self, value: Value, seen: Mapping[str, Any]) -> Any:
        """The hint of *value*; what may be null can't stand in a text."""
        for reference in value.references:
            hint = reference.hint(seen)
            if reference.in_text and (hint is None or type(None) in members(hint)):
                why = self.why_null(reference, hint)
                self.fault(
                    reference.place, f"{reference.name} may be null, which has no place in a text{why}"
                )
        return value.hint(seen)

    def why_null(self, value: Value, hint: Any) -> str:
        """Why *value* may be null, and what to do."""
        if not isinstance(value, Reference) or type(None) not in members(hint):
            return ""
        step = self.plan.steps.get(value.name)
        way = f"say when: {value.name} != null here"
        if step is not None and step.when is not None:
            return f"; {value.name} may be skipped: give it an else, or {way}"
        return f"; {way}"
