"""A scripted value as the JSON that a request asks for: tagged in a union, wrapped where it is no object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from .._codec import to_json
from ..messages import JsonValue, OutputFormat

__all__ = ["fitted"]

Schema = Mapping[str, Any]


def fitted(value: object, output: OutputFormat | None) -> JsonValue:
    """Write *value* as JSON, with what only the schema of *output* knows: tags and the object at the root.

    A value that does not fit is written all the same; then the one who asked finds the fault.

    Raises:
        InputError: a part of *value* can't be JSON.
    """
    data = to_json(value)
    if output is None:
        return data
    root = output.schema
    if list(root.get("properties", ())) == ["value"] and not (isinstance(data, dict) and "value" in data):
        return {"value": _tagged(root["properties"]["value"], root, value, data)}
    return _tagged(root, root, value, data)


def _tagged(schema: Schema, root: Schema, value: object, data: JsonValue) -> JsonValue:
    options = list(_options(schema, root))
    if isinstance(data, Mapping):
        return _tagged_object(options, root, value, data)
    items = next((option["items"] for option in options if "items" in option), None)
    if items is None or not isinstance(data, list) or not isinstance(value, list | tuple):
        return data
    pairs = zip(cast("Sequence[object]", value), cast("list[JsonValue]", data), strict=True)
    return [_tagged(items, root, *pair) for pair in pairs]


def _tagged_object(
    options: Sequence[Schema], root: Schema, value: object, data: Mapping[str, JsonValue]
) -> JsonValue:
    tags = [missing for option in options if (missing := _missing_tags(option, data)) is not None]
    if tags:
        tags.sort(key=lambda missing: (len(missing), type(value).__name__ not in missing.values()))
        return {**tags[0], **data}
    tables = [option["additionalProperties"] for option in options if option.get("additionalProperties")]
    if not tables or not isinstance(value, Mapping):
        return data
    values = cast("Mapping[str, object]", value)
    return {key: _tagged(tables[0], root, values[key], written) for key, written in data.items()}


def _options(schema: Schema, root: Schema) -> Iterator[Schema]:
    """What *schema* may be, through references and unions."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from _options(root if name == "#" else root["$defs"][name], root)
    elif "anyOf" in schema:
        for option in schema["anyOf"]:
            yield from _options(option, root)
    else:
        yield schema


def _missing_tags(option: Schema, data: Mapping[str, JsonValue]) -> dict[str, JsonValue] | None:
    """What *data* lacks of *option*, or None where that is more than tags, which can only have one value."""
    properties: Mapping[str, Schema] = option.get("properties", {})
    missing = {key: part.get("enum", ()) for key, part in properties.items() if key not in data}
    if not properties or data.keys() - properties.keys() or any(len(enum) != 1 for enum in missing.values()):
        return None
    return {key: enum[0] for key, enum in missing.items()}
