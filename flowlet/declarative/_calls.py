"""What a step calls: a prompt that asks a model, or a function with its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, cast

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
from ._format import SAMPLING
from ._functions import Unusable, as_step, function_of
from ._hints import hint_in
from ._plan import Argument, Call
from ._values import Constant, references_in, value_in

__all__ = ["call_in", "misfits"]

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def call_in(name: str, step: Node, faults: list[Fault]) -> Call:
    """Read what the *step* of that *name* calls; what is wrong goes to *faults*."""
    if "prompt" in step.parts:
        return _prompt(name, step, faults)
    if "use" in step.parts:
        return _function(name, step, faults)
    return _NOTHING


async def _nothing() -> None:
    """What a step calls that can't be read."""


_NOTHING = Call("", _nothing, {}, Any)


def _prompt(name: str, step: Node, faults: list[Fault]) -> Call:
    returns = hint_in(step, "returns", faults) if "returns" in step.parts else str
    try:
        output_format(returns)
    except DefinitionError as exc:
        faults.append(Fault(step.parts["returns"].place, f"{name}.returns: {exc}"))
    texts = {key: step.parts[key] for key in ("prompt", "system") if key in step.parts}
    templates = {key: Template.parse(node.text or "") for key, node in texts.items()}
    llm = AsyncLLM(**cast("Any", _plain(step, "model", *SAMPLING)))
    try:
        asked = asking(name, templates["prompt"], returns, llm, templates.get("system"))
    except DefinitionError:  # it names a word of Python, which no input and no step is: told as a reference
        asked = _nothing
    references = (r for key, node in texts.items() for r in references_in(node, templates[key]))
    arguments = {r.name: Argument(r, Any, r.place) for r in references}
    return Call("prompt", as_step(asked, name, _plain(step, "attempts", "timeout")), arguments, returns)


def _function(name: str, step: Node, faults: list[Fault]) -> Call:
    used, given = step.parts["use"], step.parts.get("with")
    try:
        function = function_of(used.text or "")
        made = as_step(function, name, _plain(step, "attempts", "timeout", "model"))
    except Unusable as exc:
        faults.append(Fault(used.place, f"{name}.use: {exc}"))
        unread = {} if given is None else {key: _untyped(node) for key, node in given.parts.items()}
        return Call("", _nothing, unread, Any)  # what it waits for is known all the same
    signature = signature_of(function)
    if given is not None or "with" not in step.keys:  # else that is wrong, and told
        faults += _lacking(name, used, signature, {} if given is None else given.keys)
    arguments = {} if given is None else _arguments(given, signature, faults)
    return Call(used.text or "", made, arguments, signature.returns)


def _plain(step: Node, *keys: str) -> dict[str, JsonValue]:
    return {key: step.parts[key].plain() for key in keys if key in step.parts}


def _taken(signature: Signature) -> dict[str, Parameter]:
    return {p.name: p for p in signature.parameters if p.kind in _NAMED}


def _lacking(name: str, used: Node, signature: Signature, given: Mapping[str, Place]) -> Iterator[Fault]:
    """What *signature* needs and is not given, not even misspelt."""
    takes = _taken(signature)
    meant = {nearest(key, takes) for key in given if key not in takes}
    for p in signature.parameters:
        if p.required and p.name not in given and p.name not in meant:
            way = f"with: {{{p.name}: ...}}" if p.name in takes else "a function that takes it by name"
            yield Fault(used.place, f"{name}.use: {signature} needs {p.name}; write {way}")


def _arguments(given: Node, signature: Signature, faults: list[Fault]) -> dict[str, Argument]:
    takes = _taken(signature)
    rest = next((p for p in signature.parameters if p.kind is p.kind.VAR_KEYWORD), None)
    found: dict[str, Argument] = {}
    for key, node in given.parts.items():
        parameter = takes.get(key, rest)
        if parameter is None:
            faults.append(Fault(given.keys[key], _untaken(key, signature, takes)))
        found[key] = _untyped(node) if parameter is None else _argument(key, node, parameter, faults)
    return found


def _untaken(key: str, signature: Signature, takes: Mapping[str, Parameter]) -> str:
    if key in [p.name for p in signature.parameters]:
        return f"{signature} takes no {key} by name, but by position; write a function that takes it by name"
    return f"{signature} takes no {key}{did_you_mean(key, takes)}"


def _untyped(node: Node) -> Argument:
    return Argument(value_in(node), Any, node.place)


def _argument(name: str, node: Node, parameter: Parameter, faults: list[Fault]) -> Argument:
    value = value_in(node)
    if isinstance(value, Constant):
        faults += misfits(name, value.data, parameter.hint, node.place)
        value = Constant(value.data, parameter.hint)
    return Argument(value, parameter.hint, node.place)


def misfits(name: str, data: JsonValue, hint: Any, place: Place) -> Iterator[Fault]:
    """Tell what in *data*, which is called *name*, does not fit *hint*."""
    try:
        from_json(data, hint)
    except InputError as exc:
        yield Fault(place, name + "; ".join(fault.removeprefix("$") for fault in exc.faults))
    except FlowletError as exc:
        yield Fault(place, f"{name}: {exc}")
