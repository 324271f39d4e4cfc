"""From a file to a plan that can run, or one error with all that is wrong in it."""

from __future__ import annotations

import re
import sys
from itertools import islice
from os import PathLike
from pathlib import Path

from attrs import evolve

from .._placed import read, without_secrets
from .._source import Fault, Place, Source, masked, render
from .._suggest import nearest
from .._yaml import Node, parse
from ..errors import DefinitionError
from ..settings import process
from ._checking import checked
from ._format import WORKFLOW
from ._plan import Plan
from ._reading import read_plan, texts
from ._values import misused

__all__ = ["plan_in"]

_MOST = 100


def plan_in(path: str | PathLike[str]) -> Plan:
    """The plan in the YAML file *path*.

    Raises:
        DefinitionError: naming everything that is wrong in it, with its place.
    """
    faults: list[Fault] = []
    file = Path(path)
    source = _source(file)
    plan = None if isinstance(source, Fault) else _plan_of(source, file, faults)
    if isinstance(source, Fault):
        faults.append(source)
    if plan is None or faults:
        told = (process.redactor.redact(masked(text)).replace("\n", "\n  ") for text in render(faults))
        raise DefinitionError(f"{masked(str(file))} can't be used:", tuple(told))
    return plan


def _plan_of(source: Source, file: Path, faults: list[Fault]) -> Plan | None:
    node = parse(source, faults)
    if node is not None:
        return _plan(node, file, faults)
    if not faults:
        faults.append(Fault(Place(source), "found nothing; expected steps: with at least one step"))
    return None


def _plan(node: Node, file: Path, faults: list[Fault]) -> Plan:
    _reach(file)
    node = without_secrets(node, process.redactor.redact, faults, names=False)
    kept = read(node, WORKFLOW, faults, "key")
    plan = read_plan(kept, re.sub(r"[^\w.-]", "_", file.stem) or "workflow", faults)
    known = {**plan.inputs, **plan.steps}
    faults += islice((fault for text in texts(kept) for fault in misused(text, known)), _MOST)
    return evolve(checked(plan, faults), file=str(file.absolute()), code=repr(kept.plain()))


def _reach(file: Path) -> None:
    """Let modules beside *file* and in the working directory be found, behind all others: none hides another."""
    for place in map(str, (file.absolute().parent, Path.cwd())):
        if place not in sys.path:
            sys.path.append(place)


def _source(file: Path) -> Source | Fault:
    try:
        return Source.read(file, str(file))
    except FileNotFoundError:
        others = (path.name for path in file.parent.glob("*.y*ml"))
        near = nearest(file.name, others)
        hint = f"; did you mean {file.with_name(near)}?" if near else ""
        return Fault(Place(Source(str(file), "")), f"there is no such file{hint}")
