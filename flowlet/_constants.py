"""Values that code takes from outside of it, as text that is the same in every process: those that can't change."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from itertools import takewhile
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, cast, get_args, get_origin
from uuid import UUID

import attrs

__all__ = ["CODE_ATTRIBUTE", "module_name", "told"]

CODE_ATTRIBUTE = "__flowlet_code__"
"""On what is made of data (a prompt, an ``LLM``): the text that stands for its code, or the function whose code it executes."""

Functions = Callable[[Callable[..., object]], str | None]
"""Tells the code of a function; None for one that has no part."""

_PLAIN: dict[type, Callable[[Any], str]] = {
    **dict.fromkeys((type(None), type(...), bool, float, complex, str, bytes, range, timedelta), repr),
    **dict.fromkeys((date, datetime, time), lambda value: value.isoformat()),
    **dict.fromkeys((Decimal, UUID), str),
    int: hex,  # repr() refuses long ones
    re.Pattern: lambda value: repr((value.pattern, value.flags)),
}
_BASES: dict[type, Callable[[Any], str]] = {
    Enum: lambda value: f"{value.name} {told(value.value)}",
    str: str.__repr__,
    bytes: bytes.__repr__,
    int: lambda value: int.__format__(value, "x"),
    float: float.__repr__,
    PurePath: str,
    ModuleType: lambda value: module_name(value.__name__),
}


def told(value: object, functions: Functions | None = None) -> str | None:
    """Tell *value* from all others; None for what may change, or is no data.

    Classes and modules go by their names, but for classes that were made in a function. What a function is,
    *functions* tells; without that they are no data.
    """
    kind: Any = type(value)  # and never value.__class__, which a proxy may not have yet
    if type(kind).__hash__ is None:  # no mapping can hold such a class
        return None
    plain = _PLAIN.get(kind)
    if plain is not None:
        return f"{kind.__name__}:{plain(value)}"
    if kind is FunctionType and functions is not None:
        return functions(cast("FunctionType", value))
    if kind is FunctionType or hasattr(kind, CODE_ATTRIBUTE):
        code = getattr(value, CODE_ATTRIBUTE, None)
        return _made_of(kind, code) if isinstance(code, str) else None
    parts = _parts(kind, value, functions)
    return None if parts is None or None in parts else _made_of(kind, *cast("list[str]", parts))


def _parts(kind: Any, value: Any, functions: Functions | None) -> list[str | None] | None:
    """What *value* is made of, where it can't change; None in it stands for what can."""
    if issubclass(kind, type):
        return None if "<locals>" in value.__qualname__ else [_name(value)]
    for base, text in _BASES.items():
        if issubclass(kind, base):
            return [text(value)]
    if issubclass(kind, tuple):
        return _each(cast("tuple[object, ...]", value), functions)
    if kind is frozenset:
        return sorted(_each(cast("frozenset[object]", value), functions), key=str)
    if kind is MethodType:
        return _each((value.__func__, value.__self__), functions)
    if kind is BuiltinFunctionType:
        return _each((value.__qualname__, value.__self__), functions)
    if kind is partial:
        return _each((value.func, value.args, *sorted(value.keywords.items())), functions)
    if kind.__module__ in ("types", "typing") and get_origin(value) is not None:  # a hint, such as list[int]
        return [repr(get_origin(value)), *_each(get_args(value), functions)]
    names = _fields_of(kind)
    return None if names is None else _each([getattr(value, name, None) for name in names], functions)


def _each(values: Iterable[object], functions: Functions | None) -> list[str | None]:
    return [told(value, functions) for value in values]


@lru_cache(maxsize=1024)
def _fields_of(kind: Any) -> tuple[str, ...] | None:
    """The names of the fields of a frozen class, of attrs or a dataclass."""
    if attrs.has(kind):
        return tuple(a.name for a in attrs.fields(kind)) if attrs.inspect(kind).is_frozen else None
    parameters = getattr(kind, "__dataclass_params__", None)
    return tuple(kind.__dataclass_fields__) if parameters is not None and parameters.frozen else None


def _made_of(kind: type, *parts: str) -> str:
    return f"{_name(kind)}({''.join(f'{len(part)}:{part}' for part in parts)})"


def _name(kind: type) -> str:
    return f"{module_name(kind.__module__)}.{kind.__qualname__}"


def module_name(name: str) -> str:
    """The name of a module for whoever imports it, also where it is the program itself and called ``__main__``."""
    if name != "__main__":
        return name
    main = sys.modules[name]
    if main.__spec__ is not None:
        return main.__spec__.name
    path = Path(getattr(main, "__file__", None) or name).resolve()
    packages = takewhile(lambda folder: (folder / "__init__.py").exists(), path.parents)
    return ".".join([*reversed([folder.name for folder in packages]), path.stem])
