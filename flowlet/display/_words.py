"""Figures and texts as people read them: durations, tokens, money, names that may hold anything."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from ..metrics import Reused, RunState, Usage
from ..settings import process

Clean = Callable[[str], str]
"""Makes a text harmless where it will be shown."""

STATE_WORDS: dict[RunState, str] = {
    "pending": "pending",
    "running": "running",
    "completed": "done",
    "failed": "failed",
    "cancelled": "cancelled",
    "timeout": "timed out",
}


def word_of(state: RunState, reused: Reused | None = None) -> str:
    """Say how a call ended, or where its result came from: ``done``, ``from the journal``."""
    return STATE_WORDS[state] if reused is None else f"from the {reused}"


def visible(text: str) -> str:
    r"""Write control, format and broken characters as escapes (``\x1b``), so that they do nothing."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def clean_for(encoding: str | None = None) -> Clean:
    """Make what takes secrets and control characters out of a text, and what *encoding* can't write."""
    known = encoding or "utf-8"

    def clean(text: str) -> str:
        text = visible(process.redactor.redact(text))
        return text.encode(known, "backslashreplace").decode(known)

    return clean


def time_of(seconds: float) -> str:
    """Write a duration with two or three digits: ``42 ms``, ``3.21 s``, ``2 min 05 s``."""
    if seconds < 0.0005:
        return "0 ms" if seconds <= 0 else "<1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"


def money(dollars: Decimal) -> str:
    """Write an amount with cents, or with two digits when it is smaller: ``$1.20``, ``$0.0021``."""
    if dollars == 0:
        return "$0"
    if dollars < Decimal("0.000001"):
        return "<$0.000001"
    return f"${dollars:,.{max(2, 1 - dollars.adjusted())}f}"


def cost_of(usage: Usage) -> str:
    """Write a cost; ``+`` says that some calls have no known price, ``?`` that none has."""
    open_calls = usage.unknown + usage.unpriced
    if not usage.calls or open_calls >= usage.calls:
        return "?" if usage.calls else ""
    return money(usage.cost) + ("+" if open_calls else "")


def tokens_of(usage: Usage) -> str:
    """Write a number of tokens; ``+`` says that some calls told none, ``?`` that no call did."""
    if not usage.calls or usage.unknown >= usage.calls:
        return "?" if usage.calls else ""
    return f"{usage.total_tokens:,}" + ("+" if usage.unknown else "")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: ``1 retry``, ``3 retries``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
