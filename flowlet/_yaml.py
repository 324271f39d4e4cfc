"""Reads YAML 1.2 as a tree of plain data with the place of every part; the only place that knows ruamel.yaml.

A safe subset: one document, no tags, no aliases, keys are text and appear once, at most 20 levels. Plain
scalars are those of the core schema (``no`` is text), but a number with a leading zero (``014``), which YAML
1.1 reads as another one, is text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import Factory, frozen

from ._source import Fault, Place, Source
from .messages import JsonValue

__all__ = ["Node", "parse", "value_of"]

DEPTH = 20
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBERS: tuple[tuple[re.Pattern[str], Callable[[str], int | float]], ...] = (
    (re.compile(r"[-+]?(0|[1-9][0-9]*)"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text, 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text, 16)),
    (re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
)

Data = None | bool | int | float | str | tuple["Node", ...] | dict[str, "Node"]


@frozen
class Node:
    """A part of a YAML text, and its place: *data*, with the places of its *keys* where it is a mapping.

    *text* is a scalar as it was written, without its quotes; None in lists and mappings. *last* is the line
    that it ends on.
    """

    data: Data
    place: Place
    text: str | None = None
    keys: Mapping[str, Place] = Factory(dict[str, Place])
    last: int = 0

    def part(self, start: int, width: int) -> Place:
        """The place of *width* characters of the text from *start*; of all of it where they can't be found."""
        text, source = self.text or "", self.place.source
        sought = text[start : start + width]
        before = text.count(sought, 0, start) if sought else 0
        for line in range(self.place.line, min(self.last, len(source.lines)) + 1) if sought else ():
            column = self.place.column - 1 if line == self.place.line else 0
            while (column := source.lines[line - 1].find(sought, column)) >= 0:
                if not before:
                    return source.place(line - 1, column, width)
                before -= 1
                column += width
        return self.place

    @property
    def parts(self) -> Mapping[str, Node]:
        """The values of a mapping by their keys; nothing else has any."""
        return self.data if isinstance(self.data, dict) else {}

    def plain(self) -> JsonValue:
        """The data without the places."""
        if isinstance(self.data, dict):
            return {key: node.plain() for key, node in self.data.items()}
        return [node.plain() for node in self.data] if isinstance(self.data, tuple) else self.data


def value_of(text: str) -> bool | int | float | str | None:
    """What *text* means as a plain scalar."""
    if text in _WORDS:
        return _WORDS[text]
    for pattern, convert in _NUMBERS:
        if pattern.fullmatch(text):
            try:
                return convert(text)
            except ValueError:  # more digits than Python reads
                return text
    return text


def parse(source: Source, faults: list[Fault]) -> Node | None:
    """Read *source*; what is wrong is added to *faults*. None where it holds nothing, or can't be read."""
    reader = _Reader(source, faults)
    try:
        return reader.document()
    except _Unreadable as exc:
        faults.append(exc.fault)
    except Exception as exc:  # noqa: BLE001 -- ruamel lets ValueError and others out of its depths
        faults.append(reader.fault_of(exc))
    return None


