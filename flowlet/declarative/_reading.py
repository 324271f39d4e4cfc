"""From the nodes of a workflow's file to a plan; what is wrong with a part by itself is told here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from attrs import evolve, frozen

from .._codec import from_json
from .._data.checking import did_you_mean
from .._schema import output_format
from .._signature import Parameter, Signature, signature_of
from .._source import Fault, Place
from .._suggest import nearest
from .._template import Template
from .._yaml import Node
from ..errors import DefinitionError, FlowletError, InputError
from ..llm import AsyncLLM
from ..messages import JsonValue
from ..prompts import asking
from ._conditions import Condition, read_condition
from ._format import SAMPLING, STEP, TEXTS, TOGETHER
from ._functions import Unusable, as_step, function_of
from ._hints import read_hint
from ._plan import Argument, Input, Plan, Step
from ._tokens import Misread
from ._values import Constant, Reference, references_in, value_in

__all__ = ["read_plan", "texts"]

Nodes = Mapping[str, Node]
Function = Callable[..., Any]
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def read_plan(node: Node, name: str, faults: list[Fault]) -> Plan:
    """Read what *node* allows to read, of a workflow that is called *name* unless it says so itself."""
    reading, nodes = _Reading(faults), _nodes(node)
    inputs = {n: reading.input(n, _nodes(part)) for n, part in _part(nodes, "inputs").items()}
    steps = {n: reading.step(n, part, nodes["steps"].keys[n]) for n, part in _part(nodes, "steps").items()}
    last = Reference(list(steps)[-1], node.place) if steps else Constant(None)
    return Plan(
        str(_plain(nodes, "name", name)),
        str(_plain(nodes, "description", "")).strip(),
        inputs,
        steps,
        value_in(nodes["output"]) if "output" in nodes else last,
        {key: nodes[key].plain() for key in ("model", "timeout") if key in nodes},
    )


def texts(node: Node) -> Iterator[Node]:
    """The parts of a workflow in whose texts there may be references."""
    nodes = _nodes(node)
    yield from (nodes[key] for key in ("output",) if key in nodes)
    for step in _part(nodes, "steps").values():
        yield from (part for key, part in _nodes(step).items() if key in TEXTS)


def _nodes(node: Node) -> Nodes:
    return node.data if isinstance(node.data, dict) else {}


def _part(nodes: Nodes, name: str) -> Nodes:
    return _nodes(nodes[name]) if name in nodes else {}


def _plain(nodes: Nodes, name: str, default: JsonValue = None) -> JsonValue:
    return nodes[name].plain() if name in nodes else default


@frozen
class _Reading:
    """Reads the parts of a workflow; what is wrong goes to *faults*."""

    faults: list[Fault]

    def fault(self, place: Place, message: str) -> None:
        """Note what is wrong."""
        self.faults.append(Fault(place, message))

    def input(self, name: str, nodes: Nodes) -> Input:
        """An input."""
        hint = self.hint(nodes["type"]) if "type" in nodes else Any
        default = self.constant(name, nodes["default"], hint) if "default" in nodes else None
        return Input(name, hint, default, str(_plain(nodes, "description", "")))

    def hint(self, node: Node) -> Any:
        """A type; Any where it can't be read."""
        try:
            return read_hint(node)
        except Misread as exc:
            self.faults.append(exc.fault)
            return Any

    def constant(self, name: str, node: Node, hint: Any) -> Constant:
        """Data that is a *hint*."""
        data = node.plain()
        self.faults.extend(_misfits(name, data, hint, node.place))
        return Constant(data, hint)

    def step(self, name: str, node: Node, place: Place) -> Step:
        """A step."""
        nodes = _nodes(node)
        self.together(name, node, place)
        read = self.prompt if "prompt" in nodes else self.call
        kind, function, arguments, returns = read(name, nodes, place)
        return Step(
            name,
            place,
            kind,
            function,
            arguments,
            returns,
            self.condition(nodes["when"]) if "when" in nodes else None,
            value_in(nodes["else"]) if "else" in nodes else Constant(None),
            value_in(nodes["for_each"]) if "for_each" in nodes else None,
            cast("int", _plain(nodes, "max_concurrency", 32)),
            tuple(_listed(nodes["needs"])) if "needs" in nodes else (),
            _condition_text(nodes["when"]) if "when" in nodes else "",
        )

    def together(self, name: str, node: Node, place: Place) -> None:
        """Note the keys of a step that lack another one, or exclude one another."""
        if "prompt" in node.keys and "use" in node.keys:
            self.fault(place, f"{name}: expected either prompt or use, found both")
        elif "prompt" not in node.keys and "use" not in node.keys:
            if node.keys.keys() <= STEP.fields.keys():  # else it is told already, and may be a slip
                self.fault(place, f"{name}: expected either prompt or use, found neither")
            return
        for key, other in TOGETHER.items():
            if key in node.keys and other not in node.keys:
                self.fault(node.keys[key], f"{key} belongs to a step with {other}; {name} has none")

    def prompt(
        self, name: str, nodes: Nodes, place: Place
    ) -> tuple[str, Function, Mapping[str, Argument], Any]:
        """What a step with a prompt calls."""
        returns = self.hint(nodes["returns"]) if "returns" in nodes else str
        try:
            output_format(returns)
        except DefinitionError as exc:
            self.fault(nodes["returns"].place, f"{name}.returns: {exc}")
        templates = {
            key: Template.parse(nodes[key].text or "") for key in ("prompt", "system") if key in nodes
        }
        options = {key: _plain(nodes, key) for key in ("model", *SAMPLING) if key in nodes}
        asked = asking(
            name, templates["prompt"], returns, AsyncLLM(**cast("Any", options)), templates.get("system")
        )
        references = [r for key, found in templates.items() for r in references_in(nodes[key], found)]
        arguments = {r.name: Argument(r, Any, r.place) for r in references}
        return "prompt", as_step(asked, name, _options(nodes)), arguments, returns

    def call(
        self, name: str, nodes: Nodes, place: Place
    ) -> tuple[str, Function, Mapping[str, Argument], Any]:
        """What a step with a function calls."""
        if "use" not in nodes:
            return "use", _nothing, {}, Any
        used = nodes["use"]
        try:
            function = function_of(used.text or "")
            made = as_step(function, name, {**_options(nodes), **_model(nodes)})
        except Unusable as exc:
            self.fault(used.place, f"{name}.use: {exc}")
            return "use", _nothing, {}, Any
        signature = signature_of(function)
        given = nodes.get("with", evolve(used, data={}))
        return str(used.text), made, self.arguments(name, used, signature, given), signature.returns

    def arguments(self, name: str, used: Node, signature: Signature, given: Node) -> dict[str, Argument]:
        """What a function is given, by the names of its parameters."""
        takes = {p.name: p for p in signature.parameters if p.kind in _NAMED}
        rest = next((p for p in signature.parameters if p.kind is p.kind.VAR_KEYWORD), None)
        found: dict[str, Argument] = {}
        meant: set[str | None] = set()
        for key, node in _nodes(given).items():
            parameter = takes.get(key, rest)
            if parameter is None:
                meant.add(nearest(key, takes))
                self.fault(
                    given.keys[key], f"{signature} takes no {key} by name{_way(key, signature, takes)}"
                )
            else:
                found[key] = self.argument(key, node, parameter)
        for p in signature.parameters:
            if p.required and p.name not in given.keys and p.name not in meant:
                way = f"with: {{{p.name}: ...}}" if p.name in takes else "a function that takes it by name"
                self.fault(used.place, f"{name}.use: {signature} needs {p.name}; write {way}")
        return found

    def argument(self, name: str, node: Node, parameter: Parameter) -> Argument:
        """What *parameter* is given."""
        value = value_in(node)
        if isinstance(value, Constant):
            self.faults.extend(_misfits(name, value.data, parameter.hint, node.place))
            value = Constant(value.data, parameter.hint)
        return Argument(value, parameter.hint, node.place)

    def condition(self, node: Node) -> Condition | None:
        """A condition; none where it can't be read."""
        try:
            return read_condition(node)
        except Misread as exc:
            self.faults.append(exc.fault)
            return None


