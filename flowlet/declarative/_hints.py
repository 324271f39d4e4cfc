"""Types as hints of Python write them, read without evaluating: ``list[str] | None``, ``shop:Order``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Optional, Union, cast, get_origin
from uuid import UUID

from typing_extensions import TypeAliasType

from .._source import Fault
from .._suggest import nearest
from .._target import Unloadable, imported
from .._yaml import Node
from ..errors import InputError
from ._tokens import Misread, Token, Tokens
from ._types import joined

__all__ = ["hint_in", "told_of"]

_PLAIN: dict[str, Any] = {
    **{cls.__name__: cls for cls in (str, int, float, bool, bytes, date, datetime, time, timedelta, Decimal)},
    "UUID": UUID,
    "Path": Path,
    "Any": Any,
    "None": None,
    "null": None,
}
_GENERIC: dict[str, Any] = {
    **{cls.__name__: cls for cls in (list, set, frozenset, tuple, dict)},
    "Optional": Optional,
    "Union": Union,
}
_OTHERS = {
    "string": "str",
    "text": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
}
_COUNTS = {"list": 1, "set": 1, "frozenset": 1, "dict": 2, "Optional": 1}


def hint_in(node: Node, key: str, faults: list[Fault]) -> Any:
    """The hint that *node* writes at *key*; Any where there is none, or one that can't be read, which is told."""
    if key not in node.parts:
        return Any
    tokens = Tokens(node.parts[key])
    try:
        found = _union(tokens)
        if tokens.next.kind != "end":
            raise tokens.misread("expected | or the end of the type")
    except Misread as exc:
        faults.append(exc.fault)
        return Any
    return found


def _union(tokens: Tokens) -> Any:
    found = [_one(tokens)]
    while tokens.skip("|"):
        found.append(_one(tokens))
    return _made(tokens, lambda: joined(found))


def _one(tokens: Tokens) -> Any:
    token = tokens.take()
    if token.kind != "name":
        raise tokens.misread("expected a type such as str or list[str]", token)
    if token.text == "Literal":
        return _literal(tokens)
    if ":" in token.text:
        return _imported(tokens, token)
    if token.text in _GENERIC:
        return _generic(tokens, token)
    if token.text not in _PLAIN:
        raise tokens.misread(f"there is no type {token.text!r}; {_meant(token.text)}", token, told=False)
    return _PLAIN[token.text]


def _meant(name: str) -> str:
    near = _OTHERS.get(name.lower()) or nearest(name, (*_PLAIN, *_GENERIC, "Literal"))
    if near:
        return f"did you mean {near}?"
    return "expected one of Python such as str or list[int], or a class of yours as module:Class"


def _generic(tokens: Tokens, token: Token) -> Any:
    name = token.text
    if tokens.next.text != "[":
        if name in ("Optional", "Union"):
            raise tokens.misread("expected [")
        return _GENERIC[name]
    args = _arguments(tokens, lambda: ... if tokens.skip("...") else _union(tokens))
    wanted = _COUNTS.get(name, len(args))
    if len(args) != wanted or (... in args and (name != "tuple" or len(args) != 2 or args[0] is ...)):
        example = {"dict": "dict[str, int]", "tuple": "tuple[int, ...]"}.get(name, f"{name}[str]")
        raise tokens.misread(
            f"{name}[...] does not take these types; write it like {example}", token, told=False
        )
    return _made(tokens, lambda: _GENERIC[name][tuple(args) if len(args) > 1 else args[0]])


def _literal(tokens: Tokens) -> Any:
    values = _arguments(tokens, lambda: _value(tokens))
    return Literal[tuple(values)]


def _value(tokens: Tokens) -> Any:
    token = tokens.take()
    words = {"None": None, "null": None, "True": True, "true": True, "False": False, "false": False}
    if token.kind == "text":
        return token.text[1:-1]
    if token.kind == "number" and token.text.lstrip("-").isdecimal() and len(token.text) < 20:
        return int(token.text)
    if token.text in words:
        return words[token.text]
    raise tokens.misread("expected a text in quotes, a whole number, true, false or null", token)


def _arguments(tokens: Tokens, read: Callable[[], Any]) -> list[Any]:
    tokens.expect("[")
    with tokens.deeper():
        found = [read()]
        while tokens.expect(",", "]") == ",":
            found.append(read())
    return found


def _made(tokens: Tokens, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except TypeError as exc:
        raise tokens.misread(f"this can't be a type ({exc})", told=False) from None


def _imported(tokens: Tokens, token: Token) -> Any:
    place, _, name = token.text.partition(":")
    try:
        module = imported(place)
    except (InputError, Unloadable) as exc:
        raise tokens.misread(told_of(exc), token, told=False) from exc
    found = getattr(module, name, None)  # also what a module gives only when it is asked
    if isinstance(found, type | TypeAliasType) or get_origin(found) is not None:
        return found
    classes = [n for n, value in vars(module).items() if isinstance(value, type) and not n.startswith("_")]
    near = nearest(name, classes)
    meant = f"; did you mean {place}:{near}?" if near else f"; it has: {', '.join(classes) or 'no class'}"
    raise tokens.misread(f"there is no class {name!r} in {place}{meant}", token, told=False)


def told_of(exc: InputError | Unloadable) -> str:
    """Why something can't be imported, in one line."""
    if isinstance(exc, InputError):
        more = () if "did you mean" in exc.message else exc.faults
        return "; ".join((exc.message.replace("\n ", ""), *more))
    cause = cast("BaseException", exc.__cause__)
    return f"{exc} can't be imported: {type(cause).__name__}: {cause}"
