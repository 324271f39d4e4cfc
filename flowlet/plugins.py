"""Steps and middleware by name, of your own and of installed packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ._functions import build
from ._plugins import Found, find, register, unknown
from .errors import DefinitionError, PluginError
from .settings import process
from .specs import Spec, is_async, spec_of

__all__ = ["get_step", "register_step"]


class Steps:
    """The steps that were made of plugins, by name, each with what it was made of."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[Found, Callable[..., Any]]] = {}


def register_step(name: str, fn_or_plugin: Callable[..., Any]) -> None:
    """Make a function known as the step *name*, for ``get_step`` and ``use:`` in YAML.

    Raises:
        DefinitionError: it can't be called, or *name* can't be a name.
    """
    if not callable(fn_or_plugin):
        raise DefinitionError(f"step {name!r} takes a function, not {type(fn_or_plugin).__name__}")
    register("step", name, fn_or_plugin, _place(fn_or_plugin))


def _place(value: object) -> str:
    qualname = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{getattr(value, '__module__', None)}:{qualname}"


def get_step(name: str) -> Callable[..., Any]:
    """Give the registered or installed step *name*, as a function.

    Raises:
        PluginError: there is no such step, or it is broken; the message says why, or names the nearest one.
    """
    found = find("step", name)
    if found is None:
        raise PluginError(unknown("step", name))
    made = process.of(Steps).made
    known = made.get(name)
    if known is None or known[0] is not found:
        known = made[name] = found, _step_of(found)
    return known[1]


def _step_of(found: Found) -> Callable[..., Any]:
    fn = found.value
    if not callable(fn):
        raise PluginError(f"{found.plugin} is no function but {type(fn).__name__}")
    spec = spec_of(fn)
    if spec is not None and spec.kind == "step":
        return fn
    return cast("Callable[..., Any]", build(Spec("step", fn, found.plugin.name, is_async(fn))))