async def _nothing() -> None:
    """What a step calls that can't be read."""


def _way(key: str, signature: Signature, takes: Mapping[str, Parameter]) -> str:
    """What to do about a key that *signature* does not take."""
    if key in [p.name for p in signature.parameters]:
        return ", but by position; write a function that takes it by name"
    return did_you_mean(key, takes)


def _misfits(name: str, data: JsonValue, hint: Any, place: Place) -> Iterator[Fault]:
    try:
        from_json(data, hint)
    except InputError as exc:
        told = "; ".join(fault.removeprefix("$") for fault in exc.faults)
        yield Fault(place, name + told)
    except FlowletError as exc:
        yield Fault(place, f"{name}: {exc}")


def _options(nodes: Nodes) -> dict[str, Any]:
    return {key: _plain(nodes, key) for key in ("attempts", "timeout") if key in nodes}


def _model(nodes: Nodes) -> dict[str, Any]:
    return {"model": _plain(nodes, "model")} if "model" in nodes else {}


def _condition_text(node: Node) -> str:
    return node.text.strip() if node.text is not None else " ".join(_nodes(node))


def _listed(node: Node) -> Iterator[Reference]:
    for part in node.data if isinstance(node.data, tuple) else (node,):
        yield Reference((part.text or "").strip("{} "), part.place)
