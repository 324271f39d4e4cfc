"""Reading JSON data and text as typed Python. An int is read for a float, nothing else is converted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from .._fence import read_text
from .checking import Visit, first, same_keys
from .faults import TooDeep, Walk, cut, key_step
from .scalars import NOTHING, TEXT, Scalar, all_plain, kind_of
from .shapes import (
    ANYTHING,
    Alias,
    Anything,
    Choice,
    Described,
    Items,
    OneOf,
    Opaque,
    Places,
    Record,
    Shape,
    Table,
    Tag,
    core,
)
from .words import key_text, listed, words


def read(walk: Walk, shape: Shape, data: Any) -> Any:
    """Read JSON *data* as *shape*; where there are faults, the result means nothing."""
    return _READS[type(shape)](walk, shape, data)


def parse(walk: Walk, shape: Shape, text: str) -> Any:
    """Read *text* as *shape*: a scalar in its text form, all else as JSON."""
    shape = core(shape)
    if isinstance(shape, Scalar):
        try:
            return _marked(walk, shape, shape.parse(text))
        except (ValueError, OverflowError):
            return walk.misfit(shape.json_words, text)
    if isinstance(shape, Anything):
        return _marked(walk, TEXT, text)
    if isinstance(shape, Choice):
        found = [value for data, value in shape.pairs if key_text(data) == text]
        return found[0] if found else walk.misfit(words(shape, as_json=True), text)
    return _parse_union(walk, shape, text) if isinstance(shape, OneOf) else load(walk, shape, text)


def load(walk: Walk, shape: Shape, text: str) -> Any:
    """Read JSON *text* as *shape*."""
    try:
        data = json.loads(text, parse_constant=_not_json)
    except ValueError as exc:
        return walk.misfit(f"JSON ({exc})", text)
    return read(walk, shape, data)


def load_wrapped(walk: Walk, shape: Shape, text: str) -> Any:
    """Read the JSON *text* ``{"value": ...}`` as *shape*."""
    found = load(walk, Table((dict,), dict, _VALUE, shape), text)
    if not walk.faults and not found:
        walk.fault("missing", "value")
    return found["value"] if found else None


def chosen(walk: Walk, shape: OneOf, data: Any) -> tuple[Shape, Any] | None:
    """The member of a union that *data* is read as, and its value. None says that the faults are told."""
    kind = kind_of(data)
    if kind == "object" and shape.tag is not None:
        return _chosen_by_tag(walk, shape, shape.tag, data)
    found = first(walk, read, shape.by_kind.get(kind, ()), data)
    if found is None:
        walk.misfit(words(shape, as_json=True), data)
    return found


def _not_json(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _misfit(walk: Walk, shape: Shape, data: Any) -> None:
    walk.misfit(words(shape, as_json=True), data)


def _read_through(walk: Walk, shape: Described | Alias, data: Any) -> Any:
    return read(walk, core(shape), data)


def _read_anything(walk: Walk, shape: Anything, data: Any) -> Any:
    plain = None if walk.use == "json" else _PLAIN.get(kind_of(data))
    return data if plain is None else _READS[type(plain)](walk, plain, data)


def _read_opaque(walk: Walk, shape: Opaque, data: Any) -> None:
    walk.fault(f"{shape.name} can't be read from JSON")


def _read_scalar(walk: Walk, shape: Scalar, data: Any) -> Any:
    if kind_of(data) in shape.kinds:
        try:
            return _marked(walk, shape, shape.read(data))
        except (ValueError, OverflowError):
            pass
    return _misfit(walk, shape, data)


def _marked(walk: Walk, shape: Scalar, value: Any) -> Any:
    """Give a text that was written to be read back the mark that it had."""
    return read_text(value) if shape is TEXT and walk.use == "kept" else value


def _read_choice(walk: Walk, shape: Choice, data: Any) -> Any:
    kind = kind_of(data)
    for known, value in shape.pairs:
        if known == data and kind_of(known) == kind:
            return value
    return _misfit(walk, shape, data)


def _read_items(walk: Walk, shape: Items, data: Any) -> Any:
    if kind_of(data) != "array":
        return _misfit(walk, shape, data)
    before, item = walk.count, shape.item
    if all_plain(core(item), data):
        return _made(walk, shape.make, list(data))
    found: list[Any] = []
    visit = _READS[type(item)]
    for index, value in enumerate(data):
        walk.enter(index)
        found.append(visit(walk, item, value))
        walk.leave()
    return _made(walk, shape.make, found) if walk.count == before else None


def _read_places(walk: Walk, shape: Places, data: Any) -> Any:
    if kind_of(data) != "array" or len(data) != len(shape.items):
        return _misfit(walk, shape, data)
    found: list[Any] = []
    for index, (inner, value) in enumerate(zip(shape.items, data, strict=True)):
        walk.enter(index)
        found.append(_READS[type(inner)](walk, inner, value))
        walk.leave()
    return tuple(found)


def _read_table(walk: Walk, shape: Table, data: Any) -> Any:
    if kind_of(data) != "object":
        return _misfit(walk, shape, data)
    found: dict[Any, Any] = {}
    before = walk.count
    for text, value in data.items():
        walk.enter(key_step(text))
        key = _read_key(walk, shape.key, text)
        if key in found:
            walk.fault("the same key as another one")
        found[key] = _READS[type(shape.value)](walk, shape.value, value)
        walk.leave()
    return _made(walk, shape.make, found) if walk.count == before else None


def _read_key(walk: Walk, shape: Shape, text: Any) -> Any:
    before = walk.count
    key = parse(walk, shape, text) if isinstance(text, str) else None
    if not isinstance(text, str):
        _misfit(walk, TEXT, text)
    return _made(walk, _hashable, key) if walk.count == before else object()  # faulty keys are not the same


def _hashable(key: Any) -> Any:
    hash(key)
    return key


def _read_record(walk: Walk, shape: Record, data: Any) -> Any:
    if kind_of(data) != "object":
        return _misfit(walk, shape, data)
    before = walk.count
    same_keys(walk, shape, data)
    found: dict[str, Any] = {}
    for field in shape.fields:
        if field.key in data:
            walk.enter(field.key)
            found[field.key] = _READS[type(field.shape)](walk, field.shape, data[field.key])
            walk.leave()
    return _made(walk, shape.make, found) if walk.count == before else None


def _read_union(walk: Walk, shape: OneOf, data: Any) -> Any:
    kind = kind_of(data)
    members = shape.by_kind.get(kind, ())
    if len(members) == 1:  # spares the stack two frames a level
        return _READS[type(members[0])](walk, members[0], data)
    found = chosen(walk, shape, data)
    return None if found is None else found[1]


def _chosen_by_tag(walk: Walk, shape: OneOf, tag: Tag, data: Mapping[Any, Any]) -> tuple[Shape, Any] | None:
    name = data.get(tag.key)
    record = tag.names.get(name) if isinstance(name, str) else None
    if record is not None:
        rest = data if tag.own else {key: value for key, value in data.items() if key != tag.key}
        return record, _read_record(walk, record, rest)
    tables = tuple(m for m in shape.by_kind["object"] if isinstance(core(m), Table))
    found = first(walk, read, tables, data) if tables else None
    if found is None:
        told = f", found {walk.shown(name)}" if tag.key in data else ", found nothing"
        walk.fault(f"expected {listed(tag.names)}{told}", tag.key)
    return found


def _made(walk: Walk, make: Callable[[Any], Any], parts: Any) -> Any:
    try:
        return make(parts)
    except (RecursionError, TooDeep):
        raise
    except Exception as exc:  # noqa: BLE001 - a class's own validation is a fault like any other
        text = str(exc.args[0]) if exc.args else ""  # attrs' validators add the attribute and the value
        return walk.fault(cut(f"{type(exc).__name__}: {text}", 200))


def _parse_union(walk: Walk, shape: OneOf, text: str) -> Any:
    """JSON where it begins as such and a member is a container, else the first scalar that fits.

    Where text is a member, ``null`` is a text like any other.
    """
    cores = tuple(map(core, shape.members))
    plain = tuple(inner for inner in cores if isinstance(inner, Scalar | Choice | Anything))
    has_text = TEXT in plain
    if len(plain) < len(cores) and text.lstrip()[:1] in ("[", "{"):
        fork = walk.fork()
        found = load(fork, shape, text)
        if not (fork.faults and has_text):
            walk.adopt(fork)
            return found
    if has_text:
        plain = tuple(inner for inner in plain if inner is not NOTHING)
    tried = first(walk, parse, plain, text)
    return _misfit(walk, shape, text) if tried is None else tried[1]


_PLAIN: Mapping[str, Shape] = {
    "string": TEXT,
    "array": Items((list,), list, "a list", ANYTHING),
    "object": Table((dict,), dict, TEXT, ANYTHING),
}
_VALUE = Choice("", (("value", "value"),))
_READS: Mapping[type, Visit] = {
    Scalar: _read_scalar,
    Anything: _read_anything,
    Opaque: _read_opaque,
    Choice: _read_choice,
    Items: _read_items,
    Places: _read_places,
    Table: _read_table,
    Record: _read_record,
    Described: _read_through,
    Alias: _read_through,
    OneOf: _read_union,
}
