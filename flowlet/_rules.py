"""What values settings may have: each rule in words, as a question and as JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast

from ._sections import Rule
from .specs import is_journal

__all__ = [
    "ADDRESS",
    "DOLLARS",
    "FUNCTIONS",
    "LABEL",
    "JOURNAL",
    "MIDDLEWARE",
    "MODEL",
    "MODEL_OF_PROVIDER",
    "MODEL_OR_DEFAULT",
    "PATH",
    "PII_KINDS",
    "PRICE",
    "PROVIDERS",
    "SECONDS",
    "SHARE",
    "SOME_SECONDS",
    "TEMPERATURE",
    "TRUTH",
    "WHOLE",
    "WORD",
    "one_of",
    "whole",
]

_LONGEST = 10**9
"""Seconds; the operating system's own timers overflow a little later."""


def one_of(*values: str) -> Rule:
    """One of a few texts."""
    *first, last = (f'"{value}"' for value in values)
    return Rule(
        f"{', '.join(first)} or {last}",
        lambda value: value in values,
        {"type": "string", "enum": list(values)},
    )


def whole(least: int) -> Rule:
    """A whole number that is not below *least*."""
    return Rule(
        f"a whole number of at least {least}",
        lambda value: _is_whole(value) and value >= least,
        {"type": "integer", "minimum": least},
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(expected: str, least: float, most: float, **schema: float) -> Rule:
    def accepts(value: Any) -> bool:
        number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
        return number and least <= value <= most and value != schema.get("exclusiveMinimum")

    return Rule(expected, accepts, {"type": "number", "minimum": least, "maximum": most, **schema})


def _text(expected: str, pattern: str, *, may_hold_key: bool = False) -> Rule:
    def accepts(value: object) -> bool:
        if not isinstance(value, str) or not value.isprintable():
            return False
        from ._source import is_secret  # not with this module, which every program loads

        return re.fullmatch(pattern, value) is not None and (may_hold_key or not is_secret(value))

    return Rule(expected, accepts, {"type": "string", "pattern": f"^(?:{pattern})$"})


def _are_functions(value: object) -> bool:
    return isinstance(value, tuple) and all(map(callable, cast("tuple[object, ...]", value)))


def _are_middleware(value: object) -> bool:
    if not isinstance(value, str | list | tuple):
        return False
    found = cast("list[object]", value.replace(",", " ").split() if isinstance(value, str) else value)
    return all(callable(one) or (isinstance(one, str) and bool(one.strip())) for one in found)


MODEL = _text('a model such as "openai:gpt-5-mini", or "offline"', r"[^\s:]+(:\S+)?")
MODEL_OF_PROVIDER = _text("provider:model, such as openai:gpt-5-mini", r"[^\s:]+:\S+")
MODEL_OR_DEFAULT = _text(
    '"default" (all models) or provider:model, such as openai:gpt-5-mini', r"default|[^\s:]+:\S+"
)
WORD = _text("a name without spaces, in ASCII", r"[!-~]+")
LABEL = _text("a name of letters, digits, _, - and ., at most 100", r"\w[\w.-]{0,99}")
PATH = _text("the path of a file", r".*\S.*")
JOURNAL = Rule(
    "the path of a file, or a journal",
    lambda value: PATH.accepts(value) if isinstance(value, str) else is_journal(value),
    PATH.schema,
)
ADDRESS = _text(
    "an address such as http://localhost:8000/v1, without user or password",
    r"https?://[^\s/@?#]+([/?][^\s@]*)?",
    may_hold_key=True,  # in the environment: some servers want it there
)


def _are_kinds(value: object) -> bool:
    from .pii import kinds  # not with this module, which every file of settings loads

    names: Any = value.replace(",", " ").split() if isinstance(value, str) else value
    return isinstance(names, list | tuple) and len(names) > 0 and set(names) <= set(kinds())  # pyright: ignore[reportUnknownArgumentType]


PII_KINDS = Rule(
    "kinds of personal data, such as email, card (flowlet.pii.kinds() tells all)",
    _are_kinds,
    {"type": "string", "pattern": r"^[a-z_]+([ ,]+[a-z_]+)*$"},
)
TRUTH = Rule("true or false", lambda value: isinstance(value, bool), {"type": "boolean"})
WHOLE = Rule("a whole number", _is_whole, {"type": "integer"})
SECONDS = _number("a number of seconds, 0 or more, such as 30", 0, _LONGEST)
SOME_SECONDS = _number("a number of seconds above 0, such as 60", 0, _LONGEST, exclusiveMinimum=0)
TEMPERATURE = _number("a number from 0 to 2", 0, 2)
SHARE = _number("a number from 0 to 1", 0, 1)
DOLLARS = _number("a number of US dollars, 0 or more, such as 0.5", 0, _LONGEST)
PRICE = _number("US dollars per million tokens, 0 or more, such as 0.25", 0, _LONGEST)
MIDDLEWARE = Rule(
    "a list of names of middleware (functions, in Python)",
    _are_middleware,
    {"type": "array", "items": {"type": "string", "pattern": r"\S"}},
)
FUNCTIONS = Rule("a sequence of functions", _are_functions)
PROVIDERS = Rule("a mapping of names to providers", lambda value: isinstance(value, Mapping))
