"""What a fault expects, in words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import Enum
from typing import Any

from .faults import shown, shown_json
from .scalars import Scalar
from .shapes import Choice, Items, OneOf, Opaque, Places, Record, Shape, Table, core

_MOST = 12


def words(shape: Shape, *, as_json: bool) -> str:
    """What *shape* is called, in JSON or in Python."""
    shape = core(shape)
    if isinstance(shape, Scalar):
        return shape.json_words if as_json else shape.words
    if isinstance(shape, Choice):
        return _choice(shape, as_json=as_json)
    if isinstance(shape, Items):
        return "a list" if as_json else shape.words
    if isinstance(shape, Places):
        return f"a {'list' if as_json else 'tuple'} of {len(shape.items)}"
    if isinstance(shape, Record):
        return f"an object ({shape.name})" if as_json else shape.name
    if isinstance(shape, OneOf):
        return " or ".join(dict.fromkeys(words(member, as_json=as_json) for member in shape.declared))
    if isinstance(shape, Table):
        return "an object" if as_json else "a mapping"
    return shape.name if isinstance(shape, Opaque) else "anything"


def _choice(shape: Choice, *, as_json: bool) -> str:
    if as_json:
        return listed(data for data, _ in shape.pairs)
    enums = all(isinstance(value, Enum) for _, value in shape.pairs)
    return shape.name if enums and shape.name else listed((value for _, value in shape.pairs), as_json=False)


def listed(values: Iterable[Any], *, as_json: bool = True) -> str:
    """*values* as alternatives: ``"a", "b" or "c"``."""
    told = [shown_json(value) if as_json else shown(value) for value in values]
    if len(told) > _MOST:
        told = [*told[:_MOST], f"{len(told) - _MOST} more"]
    return " or ".join(filter(None, (", ".join(told[:-1]), *told[-1:])))


def key_text(data: Any) -> str:
    """A scalar of JSON as a text, such as the key of an object."""
    return data if isinstance(data, str) else json.dumps(data)
