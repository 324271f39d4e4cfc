"""Whether what one function gives is what the next one takes, as far as their hints tell."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin


def fits(given: Any, taken: Any) -> bool:
    """Whether every value of the hint *given* is one of *taken*; what can't be told is taken for True."""
    given, taken = _plain(given), _plain(taken)
    if given == taken or Any in (given, taken) or taken is object:
        return True
    if _is_union(given):
        return all(fits(member, taken) for member in get_args(given))
    if _is_union(taken):
        return any(fits(given, member) for member in get_args(taken))
    if get_origin(given) is Literal:
        values = get_args(given)
        if get_origin(taken) is Literal:
            return set(values) <= set(get_args(taken))
        return all(fits(type(value), taken) for value in values)
    return _classes_fit(given, taken)


def _plain(hint: Any) -> Any:
    while True:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif isinstance(hint, TypeVar):
            hint = hint.__bound__ or Any
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        else:
            return type(None) if hint is None else hint


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _classes_fit(given: Any, taken: Any) -> bool:
    outer, wanted = get_origin(given) or given, get_origin(taken) or taken
    if not isinstance(outer, type) or not isinstance(wanted, type):
        return not (isinstance(outer, type) ^ isinstance(wanted, type)) or get_origin(taken) is not Literal
    if outer is int and wanted is float:
        return True
    try:
        if not issubclass(outer, wanted):
            return False
    except TypeError:  # a protocol that can't be asked
        return True
    inner, asked = get_args(given), get_args(taken)
    if not inner or not asked or len(inner) != len(asked):
        return True
    return all(fits(one, other) for one, other in zip(inner, asked, strict=True))


def told(hint: Any) -> str:
    """What *hint* is called, as it is written in source."""
    if hint is None or hint is type(None):
        return "None"
    return (
        hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
    )
