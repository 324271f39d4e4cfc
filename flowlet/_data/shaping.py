"""From a type hint to its shape: what each form of hint means as data."""

from __future__ import annotations

import types
import typing
from collections import OrderedDict, abc, deque
from collections.abc import Callable, Mapping
from enum import Enum, EnumType
from functools import lru_cache
from typing import Annotated, Any, ForwardRef, Literal, TypeVar, Union, cast, get_args, get_origin

from .hints import class_hints, filled, resolved
from .scalars import SCALARS, TEXT, kind_of, scalar_of
from .shapes import (
    ANYTHING,
    Alias,
    Anything,
    Choice,
    Described,
    Field,
    Items,
    OneOf,
    Opaque,
    Places,
    Record,
    Shape,
    Table,
)


def shape_of(hint: Any) -> Shape:
    """Tell what *hint* means as data; never fails."""
    if hint is Any or hint is object:
        return ANYTHING
    if isinstance(hint, str | ForwardRef):
        return Anything(hint if isinstance(hint, str) else hint.__forward_arg__)
    origin = get_origin(hint)
    special = _SPECIAL.get(origin)
    if special is not None:
        return special(hint, get_args(hint))
    cls = types.NoneType if hint is None else origin or hint
    if _is_class(cls):
        return _class_shape(hint, cls, get_args(hint))
    if isinstance(hint, TypeVar):
        return shape_of(_bound(hint))
    if (plain := getattr(hint, "__supertype__", None)) is not None:
        return shape_of(plain)
    return _rare_form(hint, origin)


def shape_of_value(value: object) -> Shape | None:
    """The shape that a value with no hint is written by, or None when it is no data."""
    shape = scalar_of(value) or shape_of(cast("Any", type(value)))
    if isinstance(shape, Opaque):
        found: Any = next(
            (cls for cls in (abc.Mapping, abc.Set, list, tuple) if isinstance(value, cls)), None
        )
        return shape_of(found) if found is not None else None
    return shape


def _class_shape(hint: Any, cls: Any, args: tuple[Any, ...]) -> Shape:
    if cls in SCALARS:
        return SCALARS[cls]
    if cls is tuple:
        return _tuple(hint, args)
    if cls in _ARRAYS:
        return _items(cls, args)
    if cls in _TABLES:
        key, value = args if len(args) == 2 else (Any, Any)
        return Table((cls,), _TABLES[cls], shape_of(key), shape_of(value))
    if isinstance(cls, EnumType):
        return _enum(cls)
    if _is_record(cls):
        return _record(hint) if hint is cls else _record.__wrapped__(hint)
    return _opaque_class(cls, args)


@lru_cache(maxsize=512)  # one for a class, so that its fields are read once
def _record(hint: Any) -> Record:
    cls = get_origin(hint) or hint
    return Record(cls, hint, _is_typed_dict(cls), lambda: _fields(cls, class_hints(hint)))


def _fields(cls: Any, hints: Mapping[str, Any]) -> tuple[Field, ...]:
    return tuple(
        Field(name, key, shape_of(hints.get(name, Any)), required)
        for name, key, required in _field_names(cls, hints)
    )


@lru_cache(maxsize=512)
def _alias(hint: Any) -> Alias:
    alias = get_origin(hint) or hint
    env = dict(zip(alias.__type_params__, get_args(hint), strict=False))
    return Alias(hint, lambda: shape_of(filled(resolved(alias.__value__, alias.__module__), env)))


def _is_class(found: Any) -> bool:
    return isinstance(found, type)


def _is_record(cls: Any) -> bool:
    return (
        hasattr(cls, "__attrs_attrs__")
        or hasattr(cls, "__dataclass_fields__")
        or (hasattr(cls, "_fields") and hasattr(cls, "_field_defaults"))
        or _is_typed_dict(cls)
    )


def _is_typed_dict(cls: Any) -> bool:
    return dict in cls.__mro__ and hasattr(cls, "__required_keys__")


