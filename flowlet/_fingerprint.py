"""The fingerprint of a function's code, which changes with what it does, not with how it is laid out."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2b
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

from attrs import frozen

from ._bytecode import names_of, text_of
from ._constants import CODE_ATTRIBUTE, told
from ._fence import without_codes
from .specs import spec_of

__all__ = ["CODE_ATTRIBUTE", "FILE_ATTRIBUTE", "constants_of", "digest", "fingerprint", "loose_of"]

FILE_ATTRIBUTE = "__flowlet_file__"
"""On a workflow that is described in a file: that file."""

Function = Callable[..., object]


def digest(*parts: str) -> str:
    """Make 32 hexadecimal digits of texts; no two sequences of texts give the same.

    The codes of fences around untrusted text are left out: they differ from process to process.
    """
    data = without_codes("".join([f"{len(part)}:{part}" for part in parts]))
    return blake2b(data.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def fingerprint(fn: Function) -> str:
    """Tell the code of *fn* from any other, by the bytecode that Python made of it and what it takes from outside.

    That is: the constants of its module that it names, the steps and workflows that it names there or in another
    module, what it takes from the functions around it, and the function that a decorator has wrapped. Comments,
    layout and docstrings have no part in it, and neither have plain functions, classes and modules that it names,
    nor what may change, such as lists.
    """
    return _known(_bare(fn)).now().fingerprint


def loose_of(fn: Function) -> tuple[str, ...]:
    """What *fn* takes from the functions around it that no fingerprint can tell: ``client (a Client)``."""
    return _known(_bare(fn)).now().loose


def constants_of(fn: Function) -> tuple[str, ...]:
    """The names of the constants from outside that count for the code of *fn*, in its module and around it."""
    return _known(_bare(fn)).now().constants


def _bare(fn: Function) -> Function:
    """The function of a method, since what is remembered must not hold its object."""
    function: Function = getattr(fn, "__func__", fn)
    return function


@frozen(eq=False)
class _Seen:
    """A fingerprint, and all that was looked at outside of the code to make it."""

    fingerprint: str
    constants: tuple[str, ...]
    loose: tuple[str, ...]
    names: tuple[tuple[Mapping[str, object], str, object], ...]
    cells: tuple[tuple[CellType, object], ...]

    def holds(self) -> bool:
        """Whether all that is what it was; what can't change is the same where it is the same object."""
        for names, name, value in self.names:
            if names.get(name, _NOTHING) is not value:
                return False
        return not self.cells or all(_content(cell) is value for cell, value in self.cells)


class _Known:
    """A function, and its fingerprint when that was last asked for."""

    __slots__ = ("_fn", "_seen")

    def __init__(self, fn: Function) -> None:
        self._fn = fn
        self._seen = _Reader().read(fn)

    def now(self) -> _Seen:
        """Look again, where something has changed outside of the code."""
        seen = self._seen
        if not seen.holds():
            seen = self._seen = _Reader().read(self._fn)
        return seen


@lru_cache(maxsize=4096)
def _known(fn: Function) -> _Known:
    return _Known(fn)


_NOTHING = object()
_NOT_FOLLOWED = (FunctionType, BuiltinFunctionType, type, ModuleType)


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _NOTHING


class _Reader:
    """Reads a function, with the functions that it is made of, and notes where it has looked."""

    def __init__(self) -> None:
        self._met: list[object] = []
        self._names: list[tuple[Mapping[str, object], str, object]] = []
        self._cells: list[tuple[CellType, object]] = []
        self._constants: list[str] = []
        self._loose: list[str] = []

    def read(self, fn: Function) -> _Seen:
        """Tell what there is to see of *fn*."""
        text = self._function(fn)
        constants = tuple(dict.fromkeys(self._constants))
        return _Seen(digest(text), constants, tuple(self._loose), tuple(self._names), tuple(self._cells))

    def _function(self, fn: Any) -> str:
        spec = spec_of(fn)
        if spec is not None:  # our own code around a step has no part
            return digest(spec.name, str(spec.run.model), self._function(spec.fn))
        given = getattr(fn, CODE_ATTRIBUTE, None)
        if given is not None:
            return given if isinstance(given, str) else self._function(given)
        fn = getattr(fn, "__func__", fn)
        code = getattr(fn, "__code__", None)
        if not isinstance(code, CodeType):
            return digest(getattr(fn, "__qualname__", type(fn).__qualname__))
        if fn in self._met:  # functions may call one another
            return f"function {self._met.index(fn)}"
        self._met.append(fn)
        return digest(*text_of(code), "", *self._named(fn, code), "", *self._around(fn, code))

    def _named(self, fn: FunctionType, code: CodeType) -> list[str]:
        """The constants of its module that *fn* names, and steps; None says as little as what may change."""
        found: list[str] = []
        for path in names_of(code).loaded:
            names, name = _found(fn.__globals__, path)
            value = names.get(name, _NOTHING)
            if _is_step(value) or (name == path and _is_followed(name, value)):
                self._names.append((names, name, value))
                text = None if value is None else told(value, self._step)
                if text is not None:
                    self._constants.append(path)
                    found += [path, text]
        return found

    def _step(self, fn: Function) -> str | None:
        """The code of a step that is named; what that takes from around it, it answers for itself."""
        if not _is_step(fn):
            return told(fn)
        loose = len(self._loose)
        code = self._function(fn)
        del self._loose[loose:]
        return code

    def _around(self, fn: FunctionType, code: CodeType) -> list[str]:
        """What *fn* takes from the functions around it, and the function that it wraps, with their defaults."""
        wrapped, stored = getattr(fn, "__wrapped__", None), names_of(code).stored
        found: list[str] = []
        for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=True):
            value = _content(cell)
            if name in stored:
                continue
            self._cells.append((cell, value))
            text = "" if value is _NOTHING else told(value, self._inner)
            if text is None and wrapped is None and name != "__class__":
                self._loose.append(f"{name} (a {type(value).__name__})")
            if text and _is_followed(name, value):
                self._constants.append(name)
            found += [name, text or ""]
        return found if wrapped is None else [*found, "", self._inner(wrapped)]

    def _inner(self, fn: Any) -> str:
        """The code of a function that another is made of, with what it takes where it is not given that."""
        defaults: tuple[object, ...] = getattr(fn, "__defaults__", None) or ()
        named: dict[str, object] = getattr(fn, "__kwdefaults__", None) or {}
        return digest(
            self._function(fn), *(told(value) or "" for value in (*defaults, *sorted(named.items())))
        )


def _found(names: Mapping[str, object], path: str) -> tuple[Mapping[str, object], str]:
    """The names among which *path* ends, by way of modules, and its name there; none, where it leaves those."""
    *modules, name = path.split(".")
    for module in modules:
        value = names.get(module)
        names = vars(value) if issubclass(type(value), ModuleType) else {}  # a proxy may have no class yet
    return names, name


def _is_step(value: object) -> bool:
    return type(value) is FunctionType and spec_of(value) is not None


def _is_followed(name: str, value: object) -> bool:
    """Whether the *value* of a *name* in a module may be, or become, a constant."""
    if issubclass(type(value), _NOT_FOLLOWED):
        return isinstance(getattr(value, CODE_ATTRIBUTE, None), str)
    if name.startswith("__"):  # how a module is called says nothing of what its code does
        return False
    return value is not _NOTHING or not hasattr(builtins, name)
