"""Made-up JSON that is valid against a schema of ours, the same for the same seed text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from math import inf
from typing import Any

from attrs import define

from ._schema import PATTERN_SAMPLES
from .errors import DefinitionError
from .messages import JsonValue

__all__ = ["sample_of"]

_FORMATS: Mapping[str, str] = {
    "date-time": "2024-05-31T12:30:00Z",
    "date": "2024-05-31",
    "time": "12:30:00Z",
    "duration": "PT1H30M",
    "uuid": "6f0b8a3e-5d1c-4b7a-9c2d-1e4f5a6b7c8d",
}
_WORDS = 6

Schema = Mapping[str, Any]


def sample_of(schema: Schema, seed_text: str = "") -> JsonValue:
    """Make a value that is valid against *schema*, which :mod:`flowlet._schema` has made.

    Choices and numbers come from a digest of *seed_text*, texts are extracts of it. Recursion ends as soon
    as it can.

    Raises:
        DefinitionError: no finite value is valid, since a class always needs another of itself.
    """
    refs = {"#": schema} | {f"#/$defs/{name}": found for name, found in schema.get("$defs", {}).items()}
    seed = seed_text.encode("utf-8", "replace")
    digest = blake2b(seed, digest_size=16).digest()
    maker = _Maker(refs, digest, seed.decode().split(), _heights(refs), _reached(refs))
    if maker.height(schema) == inf:
        raise DefinitionError("no finite value fits this type: it always needs another of itself")
    found: JsonValue = maker.make(schema, "$", frozenset(["#"]))
    return found


@define
class _Maker:
    """Makes samples of the schemas in *refs*; *open* are the references that a value is within."""

    refs: Mapping[str, Schema]
    digest: bytes
    words: list[str]
    heights: Mapping[str, float]
    reached: Mapping[str, frozenset[str]]

    def make(self, schema: Schema, path: str, open: frozenset[str]) -> Any:
        if "$ref" in schema:
            return self.make(self.refs[schema["$ref"]], path, open | {schema["$ref"]})
        if "anyOf" in schema:
            return self.make(self.option(schema["anyOf"], path, open), path, open)
        if "enum" in schema:
            return schema["enum"][self.pick(path, len(schema["enum"]))]
        if "properties" in schema:
            return {key: self.make(part, f"{path}.{key}", open) for key, part in schema["properties"].items()}
        if schema.get("type") == "array":
            return self.array(schema, path, open)
        if schema.get("type") == "object":
            return self.table(schema, path, open)
        return self.scalar(schema, path)

    def option(self, options: list[Schema], path: str, open: frozenset[str]) -> Schema:
        """A member of a union: one that is not null and does not recur, or else the lowest."""
        free = [found for found in options if not self.recurs(found, open)]
        best = [found for found in free if found != {"type": "null"}] or free
        return best[self.pick(path, len(best))] if best else min(options, key=self.height)

    def array(self, schema: Schema, path: str, open: frozenset[str]) -> list[Any]:
        items = schema.get("prefixItems")
        if items is None:
            least = schema.get("minItems", 0 if self.recurs(schema["items"], open) else 1)
            items = [schema["items"]] * min(least, schema.get("maxItems", least))
        return [self.make(item, f"{path}[{index}]", open) for index, item in enumerate(items)]

    def table(self, schema: Schema, path: str, open: frozenset[str]) -> dict[str, Any]:
        if self.recurs(schema["additionalProperties"], open):
            return {}
        key = self.make(schema.get("propertyNames", {"enum": ["key"]}), f"{path}.*", open)
        return {key: self.make(schema["additionalProperties"], f"{path}.{key}", open)}

    def scalar(self, schema: Schema, path: str) -> Any:
        kind = schema.get("type", "string")
        if kind == "string":
            known = _FORMATS.get(schema.get("format", ""), PATTERN_SAMPLES.get(schema.get("pattern", "")))
            return self.text(path) if known is None else known
        number = self.pick(path, 100)
        return {"null": None, "boolean": number % 2 == 0, "integer": number, "number": number / 10}[kind]

    def text(self, path: str) -> str:
        """A few of the seed's words, or the name of the field."""
        if not self.words:
            return path.rpartition(".")[2].strip("$[]0123456789") or "text"
        start = self.pick(path, max(1, len(self.words) - _WORDS + 1))
        return " ".join(self.words[start : start + _WORDS])

    def pick(self, path: str, count: int) -> int:
        return (
            int.from_bytes(blake2b(self.digest + path.encode("utf-8", "replace"), digest_size=8).digest())
            % count
        )

    def recurs(self, schema: Schema, open: frozenset[str]) -> bool:
        """Whether *schema* leads back to what is open."""
        return any(ref in open or self.reached[ref] & open for ref in _refs(schema))

    def height(self, schema: Schema) -> float:
        return _height(schema, self.heights)


def _refs(schema: Schema) -> Iterator[str]:
    """The references that stand in *schema* itself."""
    if "$ref" in schema:
        yield schema["$ref"]
    for inner in _inner(schema):
        yield from _refs(inner)


def _inner(schema: Schema) -> list[Schema]:
    single = [
        schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), Mapping)
    ]
    return [
        *schema.get("properties", {}).values(),
        *schema.get("anyOf", ()),
        *schema.get("prefixItems", ()),
        *single,
    ]


def _reached(refs: Mapping[str, Schema]) -> dict[str, frozenset[str]]:
    """All references that each one leads to, itself only when it recurs."""
    found = {ref: frozenset(_refs(schema)) for ref, schema in refs.items()}
    for _ in refs:
        found = {ref: known.union(*(found[inner] for inner in known)) for ref, known in found.items()}
    return found


def _heights(refs: Mapping[str, Schema]) -> dict[str, float]:
    """How deep the lowest value of each reference is; infinite for one that never ends."""
    found = dict.fromkeys(refs, inf)
    for _ in refs:
        found = {ref: _height(schema, found) for ref, schema in refs.items()}
    return found


def _height(schema: Schema, known: Mapping[str, float]) -> float:
    if "$ref" in schema:
        return known[schema["$ref"]]
    if "anyOf" in schema:
        return min(_height(option, known) for option in schema["anyOf"])
    parts = _inner(schema) if "properties" in schema or schema.get("minItems") else []
    return 1 + max((_height(part, known) for part in parts), default=0)
