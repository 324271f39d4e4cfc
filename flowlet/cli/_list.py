"""``flowlet list``: the workflows and steps of a module, with their signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .._target import kind_of, load, runnable
from ..messages import JsonValue
from . import _codes
from ._find import find, is_yaml
from ._shown import hint, signature, write_json

Function = Callable[..., Any]


def list_module(place: str, as_json: bool) -> int:
    """Write what can be run in the module *place*; plain functions only where nothing is marked."""
    found = _found(place)
    marked = {name: fn for name, fn in found.items() if kind_of(fn) != "function"} or found
    if as_json:
        write_json({"module": place, "functions": [_as_data(n, fn) for n, fn in marked.items()]})
    elif not marked:
        print(f"{place} has no workflow, step or function")
    else:
        _write(marked)
    return _codes.OK


def _found(place: str) -> dict[str, Function]:
    if not is_yaml(place):
        return runnable(load(place))
    workflow = find(place)
    return {workflow.__name__: workflow}


def _write(found: dict[str, Function]) -> None:
    width = max(len(kind_of(fn)) for fn in found.values())
    for name, fn in found.items():
        colour = "async " if inspect.iscoroutinefunction(fn) else ""
        print(f"{kind_of(fn):{width}}  {colour}{signature(fn, name)}")
        if _first_line(fn):
            print(f"{'':{width}}      {_first_line(fn)}")


def _first_line(fn: Function) -> str:
    return (inspect.getdoc(fn) or "").partition("\n")[0]


def _as_data(name: str, fn: Function) -> JsonValue:
    return {
        "name": name,
        "kind": kind_of(fn),
        "async": inspect.iscoroutinefunction(fn),
        "signature": signature(fn, name),
        "doc": _first_line(fn) or None,
        "inputs": [
            {"name": p.name, "type": hint(p.annotation), "required": p.default is inspect.Parameter.empty}
            for p in inspect.signature(fn).parameters.values()
        ],
    }
