"""Sections as JSON Schema, for editors, with what the docstrings of their classes say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import cleandoc
from typing import Any

from ._sections import Rule, Section, Table

__all__ = ["schema_of", "told"]


def schema_of(kind: Rule | Section | Table) -> dict[str, Any]:
    """The JSON Schema of what *kind* allows in a file."""
    if isinstance(kind, Rule):
        return dict(kind.schema or {})
    if isinstance(kind, Table):
        least = (
            {"type": "object", "minProperties": kind.least} if kind.least else {"type": ["object", "null"]}
        )
        key, item = dict(kind.key.schema or {}), schema_of(kind.item)
        return {**least, "propertyNames": key, "additionalProperties": item}
    whole = _object(kind)
    return whole if kind.short is None else {"anyOf": [schema_of(kind.fields[kind.short]), whole]}


def told(cls: type) -> Mapping[str, str]:
    """What the docstring of *cls* says of its attributes."""
    _, _, text = cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", said).replace("``", "`") for name, said in found}


def _object(section: Section) -> dict[str, Any]:
    said = told(section.cls)
    names = section.in_files
    return {
        "type": ["object", "null"],
        "properties": {
            name: {"description": said[name], **schema_of(section.fields[name])} for name in names
        },
        "required": list(section.required),
        "additionalProperties": False,
    }