class _Unreadable(Exception):
    """What comes after *fault* can't be read."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


class _Reader:
    """Builds nodes out of events, which come one by one: what is too deep is not even scanned."""

    def __init__(self, source: Source, faults: list[Fault]) -> None:
        self.source = source
        self.faults = faults
        self.place = source.place(0, 0)
        self.events = _events(source.text)

    def next(self) -> tuple[str, Any]:
        """The next event, behind its kind; ``place`` is where it is."""
        event = next(self.events)
        start, end = event.start_mark, event.end_mark
        width = end.column - start.column if start.line == end.line else 1
        self.place = self.source.place(start.line, start.column, width)
        return type(event).__name__.removesuffix("Event"), event

    def fault(self, message: str) -> None:
        """Note what is wrong with the last event."""
        self.faults.append(Fault(self.place, message))

    def document(self) -> Node | None:
        """The one document."""
        self.next()
        kind, event = self.next()
        if kind == "StreamEnd":
            return None
        if event.version not in (None, (1, 2)):
            self.fault("expected YAML 1.2; remove the line that asks for another version")
        found = self.node(0)
        self.next()
        if self.next()[0] == "DocumentStart":
            self.fault('expected one document; remove this "---" and what follows')
        return found

    def node(self, depth: int) -> Node | None:
        """The node that begins with the next event, or None where a list or a mapping ends."""
        kind, event = self.next()
        place = self.place
        if kind in ("SequenceEnd", "MappingEnd"):
            return None
        if depth > DEPTH:
            raise _Unreadable(Fault(place, f"nested too deep; expected at most {DEPTH} levels"))
        if kind == "Alias":
            self.fault(f"an alias (*{event.anchor}) is not allowed; write the value out")
            return Node(None, place)
        if event.tag is not None:
            self.fault("a tag (!...) is not allowed; remove it, a value's type is known from its name")
        if kind == "Scalar":
            data = value_of(event.value) if event.style is None else event.value
            return Node(data, place, event.value, last=event.end_mark.line + 1)
        if kind == "SequenceStart":
            return Node(tuple(iter(lambda: self.node(depth + 1), None)), place)
        return self.mapping(place, depth)

    def mapping(self, place: Place, depth: int) -> Node:
        """The entries of a mapping; of those with the same key, the first."""
        data: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        while (key := self.node(depth + 1)) is not None:
            value = self.node(depth + 1)
            if key.text is None:
                self.faults.append(Fault(key.place, "expected text as a key, found a list or a mapping"))
            elif key.text in data:
                line = keys[key.text].line
                self.faults.append(
                    Fault(key.place, f"this is set on line {line} already; remove one of the two")
                )
            elif value is not None:
                data[key.text], keys[key.text] = value, key.place
        return Node(data, place, None, keys)

    def fault_of(self, exc: Exception) -> Fault:
        """What the parser could not read, and where that is, or where it began."""
        problem = str(getattr(exc, "problem", ""))
        opened, advice = next(
            ((o, a) for text, o, a in _ADVICE if text in problem), (False, _OTHER + problem)
        )
        mark = getattr(exc, "context_mark" if opened else "problem_mark", None)
        if mark is not None:
            before: str = self.source.lines[int(mark.line)][: int(mark.column)].rstrip()
            if "<block end>" in problem and before.endswith(("}", "]")):
                advice = _AFTER
            return Fault(self.source.place(mark.line, mark.column), advice)
        position = getattr(exc, "position", None)
        if isinstance(position, int):
            return Fault(self.source.place_at(position), _CONTROL)
        return Fault(self.place, _OTHER + "what follows can't be read")


def _events(text: str) -> Iterator[Any]:
    from ruamel.yaml import YAML

    reader: Any = YAML(typ="safe", pure=True)
    return iter(reader.parse(text))


_OTHER = "expected YAML; "
_CONTROL = "found a control character; remove it, or save the file as plain text"
_UNCLOSED = (
    "this bracket is not closed, or a comma is missing in it; expected a ] or } for it "
    "(a text in it that holds brackets goes in quotes)"
)
_AFTER = "found what can't follow the bracket; put a text that begins with { or [ in quotes, all of it"
_COLON = (
    'found a ":" that can\'t stand here; begin this line where those around it begin, see that the line above '
    'has a ":" and no open quote, or put a text with a ":" in quotes'
)
_ADVICE = (  # a part of ruamel's words, whether the fault is where the thing begins, and ours
    (
        "mapping values are not allowed",
        False,
        _COLON,
    ),
    (
        "could not find expected ':'",
        True,
        'expected "name: value"; put a ":" and a space behind the name',
    ),
    (
        "<block end>",
        False,
        "found what does not fit the lines above; begin the names of one group in the same column",
    ),
    ("character '\\t'", False, "found a tab; indent with spaces"),
    ("cannot start any token", False, "found a character that can't begin a value; put the value in quotes"),
    (
        "unexpected end of stream",
        True,
        "this quote is not closed; expected the same quote at the end of the text",
    ),
    ("document separator", True, "this quote is not closed; expected the same quote at the end of the text"),
    ("expected ',' or", True, _UNCLOSED),
    ("<stream end>", True, _UNCLOSED),
    ("escape character", False, "found an unknown escape; write \\\\ for a backslash, or use single quotes"),
    ("the node content", False, "expected a value before this; a bracket may be of the wrong kind"),
    ("incompatible YAML", False, "expected YAML 1.2; remove the line that asks for another version"),
)
