"""Conditions, as ``when`` has them: a small language that is read by hand, since ``eval`` would run anything.

::

    either   = both {"or" both}
    both     = no {"and" no}
    no       = "not" no | operand [("==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not" "in") operand]
    operand  = name | number | text in quotes | "true" | "false" | "null"
             | "[" [operand {"," operand}] "]" | "(" either ")"
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

from attrs import field, frozen

from .._source import Place
from .._yaml import Node
from ..messages import JsonValue
from ._tokens import Token, Tokens
from ._types import without_null
from ._values import Constant, Reference, Value, collected, value_in

__all__ = ["ORDER", "Condition", "Operation", "conjuncts", "narrowed", "not_null", "read_condition"]

ORDER = ("<", "<=", ">", ">=")
_COMPARE: Mapping[str, Callable[[Any, Any], object]] = {
    **dict(zip(ORDER, (operator.lt, operator.le, operator.gt, operator.ge), strict=True)),
    "==": operator.eq,
    "!=": operator.ne,
    "in": lambda one, many: one in many,
    "not in": lambda one, many: one not in many,
}
_WORDS: Mapping[str, JsonValue] = {
    **dict.fromkeys(("true", "True"), True),
    **dict.fromkeys(("false", "False"), False),
    **dict.fromkeys(("null", "None"), None),
}


@frozen
class Operation:
    """``and``, ``or``, ``not`` or a comparison of its *parts*; *place* is where that may be wrong."""

    sign: str
    parts: tuple[Condition, ...]
    place: Place = field(eq=False)

    @property
    def references(self) -> tuple[Reference, ...]:
        """Those of its parts."""
        return tuple(reference for part in self.parts for reference in part.references)

    def hint(self, hints: Mapping[str, Any]) -> Any:
        """Whether it holds."""
        return bool

    def of(self, scope: Mapping[str, Any]) -> bool:
        """Whether it holds. A member of an enumeration is compared by its value."""
        found = (part.of(scope) for part in self.parts)
        if self.sign == "and":
            return all(found)
        if self.sign == "or":
            return any(found)
        if self.sign == "not":
            return not next(found)
        return bool(_COMPARE[self.sign](*map(_plain, found)))


Condition = Value | Operation


def read_condition(node: Node) -> Condition:
    """The condition that *node* writes.

    Raises:
        Misread: it writes none; the fault has its place.
    """
    if not isinstance(node.data, str):  # true, or {name} without quotes
        return value_in(node)
    tokens = Tokens(node)
    found = _either(tokens)
    if tokens.next.kind != "end":
        raise tokens.misread("expected and, or, a comparison, or the end of the condition")
    return found


def conjuncts(condition: Condition | None) -> tuple[Condition, ...]:
    """What must all hold for *condition* to hold."""
    if isinstance(condition, Operation) and condition.sign == "and":
        return tuple(inner for part in condition.parts for inner in conjuncts(part))
    return () if condition is None else (condition,)


def not_null(condition: Condition | None) -> Iterator[str]:
    """The names whose values can't be null where *condition* holds."""
    for part in conjuncts(condition):
        if isinstance(part, Reference):
            yield part.name
        elif isinstance(part, Operation) and isinstance(left := part.parts[0], Reference):
            right = part.parts[-1]
            null = isinstance(right, Constant) and right.data is None
            if part.sign in ORDER or (
                part.sign == "!=" if null else part.sign == "==" and right.references == ()
            ):
                yield left.name


def narrowed(hints: Mapping[str, Any], condition: Condition | None) -> dict[str, Any]:
    """*hints* as they are where *condition* holds."""
    known = {name: without_null(hints[name]) for name in not_null(condition) if name in hints}
    return {**hints, **known}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _either(tokens: Tokens) -> Condition:
    return _joined(tokens, "or", lambda: _joined(tokens, "and", lambda: _no(tokens)))


def _joined(tokens: Tokens, sign: str, read: Callable[[], Condition]) -> Condition:
    parts = [read()]
    while tokens.skip(sign):
        parts.append(read())
    return parts[0] if len(parts) == 1 else Operation(sign, tuple(parts), tokens.node.place)


def _no(tokens: Tokens) -> Condition:
    if not tokens.skip("not"):
        return _compared(tokens)
    with tokens.deeper():
        return Operation("not", (_no(tokens),), tokens.node.place)


def _compared(tokens: Tokens) -> Condition:
    left: Condition = _operand(tokens)
    token = tokens.next
    sign = tokens.skip(*_COMPARE, "not", "=", "is")
    if not sign:
        return left
    if sign in ("=", "is"):
        raise tokens.misread(f"expected == in place of {sign}", token, told=False)
    if sign == "not":
        sign = f"not {tokens.expect('in')}"
    right = tokens.next
    return Operation(sign, (left, _operand(tokens)), tokens.place_of(right))


def _operand(tokens: Tokens) -> Any:
    token = tokens.take()
    if token.kind == "number":
        return Constant(_number(token.text))
    if token.kind == "text":
        return Constant(token.text[1:-1])
    if token.text == "(":
        with tokens.deeper():
            inner = _either(tokens)
            tokens.expect(")")
        return inner
    if token.text == "[":
        return _list(tokens)
    if token.kind != "name" or token.text in ("and", "or", "in", "not"):
        raise tokens.misread(
            "expected a name, a number, a text in quotes, true, false, null or a list", token
        )
    return Constant(_WORDS[token.text]) if token.text in _WORDS else _reference(tokens, token)


def _list(tokens: Tokens) -> Value:
    parts: list[Value] = []
    with tokens.deeper():
        while not tokens.skip("]"):
            token = tokens.next
            part = _operand(tokens)
            if isinstance(part, Operation):
                raise tokens.misread("expected a name or a value, found a condition", token, told=False)
            parts.append(part)
            if tokens.expect(",", "]") == "]":
                break
    return collected(tuple(parts), None)


def _reference(tokens: Tokens, token: Token) -> Reference:
    name = token.text.strip("{} ")
    if not name.isidentifier():
        raise tokens.misread(
            "a condition refers to whole values, by plain names; take the part in a step of its own", token
        )
    return Reference(name, tokens.place_of(token))


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("+-").isdecimal() and len(text) < 1000 else float(text)
