"""Reads values of sections: out of YAML, out of variables, and as Python gives them; each fault has its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from attrs import evolve, fields_dict

from ._data.faults import shown
from ._sections import Leaf, Rule, Section, Table, is_code, leaves
from ._source import Fault, Place, is_secret, is_secret_name
from ._suggest import nearest
from ._yaml import Node, value_of

__all__ = ["check", "read", "read_text", "without_secrets"]


def without_secrets(
    node: Node, redact: Callable[[str], str], faults: list[Fault], *, names: bool = True
) -> Node:
    """*node* without what must not be in a file, which is told in *faults*.

    *redact* takes out the secrets that the process knows. With *names*, what is called a key is taken for one.
    """
    data = node.data
    if isinstance(data, dict):
        kept: dict[str, Node] = {}
        for key, value in data.items():
            texts = (key, value.text or "", *_texts(value.data))
            if (names and is_secret_name(key)) or any(
                is_secret(text) or redact(text) != text for text in texts
            ):
                faults.append(Fault(node.keys[key], _belongs(key if is_secret_name(key) else "")))
            else:
                kept[key] = without_secrets(value, redact, faults, names=names)
        return evolve(node, data=kept)
    return node


def _texts(data: object) -> Iterator[str]:
    """The texts in a list, at any depth; no setting is one, but a secret may hide in it."""
    for node in cast("tuple[Node, ...]", data) if isinstance(data, tuple) else ():
        yield node.text or ""
        yield from node.keys
        inner = node.data
        yield from _texts(tuple(inner.values()) if isinstance(inner, dict) else inner)


def _belongs(name: str) -> str:
    plain = name.upper().replace("-", "_")
    own = plain not in ("", "KEY", "API_KEY", "APIKEY", "TOKEN", "PASSWORD", "SECRET", "SECRET_KEY")
    variable = plain if own and plain.isidentifier() and not is_secret(name) else "OPENAI_API_KEY"
    return (
        f"found a secret, expected none in a file; set {variable} in the environment and remove it here "
        "(if others could read the file, replace the secret)"
    )


def read(node: Node, section: Section, faults: list[Fault], word: str = "setting") -> Node:
    """*node* without what *section* does not allow, which goes to *faults*; a field is called *word* there."""
    return _Reading(section, word, faults).section(node, section, ())


class _Reading:
    """Reads nodes; knows the whole tree, to tell where a misplaced name belongs."""

    def __init__(self, root: Section, word: str, faults: list[Fault]) -> None:
        self.root = root
        self.word = word
        self.faults = faults

    def section(self, node: Node, section: Section, path: tuple[str, ...]) -> Node:
        """A section with the fields that are right."""
        if section.short is not None and node.data is not None and not isinstance(node.data, dict):
            node = evolve(node, data={section.short: node}, keys={section.short: node.place})
        found: dict[str, Node] = {}
        for name, value in self.entries(node, path):
            kind = section.fields.get(name)
            if kind is None or is_code(kind):
                self.faults.append(Fault(node.keys[name], self.unknown(name, section, path)))
                continue
            place = node.keys[name] if value.text == "" else value.place  # nothing has no good place
            kept = self.value(value, kind, (*path, name), place)
            if kept is not None:
                found[name] = kept
        self.lacks(node, section, path)
        return evolve(node, data=found)

    def lacks(self, node: Node, section: Section, path: tuple[str, ...]) -> None:
        """Note what has no default and is not there."""
        missing = [name for name in section.required if name not in node.keys]
        if missing:
            where = f"{'.'.join(path)}: " if path else ""
            self.faults.append(Fault(node.place, f"{where}expected {' and '.join(missing)} too"))

    def value(
        self, node: Node, kind: Rule | Section | Table, path: tuple[str, ...], place: Place
    ) -> Node | None:
        """One value, of whatever *kind*; None where it is wrong."""
        if isinstance(kind, Section):
            return self.section(node, kind, path)
        if isinstance(kind, Table):
            return self.table(node, kind, path, place)
        data = node.data
        if kind.accepts(node.plain() if isinstance(data, tuple) else data):
            return node
        found = "a list" if isinstance(data, tuple) else "a group" if isinstance(data, dict) else None
        message = f"expected {kind.expected}, found {found}" if found else kind.misfit(data)
        self.faults.append(Fault(place, f"{'.'.join(path)}: {message}"))
        return None

    def table(self, node: Node, table: Table, path: tuple[str, ...], place: Place) -> Node:
        """The sections of a table by their names."""
        if not node.data and table.least:
            message = f"{'.'.join(path)}: expected the name of {table.of}, indented below, and what it is"
            self.faults.append(Fault(place, message))
        found: dict[str, Node] = {}
        for name, value in self.entries(node, path):
            if table.key.accepts(name):
                found[name] = self.section(value, table.item, (*path, name))
            else:
                self.faults.append(Fault(node.keys[name], table.key.misfit(name)))
        return evolve(node, data=found)

    def entries(self, node: Node, path: tuple[str, ...]) -> Iterator[tuple[str, Node]]:
        """The names and values in *node*; nothing stands for none."""
        if isinstance(node.data, dict):
            yield from node.data.items()
        elif node.data is not None:
            where, indented = (f"{'.'.join(path)}: ", ", indented below the name") if path else ("", "")
            found = "a list" if isinstance(node.data, tuple) else shown(node.data)
            message = f'{where}expected lines of "name: value"{indented}; found {found}'
            self.faults.append(Fault(node.place, message))

    def unknown(self, name: str, section: Section, path: tuple[str, ...]) -> str:
        """What to say of a name that is no field here."""
        if name in section.fields:
            return f"{name} can't be set in a file; pass it to configure({name}=...)"
        where = f" in {'.'.join(path)}" if path else ""
        near = section.meant.get(name.lower()) or nearest(name, section.in_files)
        others = [leaf.path[:-1] for leaf in leaves(self.root) if leaf.path[-1] == name]
        if others:
            places = dict.fromkeys(_told(parent, self.root) for parent in others)
            return f"{name} is no {self.word}{where}; it belongs in {' or '.join(places)}"
        hint = f"; did you mean {near}?" if near else f"; expected one of: {', '.join(section.in_files)}"
        return f"{name} is no {self.word}{where}{hint}"


def _told(path: tuple[str, ...], kind: Rule | Section | Table) -> str:
    """Where *path* is, from *kind* on, as people say it."""
    tables = ""
    for name in path:
        if isinstance(kind, Table):
            tables = f", under the name of {kind.of}"
            kind = kind.item
        elif isinstance(kind, Section):
            kind = kind.fields[name]
    return ".".join(name for name in path if name != "*") + tables or "the first column"


def read_text(leaf: Leaf, text: str, faults: list[Fault]) -> dict[str, Any]:
    """Read the *text* of an environment variable as nested data; what is wrong goes to *faults*."""
    value: Any = text.strip() if leaf.rule.is_text else value_of(text.strip())
    if not leaf.rule.accepts(value):
        faults.append(Fault(str(leaf.variable), leaf.rule.misfit(text if value is None else value)))
        return {}
    for name in reversed(leaf.path):
        value = {name: value}
    return cast("dict[str, Any]", value)


def check(name: str, value: object, kind: Rule | Section | Table, faults: list[Fault]) -> None:
    """Check a Python value, such as ``configure`` takes; what is wrong goes to *faults*."""
    if isinstance(kind, Rule):
        if not kind.accepts(value):
            faults.append(Fault(name, kind.misfit(value)))
    elif isinstance(kind, Section):
        if not isinstance(value, kind.cls):
            faults.append(Fault(name, f"expected {kind.cls.__name__}(...), found {shown(value)}"))
            return
        for inner, rule in kind.fields.items():
            found = getattr(value, inner)
            if found is not None or fields_dict(kind.cls)[inner].default is not None:
                check(f"{name}.{inner}", found, rule, faults)
    elif not isinstance(value, Mapping):
        expected = f"a mapping of {kind.key.expected} to {kind.item.cls.__name__}(...)"
        faults.append(Fault(name, f"expected {expected}, found {shown(value)}"))
    else:
        for key, item in cast("Mapping[object, object]", value).items():
            if not kind.key.accepts(key):
                faults.append(Fault(f"{name}[{shown(key)}]", kind.key.misfit(key)))
            check(f"{name}[{shown(key)}]", item, kind.item, faults)
