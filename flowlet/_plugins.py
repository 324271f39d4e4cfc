"""Plugins by kind and name: those that were registered, then those that are installed. Each is looked up when asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from attrs import frozen

from ._entry_points import Entry, Kind, Plugin, entries, misfit, state_of_path
from ._outside import from_outside
from ._raised import describe
from ._suggest import nearest
from .context import current
from .errors import DefinitionError, PluginError
from .events import PluginFailed, RunInfo
from .settings import process, wrong

__all__ = ["Found", "Plugins", "find", "installed", "register", "tell", "unknown"]

_REGISTERS = {"provider": "provider", "step": "fn", "middleware": "fn"}


@frozen(eq=False)
class Found:
    """A plugin and what stands for it: a function, a class, an object."""

    plugin: Plugin
    value: Any


class Plugins:
    """The installed plugins, as far as anybody asked for them.

    Entry points are read again when the directories of ``sys.path`` have changed. A plugin is loaded once; one
    that is broken is told once, and is tried again after such a change. Each change here is one assignment.
    """

    def __init__(self) -> None:
        self._path: tuple[object, ...] | None = None
        self._entries: dict[tuple[Kind, str], list[Entry]] = {}
        self._loaded: dict[tuple[Kind, str], Found] = {}
        self._broken: dict[tuple[Kind, str], str] = {}
        self.objects: dict[Found, Any] = {}
        """Middleware and providers that were asked for by name, as they are used."""

    def known(self) -> dict[tuple[Kind, str], list[Entry]]:
        """The entry points by kind and name."""
        path = state_of_path()
        if path != self._path:
            found: dict[tuple[Kind, str], list[Entry]] = {}
            for entry in entries():
                found.setdefault((entry.plugin.kind, entry.plugin.name), []).append(entry)
            self._broken = {}
            self._entries = found
            self._path = path
        return self._entries

    def get(self, kind: Kind, name: str) -> Found | None:
        """The installed plugin *name*, loaded; None when there is none.

        Raises:
            PluginError: it is broken.
        """
        key = kind, name
        if key in self._broken:
            self.known()  # it may have been installed anew
        if key in self._broken:
            raise PluginError(self._broken[key])
        found = self._loaded.get(key)
        if found is not None:
            return found
        candidates = self.known().get(key)
        return None if candidates is None else self._loaded.setdefault(key, self._load(candidates))

    def _load(self, candidates: Sequence[Entry]) -> Found:
        first = candidates[0]
        if len(candidates) > 1:
            sources = " and ".join(str(entry.plugin.source) for entry in candidates)
            raise self.set_aside(first.plugin, f"{sources} both have it; uninstall one of them")
        reason = first.fault or misfit(first.distribution)
        if reason is not None:
            raise self.set_aside(first.plugin, f"{reason}; install a version that fits")
        try:
            return Found(first.plugin, first.load())
        except BaseException as exc:
            if from_outside(exc):
                raise
            reason = f"{first.plugin.target} can't be imported: {describe(exc)}"
            raise self.set_aside(first.plugin, reason) from exc

    def set_aside(self, plugin: Plugin, reason: str) -> PluginError:
        """Tell that *plugin* can't be used, and remember it; give the error."""
        message = self._broken[plugin.kind, plugin.name] = f"{plugin} can't be used: {reason}"
        tell(plugin, reason)
        return PluginError(message)

    def made(self, found: Found) -> Any:
        """What a plugin is used as: an object of its class, or what it is itself.

        Raises:
            PluginError: it can't be made.
        """
        if not isinstance(found.value, type):
            return found.value
        try:
            return found.value()
        except BaseException as exc:
            if from_outside(exc):
                raise
            raise self.set_aside(found.plugin, f"it can't be made: {describe(exc)}") from exc


def tell(plugin: Plugin, error: str, info: RunInfo | None = None) -> None:
    """Tell that *plugin* failed, in the run of *info* or around this place."""
    frame = current.get()
    if info is None and frame is not None and frame.run is not None:
        info = frame.run.info
    told = f"{plugin.kind} {plugin.name}"
    process.notice(PluginFailed(info, time.time(), told, error, plugin.distribution, plugin.version))


