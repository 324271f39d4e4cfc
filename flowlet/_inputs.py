"""What the inputs of a run may hold, whatever their hints: size, depth, control characters.

Checked where a run begins that no other one asked for: what comes from outside comes in there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._data.checking import walked
from ._data.faults import Walk
from ._data.parts import parts_of
from ._data.shapes import ANYTHING, Shape
from ._signature import Signature, signature_of
from .errors import InputError

if TYPE_CHECKING:
    from ._catalogue import InputLimits

__all__ = ["check_limits"]

_CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f]")
"""Of ASCII, all but tab, line feed, vertical tab, form feed and carriage return, which texts do have."""


def check_limits(
    fn: Callable[..., object], args: Sequence[Any], kwargs: Mapping[str, Any], limits: InputLimits
) -> None:
    """Refuse arguments of *fn* that pass *limits*.

    Raises:
        InputError: every text with a control character, and what is too large or nested too deep, is named.
    """
    signature = signature_of(fn, called=True)
    look = _Look(limits)
    faults = [
        fault
        for name, value in _named(signature, args, kwargs)
        for fault in walked(look.at, Walk(name, json=False), ANYTHING, value)[1]
    ]
    if look.size > limits.size:
        faults.append(
            f"expected at most {limits.size:,} characters in all, found {look.size:,}; "
            "raise the setting inputs.size to allow more"
        )
    if faults:
        raise InputError(f"{signature} can't take these arguments", tuple(faults))


def _named(
    signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, object]]:
    names = [parameter.name for parameter in signature.positional]
    for number, value in enumerate(args):
        yield names[number] if number < len(names) else f"args[{number}]", value
    yield from kwargs.items()


class _Look:
    """A look through values: the *size* of their texts so far."""

    def __init__(self, limits: InputLimits) -> None:
        self.size = 0
        self._limits = limits
        self._seen: set[int] = set()

    def at(self, walk: Walk, _: Shape, value: object) -> None:
        """Look at *value*, where *walk* is."""
        if isinstance(value, str):
            self._text(walk, value)
        elif isinstance(value, bytes | bytearray):
            self.size += len(value)
        elif id(value) not in self._seen:
            self._seen.add(id(value))  # the arguments hold it, so nothing else has its id meanwhile
            self._inside(walk, value)

    def _text(self, walk: Walk, text: str) -> None:
        self.size += len(text)
        if self._limits.control or text.isprintable():
            return
        found = _CONTROL.search(text)
        if found is not None:
            walk.fault(
                f"expected text, found the control character U+{ord(found[0]):04X} at {found.start()}; "
                "take it out, or allow such with the setting inputs.control"
            )

    def _inside(self, walk: Walk, value: object) -> None:
        parts = parts_of(value)
        if parts is None:
            return
        if len(walk.path) >= self._limits.depth:
            walk.fault(f"expected at most {self._limits.depth} levels (the setting inputs.depth), found more")
            return
        for step, part in parts:
            walk.enter(step)
            self.at(walk, ANYTHING, part)
            walk.leave()
