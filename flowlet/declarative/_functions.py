"""The functions that steps use: found by name, and made steps of the workflow with names of their own."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from .._fingerprint import CODE_ATTRIBUTE
from .._functions import changed, decorated
from .._signature import signature_of
from .._target import Unloadable, function_in, imported
from ..errors import DefinitionError, InputError, PluginError
from ..plugins import get_step
from ..specs import spec_of
from ..workflows import arun
from ._hints import told_of

__all__ = ["Unusable", "as_step", "function_of"]

Function = Callable[..., Any]
_TARGET = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


class Unusable(Exception):
    """There is no such function, or it can't be a step; the message says what to do."""


def function_of(target: str) -> Function:
    """The function that ``module:function`` names, or the registered step of that name.

    Raises:
        Unusable: there is none, or it can't be had.
    """
    try:
        if ":" not in target:
            return get_step(target)
        if not _TARGET.fullmatch(target):
            meant = re.sub(r"^(?:\./)?(.*)\.py:", r"\1:", target).replace("/", ".")
            hint = f"; did you mean {meant}?" if _TARGET.fullmatch(meant) else ", such as helpers:tidy"
            raise Unusable(f"expected module:function, found {target!r}{hint}")
        place, _, name = target.partition(":")
        return function_in(imported(place), place, name)
    except (InputError, Unloadable) as exc:
        raise Unusable(told_of(exc)) from exc
    except PluginError as exc:
        place, _, name = target.rpartition(".")
        own = f"did you mean {place}:{name}?" if place else "a function of yours is written module:function"
        raise Unusable(f"{exc}; {own}") from exc


def as_step(fn: Function, name: str, options: Mapping[str, Any]) -> Function:
    """Make *fn* the step *name*; a workflow is a child run within the step.

    Raises:
        Unusable: it can't be a step.
    """
    spec = spec_of(fn)
    try:
        if spec is None or spec.kind == "workflow":
            fn = decorated("step", fn if spec is None and inspect.isfunction(fn) else _around(fn), {})
        return changed(fn, {"name": name, **options})
    except DefinitionError as exc:
        raise Unusable(str(exc)) from exc


def _around(fn: Function) -> Function:
    """An async function that calls *fn* and looks like it."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await arun(fn, *args, **kwargs)

    signature = signature_of(fn)
    call.__name__ = call.__qualname__ = signature.name
    call.__doc__ = fn.__doc__
    call.__signature__ = inspect.signature(fn)  # type: ignore[attr-defined]
    call.__annotations__ = {**{p.name: p.hint for p in signature.parameters}, "return": signature.returns}
    setattr(call, CODE_ATTRIBUTE, fn)
    return call
