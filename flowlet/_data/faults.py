"""Faults: what is wrong in a value, each told with its place, all of them together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from reprlib import Repr
from typing import Literal
from uuid import UUID

from attrs import define, field

DEPTH = 200
MOST = 100
_WIDTH = 60
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_REPR = Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _WIDTH
_DATA: tuple[type, ...] = (
    *(bool, int, float, complex, bytes, list, tuple, dict, set, frozenset, type(None), Enum),
    *(date, time, timedelta, Decimal, UUID, PurePath),
)


Use = Literal["json", "kept", "key"]
"""What JSON is for: to be read by anybody, to be read back as the same, or to tell one value from another."""


class TooDeep(Exception):
    """A value is nested deeper than DEPTH levels; the message is its fault."""


@define(eq=False, repr=False)
class Walk:
    """A walk through one value: where it is, and what it found wrong so far.

    *json* says that the value is JSON, so faults speak JSON. *closest* is the depth of the fault that is
    nearest to the root. Past MOST faults the rest is only counted.
    """

    root: str
    json: bool
    path: list[str | int] = field(factory=list[str | int])
    faults: list[str] = field(factory=list[str])
    more: int = 0
    closest: int = DEPTH + 1
    use: Use = "json"

    def enter(self, key: str | int) -> None:
        """Go down to *key*.

        Raises:
            TooDeep: past DEPTH levels.
        """
        self.path.append(key)
        if len(self.path) > DEPTH:
            raise TooDeep(f"{cut(self.place())}: nested deeper than {DEPTH} levels")

    def leave(self) -> None:
        """Go up again."""
        self.path.pop()

    def fault(self, message: str, *keys: str | int) -> None:
        """Note that *message* holds here, or at *keys* below."""
        self.closest = min(self.closest, len(self.path) + len(keys))
        if len(self.faults) < MOST:
            self.faults.append(f"{self.place()}{_steps(keys)}: {message}")
        else:
            self.more += 1

    def misfit(self, expected: str, value: object) -> None:
        """Note that *value* stands where *expected* should."""
        self.fault(f"expected {expected}, found {self.shown(value)}")

    def shown(self, value: object) -> str:
        """Tell *value* in at most 60 characters."""
        return shown_json(value) if self.json else shown(value)

    def place(self) -> str:
        """The path of the present place, as in ``$.items[1].price``."""
        return self.root + _steps(self.path)

    def fork(self) -> Walk:
        """A walk that goes on from here with faults of its own."""
        return Walk(self.root, self.json, self.path.copy(), use=self.use)

    def adopt(self, other: Walk) -> None:
        """Take the faults of a fork over."""
        self.closest = min(self.closest, other.closest)
        self.faults += other.faults
        self.more += other.more

    @property
    def count(self) -> int:
        """How many faults there are."""
        return len(self.faults) + self.more

    def told(self) -> tuple[str, ...]:
        """All faults."""
        return (*self.faults, f"and {self.more} more") if self.more else tuple(self.faults)


def _steps(path: Iterable[str | int]) -> str:
    return "".join(map(_step, path))


def _step(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if re.match(r"[^\W\d]\w*$", key) else f"[{cut(shown_json(key))}]"


def cut(text: str, width: int = _WIDTH) -> str:
    """Shorten *text* to *width* characters, and make it printable."""
    text = text if len(text) <= width else text[: width - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode()  # lone surrogates can't be printed


def shown_json(data: object) -> str:
    """Tell JSON *data* in at most 60 characters, without writing out what is longer."""
    if isinstance(data, str):
        return cut(_ENCODER.encode(data[:_WIDTH]))
    text = ""
    try:
        for chunk in _ENCODER.iterencode(data):
            text += chunk[: _WIDTH + 1]
            if len(text) > _WIDTH:
                break
    except (TypeError, ValueError, RecursionError):  # not JSON after all, or too long a number
        return shown(data)
    return cut(text)


def shown(value: object) -> str:
    """Tell a Python *value* in at most 60 characters, or by its class where it is not plain data."""
    if isinstance(value, str):
        return shown_json(value)
    try:
        return cut(_REPR.repr(value)) if isinstance(value, _DATA) else cut(_named(value))
    except ValueError:  # an int of more digits than Python prints
        return f"{type(value).__name__} object"


def _named(value: object) -> str:
    own = getattr(value, "__qualname__", None)
    return own if isinstance(own, str) else f"{type(value).__qualname__} object"


def key_step(key: object) -> str | int:
    """A mapping's *key* as a step of a path."""
    return key if isinstance(key, str | int) else shown(key)
