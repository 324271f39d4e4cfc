"""``flowlet check``: whether the settings can be used, what holds, and from where each value comes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .._engine._middleware import functions
from .._sections import is_code, leaves
from .._settings_rules import SECTION
from ..display._words import visible
from ..errors import ConfigError, PluginError
from ..llm import resolve
from ..messages import JsonValue
from ..settings import Settings, process, sources
from . import _codes
from ._shown import write_json


def check_settings(as_json: bool) -> int:
    """Write what holds: what file and environment set, then the defaults.

    Raises:
        ConfigError: naming everything that is wrong, with its place.
    """
    told = sources()
    names = {name for name, _, _ in told}
    rows = [*told, *((n, v, "default") for n, v in _defaults() if n not in names)]
    if as_json:
        settings: list[JsonValue] = [{"name": n, "value": _plain(v), "from": s} for n, v, s in rows]
        write_json({"ok": True, "settings": settings, "notes": list(_notes())})
        return _codes.OK
    notes = list(_notes())
    print("ok: the settings can be read" + ("; see the notes below\n" if notes else "\n"))
    _write_table([(n, visible(str(_plain(v))), s) for n, v, s in rows if v is not None])
    print("\n  not set:", ", ".join(name for name, value, _ in rows if value is None))
    for note in notes:
        print(f"\nnote: {note}")
    return _codes.OK


def _write_table(rows: list[tuple[str, str, str]]) -> None:
    first, second = (max(len(row[at]) for row in rows) for at in (0, 1))
    for name, value, source in rows:
        print(f"  {name:{first}}  {value:{second}}  {source}")


def _plain(value: object) -> JsonValue:
    """A setting as JSON has it, without secrets."""
    return value if isinstance(value, int | float | None) else process.redactor.redact(str(value))


def _defaults() -> Iterator[tuple[str, object]]:
    for leaf in leaves(SECTION):
        if not is_code(leaf.rule) and "*" not in leaf.path:
            value: object = Settings()
            for name in leaf.path:
                value = getattr(value, name, None)  # a group that is not set has no parts
            yield leaf.name, value


def _notes() -> Iterator[str]:
    """What is no fault, since code may still provide it, and yet is often forgotten."""
    if not os.environ.get("FLOWLET_CONFIG") and not Path("flowlet.yaml").exists():
        yield f"there is no flowlet.yaml in {Path.cwd()}, so only the environment and the defaults hold"
    try:
        resolve(None)
    except (ConfigError, PluginError) as exc:
        yield str(exc)
    try:
        functions(process.settings.middleware)
    except (ConfigError, PluginError) as exc:
        yield str(exc)
