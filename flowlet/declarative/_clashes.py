"""What is wrong with a condition by the types of its names: what can't be compared, and what can never be equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Literal, cast, get_args, get_origin

from .._data.words import listed
from .._fits import fits, told
from .._source import Fault
from .._suggest import nearest
from ..messages import JsonValue
from ._conditions import ORDER, Condition, Operation, narrowed
from ._types import either, item_of, list_of, members
from ._values import Constant

__all__ = ["clashes"]

Hints = Mapping[str, Any]


def clashes(condition: Condition, hints: Hints) -> Iterator[Fault]:
    """The comparisons in *condition* that can't be made, or never hold."""
    if not isinstance(condition, Operation):
        return
    for part in condition.parts:
        yield from clashes(part, hints)
        if condition.sign == "and":  # what comes later is asked only where this holds
            hints = narrowed(hints, part)
    if condition.sign not in ("and", "or", "not"):
        left, right = (_hint(part, hints) for part in condition.parts)
        message = _clash(left, condition.sign, right)
        if message is not None:
            yield Fault(condition.place, message)


def _clash(left: Any, sign: str, right: Any) -> str | None:
    if sign in ORDER:
        ordered = any(_fit(left, kind) and _fit(right, kind) for kind in (float, str)) or _same(left, right)
        return None if ordered else _unordered(left, sign, right)
    if sign in ("in", "not in"):
        item = str if _fit(right, str) else item_of(right)
        if item is None:
            return f"expected a list or a text to the right of {sign}, found {told(right)}"
        right = item
    if type(None) in (left, right) or any(
        fits(a, b) or fits(b, a) for a in members(left) for b in members(right)
    ):
        return None
    near = nearest(str(_choices(right)[0]), map(str, _choices(left))) if _choices(right) else None
    return f"{_said(left)} is never {_said(right)}" + (f'; did you mean "{near}"?' if near else "")


def _unordered(left: Any, sign: str, right: Any) -> str:
    null = f" (for what may be null, write name != null and name {sign} ...)"
    may_be_null = type(None) in members(left)
    return f"{_said(left)} {sign} {_said(right)}: expected two numbers, or two texts{null if may_be_null else ''}"


def _fit(hint: Any, kind: Any) -> bool:
    return hint is not Any and hint is not bool and fits(hint, kind)


def _same(left: Any, right: Any) -> bool:
    """Whether both are of one class that may have an order of its own."""
    return Any in (left, right) or (left == right and left not in (None, type(None), bool, dict))


def _choices(hint: Any) -> tuple[Any, ...]:
    return tuple(v for member in members(hint) if get_origin(member) is Literal for v in get_args(member))


def _said(hint: Any) -> str:
    literal = all(get_origin(member) is Literal for member in members(hint))
    return listed(_choices(hint)) if literal else told(hint)


def _hint(condition: Condition, hints: Hints) -> Any:
    if isinstance(condition, Constant):
        return _exactly(condition.data)
    return either(*map(_by_value, members(condition.hint(hints))))


def _exactly(data: JsonValue) -> Any:
    if isinstance(data, list):
        return list_of(either(*map(_exactly, data)) if data else Any)
    found: Any = Literal[data] if isinstance(data, str | int) else type(data)
    return found


def _by_value(hint: Any) -> Any:
    """The values of an enumeration, which conditions compare."""
    cls = cast("type[Enum]", hint)
    is_enum = isinstance(hint, type) and issubclass(hint, Enum)
    found: Any = Literal[tuple(member.value for member in cls)] if is_enum else cls
    return found
