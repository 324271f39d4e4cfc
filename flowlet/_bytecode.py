"""The code that Python made of a function: as text, and the names that it takes from outside."""

from __future__ import annotations

import dis
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType
from typing import Any, cast

from attrs import frozen

__all__ = ["Names", "names_of", "text_of"]

_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_STORES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"})
_JUMPS = frozenset({*dis.hasjrel, *dis.hasjabs})

_SILENT = frozenset({"NOP", "RESUME", "CACHE", "EXTENDED_ARG"})
"""Instructions that do nothing; some are there for lines."""

_OF_CLASSES = frozenset({"__doc__", "__firstlineno__", "__static_attributes__"})
"""What the body of a class stores besides what is written in it."""

_JOINED = {
    "RETURN_CONST": ("LOAD_CONST", "RETURN_VALUE"),
    "LOAD_FAST_LOAD_FAST": ("LOAD_FAST", "LOAD_FAST"),
    "STORE_FAST_LOAD_FAST": ("STORE_FAST", "LOAD_FAST"),
    "STORE_FAST_STORE_FAST": ("STORE_FAST", "STORE_FAST"),
}
"""What Python makes one instruction of, if it stands in one line."""


@lru_cache(maxsize=1024)
def text_of(code: CodeType) -> tuple[str, ...]:
    """Tell *code* from any other by what it does: without layout, comments and docstrings, which no instruction uses."""
    return (*_instructions(code), "", *code.co_freevars)


def _instructions(code: CodeType) -> Iterator[str]:
    """What is done, with values and names in place of their numbers, and who handles errors, where that is another."""
    kept = list(_kept(code))
    offsets, handler = [found.offset for found in kept for _ in _names(found)], ""
    entries = cast("Any", dis.Bytecode(code)).exception_entries
    for found in kept:
        around = (entry for entry in entries if entry.start <= found.offset < entry.end)
        now = "".join(f"{bisect_left(offsets, entry.target)} {entry.depth} {entry.lasti}" for entry in around)
        if now != handler:
            yield f"errors {now}"
            handler = now
        if found.opcode in _JUMPS:
            yield f"{found.opname} {bisect_left(offsets, found.argval)}"
        else:
            yield from _parts(found)


def _kept(code: CodeType) -> Iterator[dis.Instruction]:
    """The instructions that do something."""
    last: dis.Instruction | None = None
    for found in dis.get_instructions(code):
        if found.opname == "STORE_NAME" and found.argval in _OF_CLASSES:
            last = None  # with what is stored
        elif found.opname not in _SILENT:
            if last is not None:
                yield last
            last = found
    if last is not None:
        yield last


def _names(found: dis.Instruction) -> tuple[str, ...]:
    return _JOINED.get(found.opname, (found.opname,))


def _parts(found: dis.Instruction) -> Iterator[str]:
    """The instruction, or the two that were joined; local variables go by their number."""
    name, *more = _names(found)
    if found.opcode in dis.hasconst:
        yield f"{name} {_const(found.argval)}"
        yield from (f"{other} None" for other in more)
    elif found.opcode in dis.hasname:
        yield f"{name} {found.argval}"
    elif more:
        yield from map("{} {}".format, (name, *more), divmod(found.arg or 0, 16))
    else:
        yield f"{name} {found.arg}"


def _const(value: object) -> str:
    if isinstance(value, CodeType):
        return repr(text_of(value))
    if isinstance(value, frozenset):  # the order of one changes with every process
        return repr(sorted(map(repr, value)))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return repr(tuple(map(_const, value))) if isinstance(value, tuple) else repr(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


@frozen(eq=False)
class Names:
    """What a code looks up in its module, in order (``parts.one``, too), and the names from outside that it binds anew."""

    loaded: tuple[str, ...]
    stored: frozenset[str]


@lru_cache(maxsize=4096)
def names_of(code: CodeType) -> Names:
    """The names that *code* takes from outside. What it binds anew is a state, and not looked up."""
    loaded, stored, path = set[str](), set[str](), ""
    for instruction in dis.get_instructions(code):
        if instruction.opname in _STORES:
            stored.add(instruction.argval)
        elif instruction.opname in _LOADS:
            path = instruction.argval
        elif path and instruction.opname in _ATTRIBUTES:
            path = f"{path}.{instruction.argval}"
        elif instruction.opname != "EXTENDED_ARG":
            path = ""
        if path:
            loaded.add(path)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            inner = names_of(const)
            loaded |= set(inner.loaded)
            stored |= inner.stored
    stored -= set(code.co_cellvars)  # its own
    return Names(
        tuple(path for path in sorted(loaded) if path.partition(".")[0] not in stored), frozenset(stored)
    )
