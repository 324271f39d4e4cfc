"""What settings there may be, as data: rules for values, grouped by name in sections and tables.

One description serves the file, the environment, Python values, the schema for editors and the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from attrs import NOTHING, Factory, fields, frozen

from ._suggest import nearest

__all__ = ["Leaf", "Rule", "Section", "Table", "is_code", "leaves", "make", "merged"]


_SAID = {"yes": "true", "on": "true", "no": "false", "off": "false"}


@frozen
class Rule:
    """What a value may be: in words, as a question, and as JSON Schema; None where only Python can say it."""

    expected: str
    accepts: Callable[[Any], bool]
    schema: Mapping[str, object] | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The values, where it is one of a few."""
        return tuple(cast("list[str]", (self.schema or {}).get("enum", ())))

    @property
    def is_text(self) -> bool:
        """Whether it is text, so that 5 is no number."""
        return (self.schema or {}).get("type") == "string"

    @property
    def is_list(self) -> bool:
        """Whether it is a list; a text is one of its words then."""
        return (self.schema or {}).get("type") == "array"

    def misfit(self, found: object) -> str:
        """Say what is wrong with *found*, and what to write."""
        from ._data.faults import shown  # not with this module, which every program loads

        told = "nothing" if found is None else shown(found)
        return f"expected {self.expected}, found {told}{self._advice(found)}"

    def _advice(self, found: object) -> str:
        if found is None:
            return "; write a value, or remove this for the default"
        if not isinstance(found, str):
            return "; put it in quotes" if self.is_text and self.accepts(str(found)) else ""
        near = nearest(found, self.choices) or self._meant(found)
        if near == found:
            return "; write it without quotes"
        return f"; did you mean {near}?" if near else ""

    def _meant(self, found: str) -> str | None:
        from ._yaml import value_of

        plain = _SAID.get(found.lower(), found.lstrip("0"))  # 014 is 12 to older readers of YAML
        return None if self.is_text or not self.accepts(value_of(plain)) else plain


@frozen
class Table:
    """Sections by names that *key* allows, at least *least*; each is the name *of* something."""

    key: Rule
    item: Section
    of: str = "a model"
    least: int = 0


@frozen
class Section:
    """Settings under one name: the fields of the attrs class *cls*. *variables* are names in the environment.

    A field without one in *variables* has the name of its path: ``FLOWLET_LOG_LEVEL`` is ``log.level``. A value
    in place of the section is taken for its field *short*. *meant* are fields by what others call them.
    """

    cls: type
    fields: Mapping[str, Rule | Section | Table]
    variables: Mapping[str, str] = Factory(dict[str, str])
    short: str | None = None
    meant: Mapping[str, str] = Factory(dict[str, str])

    @property
    def in_files(self) -> tuple[str, ...]:
        """The fields that a file may hold."""
        return tuple(name for name, kind in self.fields.items() if not is_code(kind))

    @property
    def required(self) -> tuple[str, ...]:
        """The fields that have no default."""
        return tuple(a.name for a in fields(self.cls) if a.default is NOTHING)


@frozen
class Leaf:
    """One value in a tree of sections: its path, its rule, its variable (None: only a file or code sets it)."""

    path: tuple[str, ...]
    rule: Rule
    variable: str | None

    @property
    def name(self) -> str:
        """The path as people write it."""
        return ".".join(self.path)


def leaves(section: Section, path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Every value of *section*; a name in a table is ``*``."""
    for name, kind in section.fields.items():
        here = (*path, name)
        if isinstance(kind, Rule):
            usual = "_".join(("FLOWLET", *here)).upper()
            variable = None if is_code(kind) or "*" in here else section.variables.get(name, usual)
            yield Leaf(here, kind, variable)
        elif isinstance(kind, Section):
            yield from leaves(kind, here)
        else:
            yield from leaves(kind.item, (*here, "*"))


def is_code(kind: Rule | Section | Table) -> bool:
    """Whether only Python can give such a value."""
    return isinstance(kind, Rule) and kind.schema is None


def merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Both together; *upper* counts where both say something."""
    both = {**lower, **upper}
    for name in lower.keys() & upper.keys():
        if isinstance(lower[name], dict) and isinstance(upper[name], dict):
            both[name] = merged(lower[name], upper[name])
    return both


def make(data: Mapping[str, Any], section: Section) -> Any:
    """Make the value of *section* that *data* describes; what is not there has its default."""
    return section.cls(**{name: _made(value, section.fields[name]) for name, value in data.items()})


def _made(value: Any, kind: Rule | Section | Table) -> Any:
    if isinstance(kind, Section):
        return make(value, kind)
    if isinstance(kind, Table):
        return {name: make(item, kind.item) for name, item in value.items()}
    if kind.is_list:
        return tuple(value.replace(",", " ").split() if isinstance(value, str) else value)
    return value
