"""Plugins of installed distributions: found by their entry points, held to what they require, imported when asked for."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

__all__ = ["GROUPS", "Kind", "Plugin", "entries", "misfit", "state_of_path"]

Kind = Literal["provider", "step", "middleware"]
GROUPS: dict[str, Kind] = {
    "flowlet.providers": "provider",
    "flowlet.steps": "step",
    "flowlet.middleware": "middleware",
}


@frozen
class Plugin:
    """Who a plugin is, and which distribution it comes from: none when it was registered by code.

    *target* is ``module:name`` in the distribution, or what was registered.
    """

    kind: Kind
    name: str
    distribution: str | None = None
    version: str | None = None
    target: str = ""

    @property
    def source(self) -> str | None:
        """The distribution and its version."""
        return None if self.distribution is None else f"{self.distribution} {self.version}"

    def __str__(self) -> str:
        source = "" if self.source is None else f" of {self.source}"
        return f"{self.kind} {self.name!r}{source}"


@frozen
class Entry:
    """An entry point of ours: the plugin that it names, and how to load that; *fault* says why it can't be."""

    plugin: Plugin
    distribution: Distribution
    point: EntryPoint | None = None
    fault: str | None = None

    def load(self) -> Any:
        """Import what the entry point names; whatever that raises is the plugin's fault."""
        assert self.point is not None
        return self.point.load()


def entries() -> Iterator[Entry]:
    """The entry points of ours, in the order of ``sys.path``; of two installations of one distribution the first."""
    from importlib.metadata import distributions  # not with this module, which every program loads

    seen: set[str] = set()
    for distribution in distributions():
        text = distribution.read_text("entry_points.txt") or ""
        kinds: list[Kind] = [kind for group, kind in GROUPS.items() if f"[{group}]" in text]
        name = _told(distribution, "Name") if kinds else ""
        if kinds and name not in seen:
            seen.add(name)
            yield from _entries_of(distribution, name, kinds[0])


def _entries_of(distribution: Distribution, name: str, kind: Kind) -> list[Entry]:
    """The entries of one distribution; for entry points that can't be read one of *kind* that says so."""
    try:
        source = name, distribution.version
        points: list[tuple[Kind, EntryPoint]] = [
            (GROUPS[point.group], point) for point in distribution.entry_points if point.group in GROUPS
        ]
    except Exception as exc:  # noqa: BLE001 -- told as a fault; other distributions go on
        fault = f"its entry points can't be read ({type(exc).__name__}: {exc})"
        return [Entry(Plugin(kind, "?", name, "?"), distribution, fault=fault)]
    return [Entry(Plugin(of, point.name, *source, point.value), distribution, point) for of, point in points]


def state_of_path() -> tuple[object, ...]:
    """What changes when distributions are installed or removed: the directories and when they changed."""
    return tuple((place, _changed(place or os.curdir)) for place in sys.path)


def _changed(place: str) -> int | None:
    try:
        return os.stat(place).st_mtime_ns  # noqa: PTH116 -- quicker than a Path, and made for every look-up
    except OSError:
        return None


def misfit(distribution: Distribution) -> str | None:
    """Say why *distribution* can't work with this Python and this flowlet, as its metadata tell; None when it can."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        python = SpecifierSet(_told(distribution, "Requires-Python"))
        needs = [Requirement(line) for line in distribution.requires or ()]
    except (InvalidRequirement, InvalidSpecifier) as exc:
        return f"its requirements can't be read: {str(exc).partition(chr(10))[0]}"
    if not python.contains(platform.python_version(), prereleases=True):
        return f"it needs Python {python}, this is {platform.python_version()}"
    ours = _own_version()
    for need in needs:
        if need.name.lower() != "flowlet" or (need.marker and not need.marker.evaluate({"extra": ""})):
            continue
        if ours is not None and not need.specifier.contains(ours, prereleases=True):
            return f"it needs flowlet {need.specifier}, this is {ours}"
    return None


def _told(distribution: Distribution, field: str) -> str:
    """What its metadata tell in *field*, empty where they don't: from Python 3.12 on ``[]`` would warn of that."""
    values = distribution.metadata.get_all(field)
    return str(values[0]) if values else ""


def _own_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flowlet")
    except PackageNotFoundError:  # imported out of a folder
        return None
