"""HTML made of elements: what is text is escaped, there is no other way to put it in."""

from __future__ import annotations

from html import escape

VOID = frozenset({"meta", "link", "br", "hr"})


class Html(str):
    """Finished HTML; any other text is escaped when an element takes it in."""

    __slots__ = ()


def join(*inside: str) -> Html:
    """Put texts and elements one after another."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in inside))


def el(name: str, /, *inside: str, **attributes: str | None) -> Html:
    """Make an element; ``class_`` is ``class``, ``aria_label`` is ``aria-label``, None is left out."""
    texts = (
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    start = Html(f"<{name}{''.join(texts)}>")
    return start if name in VOID else Html(f"{start}{join(*inside)}</{name}>")
