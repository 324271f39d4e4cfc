"""Values in a workflow's file: data, references such as ``{outline}``, and texts and collections with references in them.

Each has its ``references``, says by ``hint`` what it will be, and is made by ``of`` when the values of the names
are known. What a reference stands for is put in once, and never looked through for references again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from attrs import field, frozen

from .._codec import from_json
from .._source import Fault, Place
from .._template import Template
from .._yaml import Node
from ..messages import JsonValue
from ._types import either, list_of, mapping_of

__all__ = [
    "Collection",
    "Constant",
    "Reference",
    "Text",
    "Value",
    "collected",
    "misused",
    "references_in",
    "value_in",
]

Hints = Mapping[str, Any]
Scope = Mapping[str, Any]
_NAME = r"[^\W\d]\w*"
_LIKE_A_REFERENCE = re.compile(  # {topic.title}, {inputs.topic}, { topic }, {topic!r}, {{ topic }}
    rf"(?<!\{{)(?:\{{\{{\s+(?P<doubled>{_NAME})\s+\}}\}}"
    rf"|\{{\s*(?:(?:inputs|steps)\.)?(?P<name>{_NAME})(?:\.\w+|\[[^\[\]{{}}]*\])*(?:!\w)?\s*\}})(?!\}})"
)


@frozen
class Reference:
    """The value of an input, of a step, or the item; *in_text* says that it becomes a part of a text."""

    name: str
    place: Place = field(eq=False)
    in_text: bool = field(default=False, eq=False)

    @property
    def references(self) -> tuple[Reference, ...]:
        """Itself."""
        return (self,)

    def hint(self, hints: Hints) -> Any:
        """The hint of what it stands for."""
        return hints.get(self.name, Any)

    def of(self, scope: Scope) -> Any:
        """What it stands for, as it is."""
        return scope[self.name]


@frozen
class Constant:
    """Data as it is written, read as *taken* says."""

    data: JsonValue
    taken: Any = Any
    references: tuple[Reference, ...] = ()

    def hint(self, hints: Hints) -> Any:
        """The hint of the data, as far as it is simple."""
        return _hint_of(self.data) if self.taken is Any else self.taken

    def of(self, scope: Scope) -> Any:
        """The data, made anew, so that who changes it changes nothing here."""
        return from_json(deepcopy(self.data), self.taken)


@frozen
class Text:
    """A text with references in it."""

    template: Template
    references: tuple[Reference, ...]

    def hint(self, hints: Hints) -> Any:
        """Text, whatever is put in."""
        return str

    def of(self, scope: Scope) -> str:
        """The text with the values put in."""
        return self.template.render(scope)


@frozen
class Collection:
    """A list, or a mapping by *keys*, with references in it."""

    parts: tuple[Value, ...]
    keys: tuple[str, ...] | None

    @property
    def references(self) -> tuple[Reference, ...]:
        """Those of its parts."""
        return tuple(reference for part in self.parts for reference in part.references)

    def hint(self, hints: Hints) -> Any:
        """A list of all that its parts may be, or a mapping of its keys."""
        found = [part.hint(hints) for part in self.parts]
        return (
            list_of(either(*found))
            if self.keys is None
            else mapping_of(dict(zip(self.keys, found, strict=True)))
        )

    def of(self, scope: Scope) -> Any:
        """The list or the mapping with the values put in."""
        values = [part.of(scope) for part in self.parts]
        return values if self.keys is None else dict(zip(self.keys, values, strict=True))


Value = Reference | Constant | Text | Collection


def value_in(node: Node) -> Value:
    """The value that *node* writes. ``{name}`` without quotes, a mapping to YAML, is a reference too."""
    data = node.data
    if isinstance(data, str):
        return _text_in(node)
    if isinstance(data, tuple):
        return collected(tuple(map(value_in, data)), None)
    if not isinstance(data, dict):
        return Constant(data)
    name = _bare(node)
    if name is not None:
        return Reference(name, node.keys[name])
    return collected(tuple(map(value_in, data.values())), tuple(data))


def _text_in(node: Node) -> Reference | Constant | Text:
    """The value that the text of *node* writes: a reference where it is that alone."""
    template = Template.parse(node.text or "")
    if len(template.parts) == 3 and template.parts[::2] == ("", ""):
        return Reference(template.names[0], node.place)
    references = references_in(node, template)
    return Text(template, references) if references else Constant(template.render({}))


def references_in(node: Node, template: Template) -> tuple[Reference, ...]:
    """What *template*, the text of *node*, refers to."""
    text = node.text or ""
    places = {name: node.part(text.find(f"{{{name}}}"), len(name) + 2) for name in template.names}
    return tuple(Reference(name, place, in_text=True) for name, place in places.items())


def misused(node: Node, known: Mapping[str, object]) -> Iterator[Fault]:
    """What in the texts of *node* looks like a reference to a *known* name, and is none."""
    if isinstance(node.data, str):
        for found in _LIKE_A_REFERENCE.finditer(node.data):
            name = found["doubled"] or found["name"]
            if name in known and found[0] != f"{{{name}}}":
                yield Fault(node.part(found.start(), len(found[0])), _advice(found[0], name))
    elif isinstance(node.data, tuple | dict):
        for inner in node.data.values() if isinstance(node.data, dict) else node.data:
            yield from misused(inner, known)


def _advice(text: str, name: str) -> str:
    if text.strip("{ }") in (name, f"inputs.{name}", f"steps.{name}"):
        return f"{text} is text, no reference; write {{{name}}}"
    return (
        f"{text} is text: only whole values are referred to, as {{{name}}}. "
        f'Take the part in a step of its own: use: module:function, with: {{{name}: "{{{name}}}"}}'
    )


def _bare(node: Node) -> str | None:
    """The name in ``{name}``, which YAML reads as a mapping of that name to nothing."""
    if not isinstance(node.data, dict) or len(node.data) != 1:
        return None
    ((name, value),) = node.data.items()
    line = node.place.source.lines[node.place.line - 1]
    opened = line[node.place.column - 1 : node.place.column] == "{"
    return name if opened and value.text == "" and name.isidentifier() else None


def collected(parts: tuple[Value, ...], keys: tuple[str, ...] | None) -> Value:
    """A list of *parts*, or a mapping by *keys*; data where nothing in it is a reference."""
    if any(part.references for part in parts):
        return Collection(parts, keys)
    return Constant(Collection(parts, keys).of({}))


def _hint_of(data: JsonValue) -> Any:
    if isinstance(data, list):
        return list_of(either(*map(_hint_of, data)) if data else Any)
    return dict[str, Any] if isinstance(data, dict) else type(data)
