"""Shapes: what type hints mean as data, as values that codec and schema read.

A class finds its fields at first use, so recursion needs no care. A hint that is no data is Opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Union, get_args

from attrs import field, frozen

from .._value import Shown
from .scalars import Scalar, kind_of

_KINDS = ("null", "boolean", "integer", "number", "string", "array", "object")


@frozen(eq=False, repr=False)
class Anything(Shown):
    """A hint that allows any value; *unresolved* is the text of one that could not be resolved."""

    unresolved: str = ""


@frozen(eq=False, repr=False)
class Opaque(Shown):
    """A hint that is no data, such as a callable or a client; *accepts* tells what can be told of a value."""

    name: str
    accepts: Callable[[object], bool]
    cls: type | None = None


@frozen(eq=False, repr=False)
class Choice(Shown):
    """One of a few values, as *(json, python)* pairs: an Enum or a Literal."""

    name: str
    pairs: tuple[tuple[Any, Any], ...]
    doc: str | None = None


@frozen(eq=False, repr=False)
class Items(Shown):
    """Any number of values: a list, a variadic tuple, a set. *types* are accepted, *make* is what is read."""

    types: tuple[type, ...]
    make: Callable[[list[Any]], Any]
    words: str
    item: Shape


@frozen(eq=False, repr=False)
class Places(Shown):
    """A tuple with a shape for each place."""

    items: tuple[Shape, ...]


@frozen(eq=False, repr=False)
class Table(Shown):
    """A mapping; JSON writes its keys as text."""

    types: tuple[type, ...]
    make: Callable[[dict[Any, Any]], Any]
    key: Shape
    value: Shape


@frozen(eq=False, repr=False)
class Field(Shown):
    """A field of a Record: *name* in Python, *key* in JSON and for the constructor."""

    name: str
    key: str
    shape: Shape
    required: bool


@frozen(eq=False, repr=False, slots=False)
class Record(Shown):
    """A class with named fields: attrs, dataclass, NamedTuple or TypedDict (*is_dict*)."""

    cls: Any
    hint: Any
    is_dict: bool
    find: Callable[[], tuple[Field, ...]] = field(repr=False)

    @property
    def name(self) -> str:
        """The name of the class, with its arguments where it is generic."""
        args = ", ".join(getattr(arg, "__name__", str(arg)) for arg in get_args(self.hint))
        return f"{self.cls.__name__}[{args}]" if args else str(self.cls.__name__)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields that the constructor takes."""
        return self.find()

    def make(self, values: dict[str, Any]) -> Any:
        """Make an instance of *values* by JSON key."""
        return self.cls(**values)

    @cached_property
    def keys(self) -> Mapping[str, Field]:
        """The fields by their JSON key."""
        return {found.key: found for found in self.fields}


@frozen(eq=False, repr=False)
class Described(Shown):
    """A shape with a description, from ``Annotated[T, "..."]``."""

    shape: Shape
    text: str


@frozen(eq=False, repr=False, slots=False)
class Alias(Shown):
    """A ``type X = ...`` alias, which may be recursive."""

    hint: Any
    find: Callable[[], Shape] = field(repr=False)

    @cached_property
    def shape(self) -> Shape:
        """What the alias stands for."""
        return self.find()


@frozen(eq=False, repr=False)
class Tag(Shown):
    """How the object-like members of a union are told apart: by the value of *key*.

    *own* says that the classes have that field themselves, as a Literal.
    """

    key: str
    names: Mapping[str, Record]
    own: bool = False

    def of(self, record: Record) -> str:
        """The tag of *record*."""
        return next(name for name, found in self.names.items() if found is record)


@frozen(eq=False, repr=False, slots=False)
class OneOf(Shown):
    """A union of shapes."""

    parts: tuple[Shape, ...]

    @cached_property
    def declared(self) -> tuple[Shape, ...]:
        """The members of this union and of unions in it, as they were written."""
        return tuple(_flat(self.parts))

    @cached_property
    def members(self) -> tuple[Shape, ...]:
        """The members, those that reading tries first in front."""
        return tuple(sorted(self.declared, key=_rank))

    @cached_property
    def by_kind(self) -> Mapping[str, tuple[Shape, ...]]:
        """The members that a kind of JSON may be."""
        return {kind: tuple(m for m in self.members if kind in _kinds_of(m)) for kind in _KINDS}

    @cached_property
    def tag(self) -> Tag | None:
        """The tag of its classes, where more than one member is an object in JSON."""
        objects = [core(member) for member in self.declared if is_object(member)]
        records = [shape for shape in objects if isinstance(shape, Record)]
        return _tag(records) if len(objects) > 1 and records else None


Shape = Union[  # noqa: UP007 - it is recursive
    Scalar, Anything, Opaque, Choice, Items, Places, Table, Record, Described, Alias, OneOf
]
ANYTHING = Anything()


def core(shape: Shape) -> Shape:
    """*shape* without descriptions and aliases."""
    while isinstance(shape, Described | Alias):
        shape = shape.shape
    return shape


def is_object(shape: Shape) -> bool:
    """Whether every value of *shape* is an object in JSON."""
    return isinstance(core(shape), Record | Table)


def _flat(parts: tuple[Shape, ...]) -> list[Shape]:
    found: list[Shape] = []
    for part in parts:
        inner = core(part)
        found += _flat(inner.parts) if isinstance(inner, OneOf) else [part]
    return found


def _rank(shape: Shape) -> float:
    inner = core(shape)
    if isinstance(inner, Scalar):
        return inner.rank
    return 9 if isinstance(inner, Anything | Opaque) else 0


def _kinds_of(shape: Shape) -> tuple[str, ...]:
    inner = core(shape)
    if isinstance(inner, Scalar):
        return inner.kinds
    if isinstance(inner, Choice):
        return tuple({kind_of(json) for json, _ in inner.pairs})
    if isinstance(inner, Items | Places):
        return ("array",)
    if isinstance(inner, Record | Table):
        return ("object",)
    return _KINDS if isinstance(inner, Anything) else ()


def _tag(records: list[Record]) -> Tag:
    own = next((tag for key in records[0].keys if (tag := _own_tag(key, records))), None)
    if own is not None:
        return own
    key = "type"
    while any(key in record.keys for record in records):
        key += "_"
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        names = [f"{record.cls.__module__}.{record.name}" for record in records]
    return Tag(key, dict(zip(names, records, strict=True)))


def _own_tag(key: str, records: list[Record]) -> Tag | None:
    names: dict[str, Record] = {}
    for record in records:
        shape = core(record.keys[key].shape) if key in record.keys else None
        if not isinstance(shape, Choice) or not record.keys[key].required:
            return None
        for json, _ in shape.pairs:
            if not isinstance(json, str) or names.setdefault(json, record) is not record:
                return None
    return Tag(key, names, own=True)
