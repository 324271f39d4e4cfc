"""Checking typed Python: what does not fit its hint. Nothing is converted.

An instance of the right class is trusted: its constructor keeps its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._suggest import nearest
from .faults import TooDeep, Walk, key_step
from .scalars import Scalar
from .shapes import Anything, Choice, Items, OneOf, Opaque, Places, Record, Shape, Table, core
from .words import words

Visit = Callable[[Walk, Any, Any], Any]


def walked(visit: Visit, walk: Walk, shape: Shape, value: Any) -> tuple[Any, tuple[str, ...]]:
    """What *visit* makes of *value*, and every fault it found."""
    try:
        found = visit(walk, shape, value)
    except TooDeep as exc:
        return None, (*walk.told(), str(exc))
    except RecursionError:  # the caller's own stack was deep already
        return None, (*walk.told(), f"{walk.root}: nested too deep for the stack")
    return found, walk.told()


def check(walk: Walk, shape: Shape, value: Any) -> None:
    """Note what in *value* does not fit *shape*."""
    shape = core(shape)
    if not fits(shape, value):
        walk.misfit(words(shape, as_json=False), value)
    else:
        _inside(walk, shape, value)


def _inside(walk: Walk, shape: Shape, value: Any) -> None:
    """Note what does not fit within *value*, which itself is of the kind."""
    visit = _CHECKS.get(type(shape))
    if visit is not None:
        visit(walk, shape, value)


def fits(shape: Shape, value: Any) -> bool:
    """Whether *value* itself is of the kind; what it holds is not looked at."""
    shape = core(shape)
    if isinstance(shape, Scalar | Opaque):
        return shape.accepts(value)
    if isinstance(shape, Items | Table):
        return isinstance(value, shape.types) and not isinstance(value, str | bytes | bytearray)
    if isinstance(shape, Record):
        return isinstance(value, dict if shape.is_dict else shape.cls)
    if isinstance(shape, Choice):
        return any(type(value) is type(known) and value == known for _, known in shape.pairs)
    if isinstance(shape, Places):
        return isinstance(value, tuple)
    return not isinstance(shape, OneOf) or any(fits(member, value) for member in shape.members)


def quick_types(shape: Shape) -> frozenset[type] | None:
    """Exact types whose every instance fits *shape*; None says that anything does."""
    shape = core(shape)
    if isinstance(shape, Scalar):
        return frozenset(shape.types)
    if isinstance(shape, Record) and not shape.is_dict:
        return frozenset([shape.cls])
    if isinstance(shape, Opaque) and shape.cls is not None:
        return frozenset([shape.cls])
    if isinstance(shape, OneOf):
        parts = [quick_types(member) for member in shape.members]
        return None if None in parts else frozenset[type]().union(*(part or () for part in parts))
    return None if isinstance(shape, Anything) else frozenset[type]()


def first(walk: Walk, visit: Visit, members: tuple[Shape, ...], value: Any) -> tuple[Shape, Any] | None:
    """The first member that fits, and the result. None leaves it to the caller to tell the fault."""
    if len(members) == 1:
        return members[0], visit(walk, members[0], value)
    tried: list[tuple[Shape, Walk]] = []
    for member in members:
        fork = walk.fork()
        found = visit(fork, member, value)
        if not fork.faults:
            return member, found
        tried.append((member, fork))
    near = [(member, fork) for member, fork in tried if fork.closest > len(walk.path)]
    if len(near) != 1:
        return None
    walk.adopt(near[0][1])  # the only one that fits from outside: its faults say what is wrong within
    return near[0][0], None


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The tail of a fault that suggests the nearest of *known*, or nothing."""
    found = nearest(str(name), known)
    return "" if found is None else f", did you mean {found}?"


def same_keys(walk: Walk, shape: Record, data: Mapping[Any, Any]) -> bool:
    """Note the keys that *data* lacks, and those that it has too many."""
    missing = [field.key for field in shape.fields if field.required and field.key not in data]
    unknown = [key for key in data if key not in shape.keys]
    for key in missing:
        walk.fault("missing", key)
    for key in unknown:
        walk.fault(f"unexpected{did_you_mean(key, shape.keys)}", key_step(key))
    return not missing and not unknown


def _check_items(walk: Walk, shape: Items, value: Any) -> None:
    quick = quick_types(shape.item)
    if not hasattr(value, "__len__") or quick is None or quick.issuperset(map(type, value)):
        return  # an iterator is not consumed
    for index, item in enumerate(value):
        walk.enter(index)
        check(walk, shape.item, item)
        walk.leave()


def _check_places(walk: Walk, shape: Places, value: Any) -> None:
    if len(value) != len(shape.items):
        return walk.misfit(words(shape, as_json=False), value)
    for index, (inner, item) in enumerate(zip(shape.items, value, strict=True)):
        walk.enter(index)
        check(walk, inner, item)
        walk.leave()
    return None


def _check_table(walk: Walk, shape: Table, value: Mapping[Any, Any]) -> None:
    keys, values = quick_types(shape.key), quick_types(shape.value)
    if (keys is None or keys.issuperset(map(type, value))) and (
        values is None or values.issuperset(map(type, value.values()))
    ):
        return
    for key, item in value.items():
        walk.enter(key_step(key))
        if not fits(shape.key, key):
            walk.misfit(f"a key that is {words(shape.key, as_json=False)}", key)
        check(walk, shape.value, item)
        walk.leave()


def _check_record(walk: Walk, shape: Record, value: Any) -> None:
    if not shape.is_dict:
        return
    same_keys(walk, shape, value)
    for field in shape.fields:
        if field.key in value:
            walk.enter(field.key)
            check(walk, field.shape, value[field.key])
            walk.leave()


def _check_union(walk: Walk, shape: OneOf, value: Any) -> None:
    members = tuple(core(member) for member in shape.members if fits(member, value))
    if len(members) == 1:  # spares the stack two frames a level
        _inside(walk, members[0], value)
    elif first(walk, check, members, value) is None:
        walk.misfit(words(shape, as_json=False), value)


_CHECKS: Mapping[type, Visit] = {
    Items: _check_items,
    Places: _check_places,
    Table: _check_table,
    Record: _check_record,
    OneOf: _check_union,
}
