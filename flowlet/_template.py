"""Prompts with ``{name}`` in them: parsed once, filled in once, never evaluated.

Braces around a name mean what they mean in ``str.format``: ``{name}`` is replaced, ``{{name}}`` is the
text ``{name}``, ``{{{name}}}`` is the value in braces. Every other brace is itself: ``{"a": 1}``, ``{}``,
``{ x }``, ``{x.y}``, ``{x[0]}``, ``{x!r}`` and ``{x:>9}`` stay as they are, so JSON can be written plainly
and nothing in a template can reach an attribute. Values are put in last and never scanned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from attrs import frozen

from ._fence import Untrusted, holds_untrusted, untrusted
from ._suggest import nearest
from .errors import DefinitionError

__all__ = ["Template", "check_names", "to_text"]

_BRACED_NAME = re.compile(r"(\{+)([^\W\d]\w*)(\}+)")


@frozen
class Template:
    """A parsed template. *parts* are texts and names in turn, a text first and last."""

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Find the names in *text*. Every text is a template, so this can't fail."""
        parts, literal, end = list[str](), "", 0
        for found in _BRACED_NAME.finditer(text):
            opening, name, closing = found.groups()
            pairs = min(len(opening), len(closing)) if name.isidentifier() else 0
            kept = pairs // 2
            literal += text[end : found.start()] + opening[: len(opening) - pairs + kept]
            end = found.end() - len(closing) + pairs - kept
            if pairs % 2:
                parts += (literal, name)
                literal = ""
            else:
                literal += name
        return cls((*parts, literal + text[end:]))

    @property
    def names(self) -> tuple[str, ...]:
        """The names to be replaced, each once, in the order of their first use."""
        return tuple(dict.fromkeys(self.parts[1::2]))

    def render(self, values: Mapping[str, object]) -> str:
        """Put *values* in, each as :func:`to_text` says; values that are not named are ignored.

        Raises:
            KeyError: a name has no value.
            InputError: a value can't be written.
        """
        pieces = list(self.parts)
        pieces[1::2] = [to_text(values[name]) for name in pieces[1::2]]
        return "".join(pieces)


def to_text(value: object) -> str:
    """Write *value* as a model reads it well: a string as it is, everything else as JSON.

    Text that is marked as untrusted is fenced, and so is the JSON of a value that holds such.
    What JSON itself writes as a string (a date, an enum's member, a path) comes without the quotes.

    Raises:
        InputError: a part of *value* can't be JSON.
    """
    if isinstance(value, str):
        return str(value) if isinstance(value, Untrusted) else str.__str__(value)
    from ._codec import to_json

    found = to_json(value)
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return str(untrusted(text)) if holds_untrusted(value) else text


def check_names(template: Template, names: Iterable[str], where: str) -> None:
    """Check that *template* uses each of *names* and no other; *where* begins the message.

    Raises:
        DefinitionError: naming every unknown and every unused name, with the one that was probably meant.
    """
    known = list(names)
    faults = [_unknown(name, known) for name in template.names if name not in known]
    faults += [f"{name!r} is not used in the template" for name in known if name not in template.names]
    if faults:
        raise DefinitionError(f"{where}: " + "; ".join(faults))


def _unknown(name: str, known: list[str]) -> str:
    meant = nearest(name, known)
    hint = f"did you mean {{{meant}}}?" if meant else f"write {{{{{name}}}}} for the text {{{name}}}"
    return f"{{{name}}} has no value of that name ({hint})"
