"""Type hints as JSON Schema (draft 2020-12), in OpenAI's strict subset wherever that can say it.

Every field of a class is required, also one with a default: a model always answers it, and reading needs no
rule for null. A field that a model may leave out is spelled ``X | None``. Beyond the strict subset are open
mappings, tuples of different types and Any: see :func:`is_strict`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from inspect import cleandoc
from typing import Any

from attrs import define, field

from ._data.scalars import BASE64, DECIMAL, INTEGER, SCALARS, TEXT, Scalar, kind_of
from ._data.shapes import (
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
    core,
    is_object,
)
from ._data.shaping import shape_of
from ._data.words import key_text, words
from .errors import DefinitionError
from .messages import OutputFormat

__all__ = ["is_strict", "output_format", "schema_of"]

PATTERN_SAMPLES: Mapping[str, str] = {DECIMAL: "1", BASE64: "", INTEGER: "1"}
_NOT_STRICT = {"prefixItems", "propertyNames"}

Schema = dict[str, Any]


def schema_of(hint: Any) -> Schema:
    """Make the JSON Schema of *hint*.

    Raises:
        DefinitionError: a part of *hint* is no data, such as a callable; its path is named.
    """
    return _complete(shape_of(hint), wrapped=False)


def output_format(hint: Any) -> OutputFormat:
    """Ask for an answer that is *hint*. The root must be an object, so all else becomes ``{"value": ...}``.

    Raises:
        DefinitionError: a part of *hint* is no data; its path is named.
    """
    shape = shape_of(hint)
    inner = core(shape)
    name = inner.name if isinstance(inner, Record | Choice) else "answer"
    return OutputFormat(_plain_name(name), _complete(shape, wrapped=not is_object(shape)))


def is_strict(schema: Mapping[str, Any]) -> bool:
    """Whether *schema* stays in the subset that OpenAI accepts as ``"strict": true``."""
    if not schema or _NOT_STRICT & schema.keys() or schema.get("additionalProperties", False) is not False:
        return False
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    inner += [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())]
    return all(map(is_strict, inner))


def _complete(shape: Shape, *, wrapped: bool) -> Schema:
    writer = _Writer()
    try:
        root = _object({"value": writer.at(shape, "$.value")}) if wrapped else writer.root(shape)
    except RecursionError:
        raise DefinitionError(
            "$: this type has no finite JSON schema; its arguments grow without end"
        ) from None
    return {**root, "$defs": writer.defs} if writer.defs else root


@define
class _Writer:
    """Writes schemas; holds the definitions, and the reference to each class and alias met so far."""

    defs: dict[str, Schema] = field(factory=dict[str, Schema])
    refs: dict[tuple[object, ...], str] = field(factory=dict[tuple[object, ...], str])

    def root(self, shape: Shape) -> Schema:
        """The schema of the root, which is written out where all else is a reference."""
        if isinstance(shape, Described):
            return {**self.root(shape.shape), "description": shape.text}
        if isinstance(shape, Record | Alias):
            self.refs[_identity(shape, None)] = "#"
        if isinstance(shape, Alias):
            return self.root(shape.shape)
        return self.record(shape, "$") if isinstance(shape, Record) else self.at(shape, "$")

    def at(self, shape: Shape, path: str) -> Schema:
        """The schema of *shape* at *path*."""
        return _WRITERS[type(shape)](self, shape, path)

    def ref(
        self, shape: Record | Alias, name: str, write: Callable[[], Schema], tag: str | None = None
    ) -> Schema:
        """A reference to the definition of *shape*, which *write* makes at the first time."""
        key = _identity(shape, tag)
        if key not in self.refs:
            name = self.free(_plain_name(name))
            self.refs[key] = f"#/$defs/{name}"
            self.defs[name] = {}  # keeps its place
            self.defs[name] = write()
        return {"$ref": self.refs[key]}

    def free(self, name: str) -> str:
        """*name*, numbered where it is taken."""
        number, found = 1, name
        while found in self.defs:
            number += 1
            found = f"{name}_{number}"
        return found

    def record(self, shape: Record, path: str, tag: tuple[str, str] | None = None) -> Schema:
        """The schema of a class, with its *tag* in front."""
        parts = {} if tag is None else {tag[0]: _enumeration([tag[1]])}
        parts |= {part.key: self.at(part.shape, f"{path}.{part.key}") for part in shape.fields}
        return _described(_object(parts), _doc(shape.cls.__name__, shape.cls.__doc__))


def _identity(shape: Record | Alias, tag: str | None) -> tuple[object, ...]:
    cls = shape.cls if isinstance(shape, Record) else type(shape)
    return (cls, repr(shape.hint), tag)  # the text, for a hint may hold what has no hash


def _object(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")[:64] or "answer"


def _doc(name: str, doc: str | None) -> str:
    """The docstring as it was written, and none that dataclass or NamedTuple made: ``Point(x, y)``."""
    return "" if doc is None or doc.startswith(f"{name}(") else cleandoc(doc)


def _described(schema: Schema, text: str) -> Schema:
    if not text:
        return schema
    inner = {"anyOf": [schema]} if "$ref" in schema else schema  # OpenAI allows nothing beside a reference
    return {**inner, "description": text}


def _enumeration(values: list[Any]) -> Schema:
    kinds = list(dict.fromkeys(map(kind_of, values)))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _scalar(writer: _Writer, shape: Scalar, path: str) -> Schema:
    return dict(shape.schema)


def _anything(writer: _Writer, shape: Anything, path: str) -> Schema:
    if shape.unresolved:
        raise DefinitionError(
            f"{path}: the hint {shape.unresolved!r} can't be resolved, so it has no JSON schema"
        )
    return {}


def _opaque(writer: _Writer, shape: Opaque, path: str) -> Schema:
    raise DefinitionError(f"{path}: {shape.name} is no data, so it has no JSON schema")


def _choice(writer: _Writer, shape: Choice, path: str) -> Schema:
    return _described(_enumeration([data for data, _ in shape.pairs]), _doc(shape.name, shape.doc))


def _items(writer: _Writer, shape: Items, path: str) -> Schema:
    return {"type": "array", "items": writer.at(shape.item, f"{path}[]")}


def _places(writer: _Writer, shape: Places, path: str) -> Schema:
    parts = [writer.at(inner, f"{path}[{index}]") for index, inner in enumerate(shape.items)]
    same = all(part == parts[0] for part in parts)
    items: Schema = {"items": parts[0] if parts else {"type": "null"}} if same else {"prefixItems": parts}
    return {"type": "array", **items, "minItems": len(parts), "maxItems": len(parts)}


def _table(writer: _Writer, shape: Table, path: str) -> Schema:
    key = core(shape.key)
    names = {} if key is TEXT or isinstance(key, Anything) else {"propertyNames": _key(key, path)}
    return {"type": "object", "additionalProperties": writer.at(shape.value, f"{path}.*"), **names}


def _key(shape: Shape, path: str) -> Schema:
    if isinstance(shape, Choice):
        return _enumeration([key_text(data) for data, _ in shape.pairs])
    if isinstance(shape, Scalar) and shape.schema["type"] == "string":
        return dict(shape.schema)
    if shape is SCALARS[int]:
        return {"type": "string", "pattern": INTEGER}
    raise DefinitionError(
        f"{path}: keys of JSON are text; {words(shape, as_json=False)} has no JSON schema there"
    )


def _record(writer: _Writer, shape: Record, path: str) -> Schema:
    return writer.ref(shape, shape.name, lambda: writer.record(shape, path))


def _with_text(writer: _Writer, shape: Described, path: str) -> Schema:
    return _described(writer.at(shape.shape, path), shape.text)


def _alias(writer: _Writer, shape: Alias, path: str) -> Schema:
    name = getattr(shape.hint, "__name__", "") or str(shape.hint)
    return writer.ref(shape, name, lambda: writer.at(shape.shape, path))


def _one_of(writer: _Writer, shape: OneOf, path: str) -> Schema:
    return {"anyOf": [_member(writer, shape, member, path) for member in shape.declared]}


def _member(writer: _Writer, union: OneOf, member: Shape, path: str) -> Schema:
    record, tag = core(member), union.tag
    if tag is None or tag.own or not isinstance(record, Record):
        return writer.at(member, path)
    name = tag.of(record)
    found = writer.ref(
        record, record.name, lambda: writer.record(record, path, (tag.key, name)), f"{tag.key}={name}"
    )
    return _described(found, member.text if isinstance(member, Described) else "")


_WRITERS: Mapping[type, Callable[[_Writer, Any, str], Schema]] = {
    Scalar: _scalar,
    Anything: _anything,
    Opaque: _opaque,
    Choice: _choice,
    Items: _items,
    Places: _places,
    Table: _table,
    Record: _record,
    Described: _with_text,
    Alias: _alias,
    OneOf: _one_of,
}
