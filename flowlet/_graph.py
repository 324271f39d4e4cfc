"""Graphs of names, each with those that it needs: their circles, the stages to do them in, a drawing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

__all__ = ["circles", "drawn", "mermaid", "stages"]

Needs = Mapping[str, Collection[str]]
_MOST = 50
_SHOWN = 12
_WORDS = frozenset(  # of Mermaid; as the name of a box they break the drawing
    [
        "call",
        "class",
        "classDef",
        "click",
        "default",
        "direction",
        "end",
        "flowchart",
        "graph",
        "href",
        "interpolate",
        "linkStyle",
        "style",
        "subgraph",
    ]
)


def circles(needs: Needs) -> list[tuple[str, ...]]:
    """Circles of names that wait for one another, at most 50, no two with a name in common.

    Each begins and ends with the one of its names that comes first in *needs*, and each name in it is
    needed by the next.
    """
    left = {name: list(needed) for name, needed in needs.items()}
    found: list[tuple[str, ...]] = []
    while len(found) < _MOST:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as exc:
            found.append(_turned(exc.args[1][1:], list(needs)))
            for name in found[-1]:
                left.pop(name, None)
        else:
            break
    return found


def stages(needs: Needs) -> list[list[str]]:
    """What can be done at once, stage after stage; within a stage in the order of *needs*.

    Raises:
        CycleError: names wait for one another.
    """
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    order = {name: at for at, name in enumerate(needs)}
    found: list[list[str]] = []
    while sorter.is_active():
        ready = sorter.get_ready()
        sorter.done(*ready)
        found.append(sorted((name for name in ready if name in order), key=order.__getitem__))
    return [stage for stage in found if stage]


def drawn(circle: Sequence[str]) -> str:
    """A circle in one line: ``a → b → a``; of a long one its beginning and its end."""
    return " → ".join(circle if len(circle) <= _SHOWN else (*circle[: _SHOWN // 2], "…", *circle[-2:]))


def mermaid(boxes: Mapping[str, str], arrows: Iterable[tuple[str, str, str]]) -> str:
    """Draw *boxes*, by name with their labels, and *arrows*: from, to, and what is written on it.

    A label in parentheses makes a rounded box.
    """
    lines = ["flowchart TD"]
    lines += [f"    {_id(name)}{_box(label)}" for name, label in boxes.items()]
    for start, end, label in arrows:
        arrow = f"-->|{_quoted(label)}|" if label else "-->"
        lines.append(f"    {_id(start)} {arrow} {_id(end)}")
    return "\n".join(lines)


def _turned(circle: list[str], order: list[str]) -> tuple[str, ...]:
    at = circle.index(min(circle, key=order.index))
    return (*circle[at:], *circle[:at], circle[at])


def _id(name: str) -> str:
    return f"{name}_" if name in _WORDS else name


def _box(label: str) -> str:
    if label.startswith("(") and label.endswith(")"):
        return f"([{_quoted(label[1:-1])}])"
    return f"[{_quoted(label)}]"


def _quoted(label: str) -> str:
    return '"' + label.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;") + '"'
