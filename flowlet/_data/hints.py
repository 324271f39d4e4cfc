"""Hints as they are meant: strings resolved where that is possible, type variables filled in."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast, get_args, get_origin, get_type_hints

if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations

    _written = partial(get_annotations, format=Format.FORWARDREF)
else:
    _written = inspect.get_annotations


def function_hints(fn: Any) -> dict[str, Any]:
    """The hints of *fn*'s parameters and of its return, each resolved where that is possible."""
    inner = inspect.unwrap(fn)
    while isinstance(inner, partial):
        inner = inspect.unwrap(inner.func)
    if not hasattr(inner, "__code__") and not hasattr(inner, "__func__"):  # a class, or an instance to call
        name = "__init__" if isinstance(inner, type) else "__call__"
        inner = getattr(cast("Any", inner if isinstance(inner, type) else type(inner)), name)
    names = getattr(inspect.unwrap(getattr(inner, "__func__", inner)), "__globals__", {})
    return {name: _resolved(hint, names) for name, hint in _annotations(inner).items()}


def class_hints(hint: Any) -> dict[str, Any]:
    """The hints of the fields of the class that *hint* is, or is a generic alias of, base classes first."""
    cls = get_origin(hint) or hint
    envs = bindings(hint)
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        own = {base.__name__: base, cls.__name__: cls}  # a class in a function is not a name of its module
        names: dict[str, Any] = {**vars(base), **_module(base.__module__), **own}
        for name, note in _annotations(base).items():
            found[name] = filled(_resolved(note, names), envs.get(base, {}))
    return found


def bindings(hint: Any) -> dict[Any, dict[Any, Any]]:
    """What the type variables of a generic class and of its bases stand for, by class."""
    cls = get_origin(hint) or hint
    env = dict(zip(getattr(cls, "__parameters__", ()), get_args(hint), strict=False))
    found: dict[Any, dict[Any, Any]] = {cls: env}
    bases: tuple[Any, ...] = cls.__dict__.get("__orig_bases__", cls.__bases__)
    for base in bases:
        if get_origin(base) not in (Generic, Protocol) and isinstance(get_origin(base) or base, type):
            found |= bindings(filled(base, env))
    return found


def filled(hint: Any, env: Mapping[Any, Any]) -> Any:
    """*hint* with its type variables replaced by what *env* says."""
    if isinstance(hint, TypeVar):
        return env.get(hint, hint)
    variables = getattr(hint, "__parameters__", ())
    if not variables or not env or isinstance(hint, type):
        return hint
    return hint[tuple(env.get(variable, variable) for variable in variables)]


def resolved(hint: Any, module: str) -> Any:
    """*hint* with its strings resolved by the names of *module*."""
    return _resolved(hint, _module(module))


def _module(name: str) -> dict[str, Any]:
    return vars(sys.modules[name]) if name in sys.modules else {}


def _annotations(target: Any) -> Mapping[str, Any]:
    try:
        return _written(target)
    except TypeError:  # a builtin has none
        return {}


def _resolved(hint: Any, names: dict[str, Any]) -> Any:
    if isinstance(hint, type) and not get_args(hint):
        return hint
    one = type("_", (), {"__annotations__": {"hint": hint}})
    try:
        return get_type_hints(one, names, include_extras=True)["hint"]
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001 - a hint is any expression; unresolved, it is told where it matters
        return hint
