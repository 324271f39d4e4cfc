"""Steps and middleware by name, of your own and of installed packages."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from attrs import evolve

from ._engine import _opening
from ._engine._failures import awaited
from ._engine._isolation import Blame
from ._engine._lifetimes import Recipe
from ._engine._options import check_inputs, check_result
from ._entry_points import Plugin
from ._fingerprint import CODE_ATTRIBUTE
from ._functions import build
from ._plugins import Found, Plugins, find, register, unknown
from .errors import DefinitionError, InputError, PluginError
from .protocols import Middleware
from .settings import process
from .specs import Spec, is_async, spec_of

__all__ = ["get_step", "register_middleware", "register_step"]

_LIFETIMES = ("run", "process")


class Steps:
    """The steps that were made of plugins, by name, each with what it was made of."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[Found, Callable[..., Any]]] = {}


def register_step(name: str, fn_or_plugin: Callable[..., Any]) -> None:
    """Make a function, or a ``StepPlugin``, known as the step *name*, for ``get_step`` and for YAML.

    Of a class of plugins each run makes its own one; an object is shared by all runs.

    Raises:
        DefinitionError: it can't be a step, or *name* can't be a name.
    """
    reason = _no_step(fn_or_plugin)
    if reason is not None:
        raise DefinitionError(f"register_step({name!r}, ...): {reason}")
    register("step", name, fn_or_plugin)


def register_middleware(name: str, fn: Middleware) -> None:
    """Make a middleware known as *name*, for the settings and options that name it.

    Raises:
        DefinitionError: it can't be called, or *name* can't be a name.
    """
    if not callable(fn):
        raise DefinitionError(
            f"register_middleware({name!r}, ...): expected a function, found {type(fn).__name__}"
        )
    register("middleware", name, fn)


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
        reason = _no_step(found.value)
        if reason is not None:
            raise process.of(Plugins).set_aside(found.plugin, reason)
        known = made[name] = found, cast("Callable[..., Any]", build(_spec(found)))
    return known[1]


def _no_step(value: Any) -> str | None:
    """Say why *value* can't be a step, and what can."""
    if not callable(value):
        return f"expected a function or a StepPlugin, found {type(value).__name__}"
    if not _is_plugin(value):
        return None
    missing = [name for name in ("open", "close") if not callable(getattr(value, name, None))]
    if missing:
        instead = "; register an object of it, or a function, where nothing is to be opened"
        return f"{_name(value)} has no {' and no '.join(missing)}{instead}"
    lifetime = getattr(value, "lifetime", "run")
    if lifetime not in _LIFETIMES:
        return f'{_name(value)}.lifetime is {lifetime!r}, expected "run" or "process"'
    return None


def _is_plugin(value: Any) -> bool:
    """Whether *value* is to be opened and closed: a class whose objects can be called, or such an object."""
    if isinstance(value, type):
        return any("__call__" in vars(cls) for cls in value.__mro__)
    return not inspect.isroutine(value) and (hasattr(value, "open") or hasattr(value, "close"))


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _spec(found: Found) -> Spec:
    """The recipe of the step that a plugin is; one that is a step already keeps its options."""
    value, name = found.value, found.plugin.name
    spec = spec_of(value)
    if spec is not None and spec.kind == "step":
        return evolve(spec, name=name, fn=_guarded(found.plugin, spec.fn, spec.fn))
    if not _is_plugin(value):
        return Spec("step", _guarded(found.plugin, value, value), name, is_async(value))
    is_class = isinstance(value, type)
    make = value if is_class else lambda: value
    lifetime: Any = getattr(value, "lifetime", "run")
    recipe = Recipe(found.plugin, make, lifetime, is_async(value.open))
    written = value.__call__
    use = partial(_opening.ause if is_async(written) else _opening.use, recipe)
    return Spec("step", _guarded(found.plugin, written, use, skipped=is_class), name, is_async(written))


def _guarded(
    plugin: Plugin, written: Callable[..., Any], use: Callable[..., Any], skipped: int = 0
) -> Callable[..., Any]:
    """Make the function that *written* is, which calls *use*, holds it to its hints and blames *plugin*.

    *skipped* counts the first parameters of *written* that no caller gives: ``self``.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        check_inputs(call, args, kwargs)
        with Blame(plugin):
            return _fitting(plugin, call, awaited(use(*args, **kwargs), plugin.name))

    async def acall(*args: Any, **kwargs: Any) -> Any:
        check_inputs(acall, args, kwargs)
        with Blame(plugin):
            return _fitting(plugin, acall, await use(*args, **kwargs))

    made: Any = functools.wraps(written)(acall if is_async(written) else call)
    made.__name__ = made.__qualname__ = plugin.name
    made.__dict__.setdefault(CODE_ATTRIBUTE, _code(written))
    with suppress(ValueError):  # some builtins have none
        signature = inspect.signature(written)
        made.__signature__ = signature.replace(parameters=list(signature.parameters.values())[skipped:])
    return cast("Callable[..., Any]", made)


def _code(written: Callable[..., Any]) -> Callable[..., Any]:
    """The function whose code *written* executes."""
    written = inspect.unwrap(written)
    while isinstance(written, partial):
        written = written.func
    return written if inspect.isroutine(written) or isinstance(written, type) else type(written).__call__


def _fitting(plugin: Plugin, fn: Callable[..., Any], result: Any) -> Any:
    """Give *result*, if the hint of *fn* allows it."""
    try:
        check_result(fn, result)
    except InputError as exc:
        raise PluginError(
            f"{plugin} returned what its hint does not allow: {'; '.join(exc.faults)}"
        ) from None
    return result
