"""What a value is made of: the items of containers, the fields of records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from .faults import key_step

__all__ = ["parts_of"]

_PLAIN = frozenset({int, float, bool, complex, type(None)})


def parts_of(value: object) -> Iterator[tuple[str | int, object]] | None:
    """The parts of a container or a record, each with its place; None for all else, and for lists of mere numbers."""
    if isinstance(value, dict):
        return _of_mapping(cast("dict[object, object]", value))
    if isinstance(value, list | tuple | set | frozenset):
        items = cast("Sequence[object]", value)
        return None if _PLAIN.issuperset(map(type, items)) else iter(enumerate(items))
    kind: Any = type(value)
    if hasattr(kind, "__attrs_attrs__"):
        return ((one.name, getattr(value, one.name, None)) for one in kind.__attrs_attrs__)
    if hasattr(kind, "__dataclass_fields__"):
        return ((name, getattr(value, name, None)) for name in kind.__dataclass_fields__)
    return None


def _of_mapping(value: Mapping[object, object]) -> Iterator[tuple[str | int, object]]:
    for key, one in value.items():
        yield key_step(key), key
        yield key_step(key), one
