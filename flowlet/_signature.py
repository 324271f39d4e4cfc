"""What a function's signature says, read once, and the check of a call against it.

Nothing is read at decoration: hints resolve at first use, and one that can't be resolved allows anything.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from attrs import field, frozen

from ._data.checking import check, did_you_mean, quick_types, walked
from ._data.faults import Walk
from ._data.hints import function_hints
from ._data.shapes import Shape
from ._data.shaping import shape_of
from ._data.writing import types_as_is
from ._value import Shown
from .errors import InputError
from .specs import ExcludeFromKey

__all__ = ["Parameter", "Signature", "check_inputs", "check_result", "signature_of"]

_P = inspect.Parameter
_POSITIONAL = (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD)
_NAMED = (_P.POSITIONAL_OR_KEYWORD, _P.KEYWORD_ONLY)
_VARIADIC = (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)
_UNKNOWN = inspect.Signature([_P("args", _P.VAR_POSITIONAL), _P("kwargs", _P.VAR_KEYWORD)])


@frozen(eq=False, repr=False)
class Parameter(Shown):
    """A parameter of a function. *hint* is resolved, and Any where there is none.

    *quick* are exact types that fit without a look inside; None says that anything does. *as_is* are those whose
    values are JSON as they are. *keyed* says that it tells one call from another.
    """

    name: str
    kind: Any
    required: bool
    default: Any
    hint: Any
    shape: Shape = field(repr=False)
    quick: frozenset[type] | None = field(repr=False)
    as_is: frozenset[type] = field(repr=False)
    keyed: bool = True


@frozen(eq=False, repr=False, slots=False)
class Signature(Shown):
    """A function's *name*, its *parameters* in order, and the hint of what it *returns* (Any without one)."""

    name: str
    parameters: tuple[Parameter, ...]
    returns: Any

    def __str__(self) -> str:
        """Tell the names: ``summarise(text, llm=…)``."""
        stars = {_P.VAR_POSITIONAL: "*", _P.VAR_KEYWORD: "**"}
        names = (
            f"{stars.get(p.kind, '')}{p.name}{'' if p.required or p.kind in _VARIADIC else '=…'}"
            for p in self.parameters
        )
        return f"{self.name}({', '.join(names)})"

    @cached_property
    def positional(self) -> tuple[Parameter, ...]:
        """The parameters that take positional arguments."""
        return tuple(p for p in self.parameters if p.kind in _POSITIONAL)

    @cached_property
    def named(self) -> Mapping[str, tuple[int, Parameter]]:
        """The parameters that take keywords, with their places."""
        return {p.name: (at, p) for at, p in enumerate(self.parameters) if p.kind in _NAMED}

    @cached_property
    def required(self) -> tuple[tuple[int, str], ...]:
        """The places and names of the arguments that no call may lack."""
        return tuple((at, p.name) for at, p in enumerate(self.parameters) if p.required)

    @cached_property
    def least(self) -> int:
        """How many positional arguments are enough without any others."""
        return max((at + 1 for at, _ in self.required), default=0)

    @cached_property
    def quick(self) -> tuple[frozenset[type] | None, ...]:
        """The quick types of the positional parameters."""
        return tuple(p.quick for p in self.positional)

    @cached_property
    def returned(self) -> tuple[Shape, frozenset[type] | None]:
        """The shape of the result and its quick types."""
        shape = shape_of(self.returns)
        return shape, quick_types(shape)

    @cached_property
    def returned_as_is(self) -> frozenset[type]:
        """The types whose values are JSON as they are, as the result."""
        return types_as_is(shape_of(self.returns))

    def plainly_takes(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call fits at first sight. False only says that :meth:`faults` must look."""
        given = len(args)
        if given > len(self.quick):
            return False
        for quick, value in zip(self.quick, args):  # noqa: B905 - shorter when defaults are left out
            if quick is not None and type(value) not in quick:
                return False
        for name, value in kwargs.items():
            at, parameter = self.named.get(name, (-1, None))
            if at < given or parameter is None:
                return False
            if parameter.quick is not None and type(value) not in parameter.quick:
                return False
        return given >= self.least or all(at < given or name in kwargs for at, name in self.required)

    def faults(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
        """All faults of a call: arguments that are missing, too many or unexpected, misfits."""
        found = [
            fault
            for root, shape, value in self._given(args, kwargs)
            for fault in walked(check, Walk(root, json=False), shape, value)[1]
        ]
        return (*self._misplaced(args, kwargs), *found)

    def _given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Shape, Any]]:
        rest = {p.kind: p for p in self.parameters if p.kind in _VARIADIC}
        for taker, value in zip(self.positional, args):  # noqa: B905 - as many as there are of both
            yield taker.name, taker.shape, value
        if (more := rest.get(_P.VAR_POSITIONAL)) is not None:
            for index, value in enumerate(args[len(self.positional) :]):
                yield f"{more.name}[{index}]", more.shape, value
        for name, value in kwargs.items():
            parameter = self.named[name][1] if name in self.named else rest.get(_P.VAR_KEYWORD)
            if parameter is not None:
                yield name, parameter.shape, value

    def _misplaced(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[str]:
        kinds = {p.kind for p in self.parameters}
        if len(args) > len(self.positional) and _P.VAR_POSITIONAL not in kinds:
            yield f"at most {len(self.positional)} positional arguments fit, found {len(args)}"
        for at, name in self.required:
            if at >= len(args) and name not in kwargs:
                yield f"{name}: missing"
        for name in kwargs:
            if name in self.named and self.named[name][0] < min(len(args), len(self.positional)):
                yield f"{name}: given twice"
            elif name not in self.named and _P.VAR_KEYWORD not in kinds:
                yield f"{name}: unexpected{did_you_mean(name, self.named)}"


_CACHES: tuple[WeakKeyDictionary[Any, Signature], WeakKeyDictionary[Any, Signature]] = (
    WeakKeyDictionary(),
    WeakKeyDictionary(),
)  # as written, and as it is called; each access is one step, so it needs no lock


def signature_of(fn: Callable[..., object], *, called: bool = False) -> Signature:
    """The signature of *fn*, from the second time on as it was read at the first.

    It is that of the function as written, or, when *called*, of what is called: a decorator around it
    may supply arguments.
    """
    cache = _CACHES[called]
    try:
        found = cache.get(fn)
    except TypeError:  # it has no hash, or takes no weak reference
        return _read(fn, called)
    if found is None:
        found = cache[fn] = _read(fn, called)
    return found


def check_inputs(fn: Callable[..., object], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments that do not fit the signature of *fn*, converting none. Defaults are not checked.

    Raises:
        InputError: arguments are missing, unexpected, or do not fit their hints; every fault is listed.
    """
    signature = signature_of(fn, called=True)
    if signature.plainly_takes(args, kwargs):
        return
    faults = signature.faults(args, kwargs)
    if faults:
        raise InputError(f"{signature} can't take these arguments", faults)


def check_result(fn: Callable[..., object], value: object) -> None:
    """Refuse a result that does not fit the return hint of *fn*.

    Raises:
        InputError: *value* does not fit; every fault is listed.
    """
    signature = signature_of(fn, called=True)
    shape, quick = signature.returned
    if quick is None or type(value) in quick:
        return
    faults = walked(check, Walk("result", json=False), shape, value)[1]
    if faults:
        raise InputError(f"the result of {signature.name}() does not fit its hint", faults)


def _read(fn: Callable[..., object], called: bool) -> Signature:
    hints = function_hints(fn)
    try:
        plain = inspect.signature(fn, follow_wrapped=not called)
    except ValueError:  # some builtins have none
        plain = _UNKNOWN
    parameters = tuple(_parameter(p, hints.get(p.name, Any)) for p in plain.parameters.values())
    return Signature(getattr(fn, "__name__", type(fn).__name__), parameters, hints.get("return", Any))


def _parameter(plain: inspect.Parameter, hint: Any) -> Parameter:
    required = plain.default is _P.empty and plain.kind not in _VARIADIC
    shape = shape_of(hint)
    keyed = ExcludeFromKey not in getattr(hint, "__metadata__", ())
    types = quick_types(shape), types_as_is(shape)
    return Parameter(plain.name, plain.kind, required, plain.default, hint, shape, *types, keyed)