def register(kind: Kind, name: str, value: object) -> None:
    """Make *value* known as *name*, in place of what had that name.

    Raises:
        DefinitionError: it can't be a name.
    """
    if not isinstance(name, str) or not name.strip() or ":" in name:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DefinitionError(
            f"{name!r} can't name a {kind}: expected text without a colon, since module:name is a place in code"
        )
    place = getattr(value, "__qualname__", type(value).__qualname__)
    found = Found(Plugin(kind, name, target=f"{getattr(value, '__module__', '')}:{place}"), value)
    with process.lock:
        process.registered = {**process.registered, (kind, name): found}


def find(kind: Kind, name: str) -> Found | None:
    """The plugin *name*: what was registered, or else what is installed; None when there is neither.

    Raises:
        PluginError: it is broken.
    """
    registered: Found | None = process.registered.get((kind, name))
    return process.of(Plugins).get(kind, name) if registered is None else registered


def middleware_named(name: str) -> Callable[..., Any]:
    """The function that the middleware *name* is; of a class one object is made.

    Raises:
        ConfigError: there is no such middleware.
        PluginError: it is broken.
    """
    found = find("middleware", name)
    if found is None:
        raise wrong("middleware", name, unknown("middleware", name))
    objects = process.of(Plugins).objects
    fn: Callable[..., Any] | None = objects.get(found)
    return objects.setdefault(found, _middleware(found)) if fn is None else fn


def _middleware(found: Found) -> Callable[..., Any]:
    plugins = process.of(Plugins)
    fn = plugins.made(found)
    if not callable(fn):
        raise plugins.set_aside(found.plugin, f"expected a function, found {type(fn).__name__}")
    return cast("Callable[..., Any]", fn)


def middleware_known(fn: Callable[..., Any]) -> Plugin | None:
    """The plugin that *fn* stands for, if it was ever asked for by its name."""
    objects = process.of(Plugins).objects
    of_kind = (
        (found.plugin, value) for found, value in list(objects.items()) if found.plugin.kind == "middleware"
    )
    return next((plugin for plugin, value in of_kind if value is fn), None)


def provider_named(name: str) -> Any:
    """The provider that is installed as *name*, of a class one object; None when there is none.

    Raises:
        PluginError: it is broken.
    """
    found = find("provider", name)
    if found is None:
        return None
    objects = process.of(Plugins).objects
    provider = objects.get(found)
    return objects.setdefault(found, _provider(found)) if provider is None else provider


def _provider(found: Found) -> Any:
    plugins = process.of(Plugins)
    provider = plugins.made(found)
    if not (hasattr(provider, "complete") or hasattr(provider, "acomplete")):
        expected = "expected an object, or a class, with complete(request), acomplete(request) or both"
        raise plugins.set_aside(found.plugin, f"{expected}; found {type(provider).__name__}")
    return provider


def provider_known(name: str) -> Plugin:
    """Who the provider *name* is."""
    objects = process.of(Plugins).objects
    known = (found.plugin for found in list(objects) if found.plugin.kind == "provider")
    own = name in process.settings.providers
    return next((p for p in known if p.name == name and not own), Plugin("provider", name))


def installed(kind: Kind) -> list[str]:
    """The names of all plugins of *kind*, registered or installed, in order."""
    names = {name for of, name in (*process.registered, *process.of(Plugins).known()) if of == kind}
    return sorted(names)


def unknown(kind: Kind, name: str) -> str:
    """Say that there is no such plugin, and what there is."""
    names = installed(kind)
    near = nearest(name, names)
    meant = f"; did you mean {near!r}?" if near else ""
    there_are = f"there are: {', '.join(names)}" if names else "there is none yet"
    return (
        f"there is no {kind} {name!r}{meant} ({there_are}). Make it known with "
        f"flowlet.register_{kind}({name!r}, {_REGISTERS[kind]}), or install the package that brings it"
    )
