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


def plan_in(path: str | PathLike[str]) -> Plan:
    """The plan in the YAML file *path*.

    Raises:
        DefinitionError: naming everything that is wrong in it, with its place.
    """
    faults: list[Fault] = []
    file = Path(path)
    source = _source(file)
    node = None
    if isinstance(source, Fault):
        faults.append(source)
    else:
        node = parse(source, faults)
        if node is None and not faults:
            faults.append(Fault(Place(source), "found nothing; expected steps: with at least one step"))
    plan = None if node is None else _plan(node, file, faults)
    if plan is None or faults:
        told = (process.redactor.redact(masked(text)).replace("\n", "\n  ") for text in render(faults))
        raise DefinitionError(f"{masked(str(path))!s} can't be used:", tuple(told))
    return plan


def _plan(node: Node, file: Path, faults: list[Fault]) -> Plan:
    for place in (
        file.absolute().parent,
        Path.cwd(),
    ):  # behind all others: no file here hides an installed module
        if str(place) not in sys.path:
            sys.path.append(str(place))
    node = without_secrets(node, process.redactor.redact, faults, names=False)
    kept = read(node, WORKFLOW, faults, "key")
    plan = read_plan(kept, re.sub(r"[^\w.-]", "_", file.stem) or "workflow", faults)
    known = {**plan.inputs, **plan.steps}
    faults += islice((fault for text in texts(kept) for fault in misused(text, known)), 100)
    return evolve(checked(plan, faults), file=str(file.absolute()), code=repr(kept.plain()))


def _source(file: Path) -> Source | Fault:
    try:
        return Source.read(file, str(file))
    except FileNotFoundError:
        near = nearest(
            file.name, (p.name for pattern in ("*.yaml", "*.yml") for p in file.parent.glob(pattern))
        )
        hint = f"; did you mean {file.with_name(near)}?" if near else ""
        return Fault(Place(Source(str(file), "")), f"there is no such file{hint}")
