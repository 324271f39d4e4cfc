"""What readers and editors are told of the settings, made from the settings themselves.

``python -m flowlet._settings_pages`` writes ``flowlet.schema.json`` beside this file and prints the table of
``docs/settings.md``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import NOTHING, fields_dict

from ._section_schema import schema_of, told
from ._sections import Rule, Section, is_code, leaves
from ._settings_rules import SECTION

__all__ = ["SCHEMA", "schema", "table"]

SCHEMA = Path(__file__).with_name("flowlet.schema.json")
_HEAD = "| setting | in the environment | default | may be | what it does |\n|---|---|---|---|---|"


def table() -> str:
    """The table of all settings, in Markdown."""
    return "\n".join((_HEAD, *_rows(SECTION, ())))


def schema() -> dict[str, Any]:
    """The JSON Schema of ``flowlet.yaml``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of flowlet (flowlet.yaml)",
        **schema_of(SECTION),
    }


def _rows(section: Section, path: tuple[str, ...]) -> list[str]:
    variables = {leaf.path: leaf.variable for leaf in leaves(SECTION)}
    rows: list[str] = []
    for name, kind in section.fields.items():
        here = (*path, name)
        if isinstance(kind, Rule):
            variable = variables[here]
            environment = "" if variable is None else f"`{variable}`"
            only = " (in Python only)" if is_code(kind) else ""
            cells = (
                f"`{'.'.join(here)}`",
                environment,
                _default(section.cls, name),
                kind.expected + only,
                told(section.cls)[name],
            )
            rows.append(f"| {' | '.join(cells)} |")
        else:
            inner, below = (kind, here) if isinstance(kind, Section) else (kind.item, (*here, "*"))
            rows += _rows(inner, below)
    return rows


def _default(cls: type, name: str) -> str:
    default = fields_dict(cls)[name].default
    if default is NOTHING:
        return "must be set"
    if default is None or default in ((), {}):
        return ""
    return f"`{f'{default:g}' if isinstance(default, float) else str(default).lower()}`"


def _text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(_text(), encoding="utf-8")
    print(table())
