"""The arguments of a call as JSON: by name, defaults included, and back again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ._data.checking import walked
from ._data.faults import Walk
from ._data.reading import read
from ._data.scalars import TEXT
from ._data.shapes import Items, Shape, Table
from ._data.writing import is_plain, write
from ._signature import Parameter, Signature
from .errors import InputError
from .messages import JsonValue

_P = inspect.Parameter
_VARIADIC = (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)


def bound(signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Each parameter with what it is given, or its default; None for a call that Python would refuse."""
    if not kwargs and len(args) == len(signature.parameters) == len(signature.positional):
        return {p.name: value for p, value in zip(signature.parameters, args, strict=True)}
    rest, named = list(args), dict(kwargs)
    found: dict[str, Any] = {}
    for p in signature.parameters:
        if p.kind is _P.VAR_POSITIONAL:
            found[p.name], rest = rest, []
        elif p.kind is _P.VAR_KEYWORD:
            found[p.name], named = named, {}
        elif rest and p.kind is not _P.KEYWORD_ONLY:
            found[p.name] = rest.pop(0)
        else:
            by_name = p.kind is not _P.POSITIONAL_ONLY
            found[p.name] = named.pop(p.name, p.default) if by_name else p.default
    missing = any(value is _P.empty for value in found.values())
    return None if rest or named or missing else found


def written(
    signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], *, exact: bool
) -> dict[str, JsonValue] | None:
    """The arguments of a call as JSON, by name; None for a call that Python would refuse.

    Parameters that are marked with ``ExcludeFromKey`` are left out. Without *exact* they are to tell one
    call from another only: a value says by its method ``__flowlet_key__`` what it stands for, and what has
    no hint speaks for itself. With *exact* they can be read back.

    Raises:
        InputError: an argument can't be written; every fault is listed.
    """
    values = bound(signature, args, kwargs)
    if values is None:
        return None
    faults: list[str] = []
    for p in signature.parameters:
        value = values[p.name]
        if not p.keyed:
            del values[p.name]
        elif type(value) not in p.as_is or not is_plain(value) or p.kind in _VARIADIC:
            values[p.name], more = _written(p, value, exact)
            faults += more
    if faults:
        raise InputError(f"{signature} has arguments that can't be written as JSON", (*faults, HOW))
    return values


_MISSING = "missing"
_LEFT_OUT = (
    "missing, since what is no data is not recorded: run the workflow again with it, under the same run_id"
)
HOW = "what is no data, such as a client, is left out with Annotated[..., flowlet.ExcludeFromKey]"


def _written(p: Parameter, value: Any, exact: bool) -> tuple[JsonValue, tuple[str, ...]]:
    stands_for = None if exact else getattr(type(cast("object", value)), "__flowlet_key__", None)
    if stands_for is not None:
        return stands_for(value), ()
    return walked(write, Walk(p.name, json=False, use="kept" if exact else "key"), _whole(p), value)


def _whole(p: Parameter) -> Shape:
    """The shape of everything that *p* takes."""
    if p.kind is _P.VAR_POSITIONAL:
        return Items((list,), list, "a list", p.shape)
    return Table((dict,), dict, TEXT, p.shape) if p.kind is _P.VAR_KEYWORD else p.shape


def read_back(
    signature: Signature, data: Mapping[str, JsonValue], others: Mapping[str, Any] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make the arguments of a call of what :func:`written` gave, and of *others*, which it left out.

    Raises:
        InputError: the signature has changed since; every fault is listed.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    faults: list[str] = []
    for at, p in enumerate(signature.parameters):
        if p.name in data:
            value, more = walked(read, Walk(p.name, json=True, use="kept"), _whole(p), data[p.name])
            faults += more
        elif others is not None:
            value = others[p.name]
        else:
            faults += [f"{p.name}: {_MISSING if p.keyed else _LEFT_OUT}"] if p.required else []
            continue
        if p.kind is _P.VAR_POSITIONAL:
            args += value or ()
        elif p.kind is _P.VAR_KEYWORD:
            kwargs.update(value or {})
        elif p.kind is not _P.KEYWORD_ONLY and len(args) == at:
            args.append(value)
        else:  # also behind a parameter that is new and has a default
            kwargs[p.name] = value
    faults += [f"{name}: unexpected" for name in data.keys() - {p.name for p in signature.parameters}]
    if faults:
        raise InputError(f"{signature} can't take the recorded arguments", tuple(faults))
    return tuple(args), kwargs
