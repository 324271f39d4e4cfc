"""The code that Python made of a function: as text, and the names that it takes from outside."""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType

from attrs import frozen

__all__ = ["Names", "names_of", "text_of"]

_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_STORES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"})


def text_of(code: CodeType, doc: str | None = None) -> tuple[str, ...]:
    """Tell *code* from any other, without layout, comments and the docstring *doc*."""
    consts = [_const(const) for const in code.co_consts if const is not doc]
    handlers = code.co_exceptiontable.hex()
    return (code.co_code.hex(), handlers, *code.co_names, "", *code.co_freevars, "", *consts)


def _const(value: object) -> str:
    if isinstance(value, CodeType):
        return repr(text_of(value))
    if isinstance(value, frozenset):  # the order of one changes with every process
        return repr(sorted(map(repr, value)))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return repr(tuple(map(_const, value))) if isinstance(value, tuple) else repr(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


@frozen(eq=False)
class Names:
    """The names that a code looks up in its module, in their order, and those from outside that it binds anew itself."""

    loaded: tuple[str, ...]
    stored: frozenset[str]


@lru_cache(maxsize=4096)
def names_of(code: CodeType) -> Names:
    """The names that *code* takes from outside. What it binds anew is a state, and not looked up."""
    loaded, stored = set[str](), set[str]()
    for instruction in dis.get_instructions(code):
        if instruction.opname in _LOADS:
            loaded.add(instruction.argval)
        elif instruction.opname in _STORES:
            stored.add(instruction.argval)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            inner = names_of(const)
            loaded |= set(inner.loaded)
            stored |= inner.stored
    stored -= set(code.co_cellvars)  # its own
    return Names(tuple(sorted(loaded - stored)), frozenset(stored))