def _field_names(cls: Any, hints: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    if hasattr(cls, "__attrs_attrs__"):
        import attrs

        return [(a.name, a.alias, a.default is attrs.NOTHING) for a in attrs.fields(cls) if a.init]
    if hasattr(cls, "__dataclass_fields__"):
        from dataclasses import MISSING, fields

        return [
            (f.name, f.name, f.default is MISSING and f.default_factory is MISSING)
            for f in fields(cls)
            if f.init
        ]
    if _is_typed_dict(cls):
        return [(name, name, _is_required(cls, name, hint)) for name, hint in hints.items()]
    return [(name, name, name not in cls._field_defaults) for name in cls._fields]


@lru_cache(maxsize=512)
def unmade_fields(cls: Any) -> tuple[str, ...] | None:
    """The fields of a class, of those that equality counts, which its constructor does not take.

    None is for a class whose constructor does nothing but take its fields.
    """
    ours: Any = getattr(cls, "__attrs_attrs__", ())
    theirs: Any = getattr(cls, "__dataclass_fields__", {}).values()
    unmade = (
        *(a.name for a in ours if not a.init and a.eq),
        *(f.name for f in theirs if not f.init and f.compare),
    )
    by_hand = ("__attrs_post_init__", "__attrs_init__", "__post_init__")
    own = any(a.converter is not None for a in ours) or any(hasattr(cls, name) for name in by_hand)
    return unmade if own or unmade else None


def _is_required(cls: Any, name: str, hint: Any) -> bool:
    import typing_extensions as te

    origin = get_origin(hint)
    while origin in (
        te.Required,
        te.NotRequired,
        te.ReadOnly,
    ):  # the class itself does not see a qualifier within a string
        if origin in (te.Required, te.NotRequired):
            return origin is te.Required
        hint = get_args(hint)[0]
        origin = get_origin(hint)
    return name in cls.__required_keys__


def _enum(cls: Any) -> Choice:
    plain = all(kind_of(member.value) in ("boolean", "integer", "number", "string") for member in cls)
    return Choice(cls.__name__, tuple((m.value if plain else m.name, m) for m in cls), cls.__doc__)


def _literal(hint: Any, args: tuple[Any, ...]) -> Shape:
    return Choice("", tuple((_literal_json(arg), arg) for arg in args))


def _literal_json(value: Any) -> Any:
    if isinstance(value, Enum):
        return next(json for json, member in _enum(type(value)).pairs if member is value)
    return SCALARS[bytes].write(value) if isinstance(value, bytes) else value


def _annotated(hint: Any, args: tuple[Any, ...]) -> Shape:
    text = next((found for found in args[1:] if isinstance(found, str)), None)
    shape = shape_of(args[0])
    return shape if text is None else Described(shape, text)


def _tuple(hint: Any, args: tuple[Any, ...]) -> Shape:
    if len(args) == 2 and args[1] is ...:
        return Items((tuple,), tuple, "a tuple", shape_of(args[0]))
    import typing_extensions as te

    if get_origin(hint) is None or any(get_origin(arg) is te.Unpack for arg in args):
        return Items((tuple,), tuple, "a tuple", ANYTHING)
    return Places(tuple(map(shape_of, args)))


def _items(cls: type, args: tuple[Any, ...]) -> Shape:
    make, words = _ARRAYS[cls]
    return Items((cls,), make, words, shape_of(args[0]) if args else ANYTHING)


def _opaque_class(cls: Any, args: tuple[Any, ...]) -> Opaque:
    if cls is type:
        return Opaque("a class", lambda value: isinstance(value, type))
    if cls is get_origin(Callable[..., Any]):
        return Opaque("a callable", callable)

    def accepts(value: object) -> bool:
        try:
            return isinstance(value, cls)
        except TypeError:  # a Protocol that is not runtime_checkable
            return True

    return Opaque(cls.__qualname__, accepts, None if getattr(cls, "_is_protocol", False) else cls)


def _rare_form(hint: Any, origin: Any) -> Shape:
    """What typing has in newer versions only; most hints do without the import."""
    import typing_extensions as te

    if origin in (te.Required, te.NotRequired, te.ReadOnly, typing.Final, typing.ClassVar):
        return shape_of(get_args(hint)[0])
    aliases = (te.TypeAliasType, getattr(typing, "TypeAliasType", te.TypeAliasType))
    if isinstance(hint, aliases) or isinstance(origin, aliases):
        return _alias(hint) if origin is None else _alias.__wrapped__(hint)
    if hint is typing.LiteralString or hint is te.LiteralString:
        return TEXT
    return Opaque(str(hint).removeprefix("typing."), lambda _: True)


def _bound(variable: TypeVar) -> Any:
    if variable.__constraints__:
        return Union[variable.__constraints__]  # noqa: UP007 - made at run time
    return Any if variable.__bound__ is None else variable.__bound__


_SPECIAL: Mapping[Any, Callable[[Any, tuple[Any, ...]], Shape]] = {
    Annotated: _annotated,
    Literal: _literal,
    Union: lambda hint, args: OneOf(tuple(map(shape_of, args))),
    types.UnionType: lambda hint, args: OneOf(tuple(map(shape_of, args))),
}
_ARRAYS: Mapping[Any, tuple[Callable[[list[Any]], Any], str]] = {
    list: (list, "a list"),
    set: (set, "a set"),
    frozenset: (frozenset, "a frozenset"),
    deque: (deque, "a deque"),
    abc.Sequence: (list, "a sequence"),
    abc.MutableSequence: (list, "a list"),
    abc.Collection: (list, "a collection"),
    abc.Iterable: (list, "an iterable"),
    abc.Set: (set, "a set"),
    abc.MutableSet: (set, "a set"),
}
_TABLES: Mapping[Any, Callable[[dict[Any, Any]], Any]] = {
    dict: dict,
    OrderedDict: OrderedDict,
    abc.Mapping: dict,
    abc.MutableMapping: dict,
}
