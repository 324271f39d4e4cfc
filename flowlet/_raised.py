"""What was raised, as records tell it: one line of text, and the lines of code that it came through."""

from __future__ import annotations

from types import CodeType

from ._value import without_secrets
from .errors import InputError

__all__ = ["describe", "trail_of"]


def describe(exc: BaseException, *, with_faults: bool = False) -> str:
    """Say an exception in one line: its type and text, shortened, without secrets.

    The faults of an InputError tell of values, so they are left out where those are private.
    """
    try:
        text = without_secrets(str(exc)).partition("\n")[0]
    except Exception:  # noqa: BLE001 -- a broken __str__ of the user's must not hide the failure
        text = "<unprintable>"
    if with_faults and isinstance(exc, InputError):
        text = "; ".join((text, *exc.faults))
    text = text if len(text) <= 300 else text[:297] + "..."
    name = type(exc).__name__
    return f"{name}: {text}" if text else name


def trail_of(error: BaseException) -> tuple[tuple[CodeType, int], ...]:
    """The lines that *error* was raised through, each once, the innermost first."""
    from traceback import walk_tb  # only failures need it

    lines = [(frame.f_code, line) for frame, line in walk_tb(error.__traceback__)]
    return tuple(dict.fromkeys(reversed(lines)))
