"""Workflows in YAML, as the commands find, check and draw them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .._graph import mermaid, stages
from ..declarative._loading import plan_in
from ..declarative._plan import Plan, Step
from ..declarative._running import workflow_of
from ..errors import DefinitionError
from ..messages import JsonValue
from . import _codes
from ._shown import signature, write_json

_RESULT = "return"
"""Stands for the result in a drawing; no step can be called so."""


def check_workflows(files: Sequence[str], as_json: bool) -> int:
    """Write what is in *files*.

    Raises:
        DefinitionError: naming everything that is wrong in any of them.
    """
    plans: list[Plan] = []
    wrong: list[DefinitionError] = []
    for file in files:
        try:
            plans.append(plan_in(file))
        except DefinitionError as exc:
            wrong.append(exc)
    if wrong:
        faults = tuple(fault for exc in wrong for fault in exc.faults)
        raise wrong[0] if len(wrong) == 1 else DefinitionError("these files can't be used:", faults)
    if as_json:
        found: list[JsonValue] = [{"file": f, **_as_data(p)} for f, p in zip(files, plans, strict=True)]
        write_json({"ok": True, "workflows": found})
    else:
        for file, plan in zip(files, plans, strict=True):
            print(f"ok: {file}: {signature(workflow_of(plan))}, {_count(len(plan.steps))}")
    return _codes.OK


def draw(file: str, form: str, as_json: bool) -> int:
    """Write the steps of a file of YAML, and what needs what.

    Raises:
        DefinitionError: naming everything that is wrong in it.
    """
    plan = plan_in(file)
    if as_json:
        write_json(_as_data(plan))
    else:
        print(_mermaid(plan) if form == "mermaid" else "\n".join(_text(plan)))
    return _codes.OK


def _count(steps: int) -> str:
    return f"{steps} step{'' if steps == 1 else 's'}"


def _as_data(plan: Plan) -> dict[str, JsonValue]:
    needs = plan.needs
    steps: list[JsonValue] = [
        {
            "name": step.name,
            "calls": step.call.kind,
            "needs": list[JsonValue](needs[step.name]),
            "inputs": list[JsonValue](_names(step, plan.inputs)),
            "for_each": step.items is not None,
            "when": step.condition or None,
        }
        for step in plan.steps.values()
    ]
    output: list[JsonValue] = list(dict.fromkeys(r.name for r in plan.output.references))
    return {"name": plan.name, "inputs": list[JsonValue](plan.inputs), "steps": steps, "output": output}


def _names(step: Step, among: Iterable[str]) -> list[str]:
    known = set(among)
    return list(dict.fromkeys(r.name for r in step.references if r.name in known))


def _text(plan: Plan) -> Iterator[str]:
    """A line for each step, by the stages in which they can be done."""
    yield f"{signature(workflow_of(plan))}\n"
    rows = [
        (str(number) if first else "", name, *_columns(plan.steps[name], plan))
        for number, stage in enumerate(stages(plan.needs), 1)
        for first, name in zip((True, *[False] * len(stage)), stage, strict=False)
    ]
    rows.append(("", "result", "", ", ".join(dict.fromkeys(r.name for r in plan.output.references)), ""))
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=False))
        yield "  ".join((*cells, row[4])).rstrip()


def _columns(step: Step, plan: Plan) -> tuple[str, str, str]:
    notes = ("for each" if step.items is not None else "", f"when {step.condition}" if step.condition else "")
    needed = _names(step, (*plan.inputs, *plan.steps))
    return step.call.kind, ", ".join(needed), ", ".join(filter(None, notes))


def _mermaid(plan: Plan) -> str:
    boxes = {name: f"({name})" for name in plan.inputs}
    boxes |= {name: f"{name}: {step.call.kind}" for name, step in plan.steps.items()}
    arrows = {(r.name, name): "" for name, step in plan.steps.items() for r in step.references}
    for name, step in plan.steps.items():
        arrows |= {(r.name, name): "when" for r in (step.when.references if step.when else ())}
        arrows |= {(r.name, name): "for each" for r in (step.items.references if step.items else ())}
    arrows |= {(r.name, _RESULT): "" for r in plan.output.references}
    return mermaid({**boxes, _RESULT: "(result)"}, ((*ends, label) for ends, label in arrows.items()))
