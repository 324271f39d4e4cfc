"""``flowlet plugins``: what is installed, from where, and what is broken and why."""

from __future__ import annotations

from ..display._words import visible
from ..messages import JsonValue
from ..plugins import Listed, listed
from ..settings import process
from . import _codes
from ._shown import write_json


def list_plugins(as_json: bool) -> int:
    """Write all plugins that there are; the code says whether one is broken."""
    process.notices = ()  # what is broken is told below
    found = listed()
    broken = [one for one in found if one.fault is not None]
    if as_json:
        write_json({"ok": not broken, "plugins": [_as_data(one) for one in found]})
    else:
        _write(found)
    return _codes.USAGE if broken else _codes.OK


def _write(found: list[Listed]) -> None:
    rows = [(one.plugin.kind, one.plugin.name, one.source, one.plugin.target) for one in found]
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    for one, row in zip(found, rows, strict=True):
        print(visible("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()))
        if one.fault is not None:
            print(visible(process.redactor.redact(f"  broken: {one.fault}")))


def _as_data(one: Listed) -> JsonValue:
    plugin = one.plugin
    return {
        "kind": plugin.kind,
        "name": plugin.name,
        "from": one.source,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "target": plugin.target,
        "ok": one.fault is None,
        "error": None if one.fault is None else process.redactor.redact(one.fault),
    }
