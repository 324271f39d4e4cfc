"""Hints made of hints: unions, lists and mappings of them, with null and without."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any, Union, get_args, get_origin

from typing_extensions import TypedDict

from .._fits import told

__all__ = ["either", "item_of", "joined", "list_of", "mapping_of", "members", "without_null"]

_NO_LISTS = (str, bytes, Mapping)


def joined(hints: Iterable[Any]) -> Any:
    """The union of *hints*.

    Raises:
        TypeError: one of them is no type.
    """
    found, *more = hints
    for hint in more:
        found = found | hint
    return found


def either(*hints: Any) -> Any:
    """The hint of a value of any of *hints*; what can't be said is Any."""
    if Any in hints or any(isinstance(hint, str) for hint in hints):
        return Any
    try:
        return joined(dict.fromkeys(hints))
    except TypeError:
        return Any


def members(hint: Any) -> tuple[Any, ...]:
    """The members of a union; of another hint itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def without_null(hint: Any) -> Any:
    """*hint* where the value is not null."""
    return (
        either(*(member for member in members(hint) if member is not type(None)))
        if hint is not None
        else hint
    )


def list_of(hint: Any) -> Any:
    """The hint of a list of *hint*."""
    return list[hint]


def mapping_of(hints: Mapping[str, Any]) -> Any:
    """The hint of a mapping of just these keys, each of its own type; it is called as it looks."""
    name = f"{{{', '.join(f'{key}: {told(hint)}' for key, hint in hints.items())}}}"
    make: Any = TypedDict
    try:
        found = make(name, {key: Any if isinstance(hint, str) else hint for key, hint in hints.items()})
    except (TypeError, ValueError):  # a hint that is no type, a key with what no name of a class can have
        return dict[str, Any]
    found.__module__ = "builtins"  # of no module that would be told with its name
    return found


def item_of(hint: Any) -> Any:
    """The hint of what a list of *hint* holds; None where it is no list."""
    found: list[Any] = []
    for member in members(hint):
        outer = get_origin(member) or member
        listed = isinstance(outer, type) and issubclass(outer, Iterable) and not issubclass(outer, _NO_LISTS)
        if member is not Any and not listed:
            return None
        found += [arg for arg in get_args(member) if arg is not ...] or [Any]
    return either(*found)
