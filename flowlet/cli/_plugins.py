"""``flowlet plugins``: what is installed, from where, and what is broken and why."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from .._entry_points import Kind, Plugin
from .._plugins import Plugins, middleware_named, provider_named
from ..display._words import visible
from ..errors import PluginError
from ..llm import Builtin
from ..messages import JsonValue
from ..plugins import get_step
from ..settings import process
from . import _codes
from ._shown import write_json

_KINDS: tuple[Kind, ...] = ("provider", "step", "middleware")
_GETS: dict[Kind, Callable[[str], object]] = {
    "provider": provider_named,
    "step": get_step,
    "middleware": middleware_named,
}


def list_plugins(as_json: bool) -> int:
    """Write all plugins that there are; the code says whether one is broken."""
    process.notices = ()  # what is broken is told below
    found = _listed()
    broken = [one for one in found if one.fault is not None]
    if as_json:
        write_json({"ok": not broken, "plugins": [_as_data(one) for one in found]})
    else:
        _write(found)
    return _codes.USAGE if broken else _codes.OK


def _write(found: list[_Listed]) -> None:
    rows = [(one.plugin.kind, one.plugin.name, one.source, one.plugin.target) for one in found]
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    for one, row in zip(found, rows, strict=True):
        print(visible("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()))
        if one.fault is not None:
            print(visible(process.redactor.redact(f"  broken: {one.fault}")))


def _as_data(one: _Listed) -> JsonValue:
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


@frozen
class _Listed:
    """A plugin that there is: who it is, where it comes from, and why it can't be used, if it can't."""

    plugin: Plugin
    source: str
    fault: str | None = None


def _listed() -> list[_Listed]:
    """All providers, steps and middleware that have a name, each loaded to see whether it can be used."""
    found = [_Listed(Plugin("provider", name, target="flowlet"), "built in") for name in Builtin.names]
    found += [
        _Listed(Plugin("provider", name, target=type(one).__qualname__), "registered")
        for name, one in process.settings.providers.items()
    ]
    found += [_Listed(one.plugin, "registered") for one in process.registered.values()]
    taken = {(one.plugin.kind, one.plugin.name) for one in found}
    for key, entries in process.of(Plugins).known().items():
        plugin = entries[0].plugin
        fault = "what is built in or registered has this name" if key in taken else _fault(plugin)
        found += [_Listed(entry.plugin, str(entry.plugin.source), fault) for entry in entries]
    return sorted(found, key=lambda one: (_KINDS.index(one.plugin.kind), one.plugin.name))


def _fault(plugin: Plugin) -> str | None:
    try:
        _GETS[plugin.kind](plugin.name)
    except PluginError as exc:
        return str(exc).removeprefix(f"{plugin} can't be used: ")
    return None
