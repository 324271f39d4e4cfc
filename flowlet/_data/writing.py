"""Writing typed Python as JSON data. What would be read back as something else is a fault.

A key is never read back, so it may hold more: where a hint leaves open what a value is, its type is told with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .._fence import OPEN, Untrusted, kept_text
from .checking import Visit, first, fits, same_keys
from .faults import Walk, key_step
from .reading import chosen, parse, read
from .scalars import NOTHING, TEXT, Scalar, all_plain, kind_of
from .shapes import (
    ANYTHING,
    Anything,
    Choice,
    Items,
    OneOf,
    Opaque,
    Places,
    Record,
    Shape,
    Table,
    core,
)
from .shaping import shape_of_value, unmade_fields
from .words import key_text, words


def write(walk: Walk, shape: Shape, value: Any) -> Any:
    """Write *value* as *shape* says; where there are faults, the result means nothing."""
    shape = core(shape)
    if isinstance(shape, Anything):
        own = shape_of_value(value)
        if own is None or isinstance(own, Anything | Opaque):
            return walk.fault(f"{walk.shown(value)} can't be written as JSON")
        if walk.use != "json" and type(value) not in _PLAIN:
            if walk.use == "key":
                return _typed(value, write(walk, own, value))
            return walk.fault(f"{walk.shown(value)} needs a hint of its type by which it is read back")
        shape = own
    if not fits(shape, value):
        return _misfit(walk, shape, value)
    return _WRITES[type(shape)](walk, shape, value)


def is_plain(value: Any) -> bool:
    """Whether a text, a truth, null or a whole number is surely read back as it is; False says to look closer."""
    if type(value) is str:
        return value.isascii() or _is_sound(value)
    return type(value) is not int or -_MOST < value < _MOST


def _is_sound(text: str) -> bool:
    if text.startswith(OPEN):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


_MOST = 2**63
_NO_TYPES: frozenset[type] = frozenset()


def types_as_is(shape: Shape) -> frozenset[type]:
    """Exact types whose values *shape* writes as they are, as far as :func:`is_plain` holds for them."""
    shape = core(shape)
    if isinstance(shape, Anything):
        return _AS_IS
    if isinstance(shape, Scalar):
        return _AS_IS.intersection(shape.types) if len(shape.types) == 1 else _NO_TYPES
    if isinstance(shape, OneOf) and len(shape.members) == 2 and NOTHING in map(core, shape.members):
        return _NO_TYPES.union(*map(types_as_is, shape.members))
    return _NO_TYPES


def _typed(value: object, data: Any) -> dict[str, Any]:
    """Tell the type of *value* with its *data*; no mapping looks like that, as keys that begin so are changed."""
    return {f"{OPEN}{type(value).__qualname__}⟧": data}


def _misfit(walk: Walk, shape: Shape, value: Any) -> None:
    walk.misfit(words(shape, as_json=False), value)


def _write_opaque(walk: Walk, shape: Opaque, value: Any) -> None:
    walk.fault(f"{shape.name} can't be written as JSON")


def _write_scalar(walk: Walk, shape: Scalar, value: Any) -> Any:
    try:
        data = shape.write(value)
    except ValueError:
        return walk.misfit(f"{shape.json_words} that JSON can hold", value)
    return kept_text(value) if shape is TEXT and walk.use != "json" else data


def _write_choice(walk: Walk, shape: Choice, value: Any) -> Any:
    return next(data for data, known in shape.pairs if type(known) is type(value) and known == value)


def _write_items(walk: Walk, shape: Items, value: Any) -> Any:
    if not hasattr(value, "__len__"):
        return walk.fault(f"{walk.shown(value)} can't be written without being consumed; make it a list")
    found: list[Any] = []
    if all_plain(core(shape.item), value):
        found += value
    else:
        for index, item in enumerate(value):
            walk.enter(index)
            found.append(write(walk, shape.item, item))
            walk.leave()
    if isinstance(value, set | frozenset):
        found.sort(key=json.dumps)  # else the order changes with every process
    return found


def _write_places(walk: Walk, shape: Places, value: Any) -> Any:
    if len(value) != len(shape.items):
        return _misfit(walk, shape, value)
    found: list[Any] = []
    for index, (inner, item) in enumerate(zip(shape.items, value, strict=True)):
        walk.enter(index)
        found.append(write(walk, inner, item))
        walk.leave()
    return found


def _write_table(walk: Walk, shape: Table, value: Mapping[Any, Any]) -> Any:
    found: dict[str, Any] = {}
    for key, item in value.items():
        walk.enter(key_step(key))
        found[_write_key(walk, shape.key, key)] = write(walk, shape.value, item)
        walk.leave()
    return found


def _write_key(walk: Walk, shape: Shape, key: Any) -> str:
    if walk.use == "key":
        data = write(walk, shape, key)
        return data if isinstance(data, str) else f"{OPEN}key⟧ {json.dumps(data, sort_keys=True)}"
    if isinstance(core(shape), Anything) and not isinstance(key, str):
        walk.misfit("a key that is text", key)
        return ""
    fork = walk.fork()
    text = key_text(write(fork, shape, key))
    if fork.faults:
        walk.adopt(fork)
    elif parse(fork, shape, text) != key or fork.faults:
        walk.fault(f"this key would not be read back as {walk.shown(key)}")
    return text


def _write_record(walk: Walk, shape: Record, value: Any) -> Any:
    if shape.is_dict:
        same_keys(walk, shape, value)
    elif type(value) is not shape.cls:
        if walk.use == "key":
            return write(walk, ANYTHING, value)
        return walk.fault(f"{walk.shown(value)} would be read back as {shape.name}")
    found: dict[str, Any] = {}
    before = walk.count
    for field in shape.fields:
        if not shape.is_dict or field.key in value:
            walk.enter(field.key)
            part = value[field.key] if shape.is_dict else getattr(value, field.name)
            found[field.key] = write(walk, field.shape, part)
            walk.leave()
    if walk.use == "kept" and walk.count == before and (unmade := unmade_fields(shape.cls)) is not None:
        _check_remade(walk, shape, value, found, unmade)
    return found


def _check_remade(
    walk: Walk, shape: Record, value: Any, data: dict[str, Any], unmade: tuple[str, ...]
) -> None:
    """Note what the constructor makes otherwise of *data*, which was written of *value*."""
    again = walk.fork()
    back = read(again, shape, data)
    if again.faults:
        return walk.adopt(again)
    for field in shape.fields:
        part = getattr(back, field.name)
        if write(again, field.shape, part) != data[field.key]:
            walk.fault(f"would be read back as {walk.shown(part)}", field.key)
    for name in unmade:
        if getattr(back, name, None) != getattr(value, name, None):
            walk.fault(f"is no argument of {shape.name}, so it would be lost", name)
    return None


def _write_union(walk: Walk, shape: OneOf, value: Any) -> Any:
    before = walk.count
    members = tuple(core(member) for member in shape.members if fits(member, value))
    found: tuple[Shape, Any] | None
    if len(members) == 1:
        found = members[0], write(walk, members[0], value)  # spares the stack a frame a level
    else:
        found = first(walk, write, members, value)
    if found is None:
        return _misfit(walk, shape, value)
    if walk.count > before:
        return None
    member, data = found
    if shape.tag is not None and isinstance(member, Record):
        return data if shape.tag.own else {shape.tag.key: shape.tag.of(member), **data}
    if len(shape.by_kind[kind_of(data)]) > 1:
        if walk.use == "key":
            return _typed(value, data)
        _warn_of_another(walk, shape, member, data, value)
    return data


def _warn_of_another(walk: Walk, shape: OneOf, member: Shape, data: Any, value: Any) -> None:
    """Note when *data*, written as *member*, would be read back as another member."""
    back = chosen(walk.fork(), shape, data)
    other = None if back is None else core(back[0])
    if other is not member:
        told = "something else" if other is None else words(other, as_json=False)
        walk.fault(f"{walk.shown(value)} would be read back as {told}, not {words(member, as_json=False)}")


_AS_IS: frozenset[type] = frozenset((str, bool, int, type(None)))  # a float may be no number
_PLAIN = (str, int, float, bool, type(None), list, dict, Untrusted)
_WRITES: Mapping[type, Visit] = {
    Scalar: _write_scalar,
    Opaque: _write_opaque,
    Choice: _write_choice,
    Items: _write_items,
    Places: _write_places,
    Table: _write_table,
    Record: _write_record,
    OneOf: _write_union,
}
