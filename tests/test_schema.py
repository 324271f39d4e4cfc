"""Hints as JSON Schema, in OpenAI's strict subset where it can say them."""

import dataclasses
import enum
import re
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Generic, Literal, TypeVar

import jsonschema
import pytest
from attrs import frozen
from hypothesis import given
from typing_extensions import TypeAliasType

from flowlet._codec import to_json
from flowlet._schema import is_strict, output_format, schema_of
from flowlet.errors import DefinitionError
from typed_values import VALUES, Movie

T = TypeVar("T")
Tree = TypeAliasType("Tree", "dict[str, Tree] | int")


class Mood(enum.Enum):
    """How it feels."""

    GOOD = "good"
    BAD = "bad"


@frozen
class Leaf:
    """A leaf.

    It ends a branch.
    """

    size: Annotated[int, "in mm"]
    mood: Mood = Mood.GOOD


@dataclasses.dataclass
class Branch:
    left: "Branch | Leaf"
    tip: Annotated[Leaf, "the last one"]
    name: str | None = None


@frozen
class Box(Generic[T]):
    content: T
    boxes: "list[Box[T]]"


def test_a_class_is_a_strict_object_with_its_descriptions():
    """All fields are required, also those with defaults; docstrings and Annotated texts describe."""
    assert schema_of(Leaf) == {
        "type": "object",
        "properties": {
            "size": {"type": "integer", "description": "in mm"},
            "mood": {"type": "string", "enum": ["good", "bad"], "description": "How it feels."},
        },
        "required": ["size", "mood"],
        "additionalProperties": False,
        "description": "A leaf.\n\nIt ends a branch.",
    }


def test_classes_are_definitions_and_the_root_is_written_out():
    """References point to $defs, with nothing beside them; members of a union carry their tag there."""
    schema = schema_of(Branch)
    assert list(schema["$defs"]) == ["Branch", "Leaf", "Leaf_2"]
    assert schema["properties"]["left"] == {"anyOf": [{"$ref": "#/$defs/Branch"}, {"$ref": "#/$defs/Leaf"}]}
    assert schema["$defs"]["Leaf"]["properties"]["type"] == {"type": "string", "enum": ["Leaf"]}
    assert schema["properties"]["tip"] == {
        "anyOf": [{"$ref": "#/$defs/Leaf_2"}],
        "description": "the last one",
    }
    assert "description" not in schema
    assert schema_of(Box[int])["properties"]["boxes"]["items"] == {"$ref": "#"}


def test_order_is_that_of_the_hint():
    """Members and choices come as they were written, whatever was asked for before: requests stay the same."""
    for order in (["a", "b"], ["b", "a"]):
        assert schema_of(Literal[tuple(order)])["enum"] == order
    assert [part["type"] for part in schema_of(str | int | None)["anyOf"]] == ["string", "integer", "null"]


@pytest.mark.parametrize(
    ("hint", "path"),
    [
        (Callable[[int], str], "$"),
        (dict[str, list[type]], "$.*[]"),
        (Box[Callable[[], int]], "$.content"),
        (tuple[int, object, re.Pattern[str]], "$[2]"),
        (list["Unknown"], "$[]"),  # type: ignore[name-defined]  # noqa: F821
        (dict[float, int], "$"),
    ],
)
def test_what_is_no_data_has_no_schema(hint, path):
    """Callables, arbitrary classes and hints that can't be resolved are refused with their path."""
    with pytest.raises(DefinitionError, match=re.escape(path) + ": "):
        schema_of(hint)


def test_an_endless_type_is_refused():
    """A generic class whose arguments grow with every level has no finite schema."""

    @frozen
    class Growing(Generic[T]):
        more: "Growing[list[T]] | None"

    with pytest.raises(DefinitionError, match="no finite"):
        schema_of(Growing[int])


@pytest.mark.parametrize(
    ("hint", "name", "wrapped"),
    [
        (Leaf, "Leaf", False),
        (Annotated[Leaf, "x"], "Leaf", False),
        (Box[int], "Box_int", False),
        (dict[str, int], "answer", False),
        (list[Leaf], "answer", True),
        (Leaf | Branch, "answer", True),
        (Mood, "Mood", True),
        (Tree, "answer", True),
        (type("Ü" * 99, (), {"__attrs_attrs__": ()}), "answer", False),
    ],
)
def test_an_answer_is_an_object_with_a_plain_name(hint, name, wrapped):
    """OpenAI wants an object at the root and a name of letters, digits, _ and -."""
    output = output_format(hint)
    assert output.name == name
    assert output.schema["type"] == "object"
    assert (list(output.schema.get("properties", {})) == ["value"]) is wrapped


def test_keys_of_a_mapping_have_a_schema():
    """JSON keys are text, so a hint for keys becomes what the names of properties may be."""
    assert schema_of(dict[Mood, int])["propertyNames"] == {"type": "string", "enum": ["good", "bad"]}
    assert schema_of(dict[date, int])["propertyNames"] == {"type": "string", "format": "date"}
    assert schema_of(dict[str, int]) == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_strictness_is_told():
    """Open mappings, tuples of different types and Any lie beyond OpenAI's strict subset."""
    assert all(
        is_strict(output_format(hint).schema) for hint in (Branch, Box[int], tuple[int, int], Leaf | int)
    )
    assert not any(is_strict(schema_of(hint)) for hint in (dict[str, int], tuple[int, str], Any, list[Tree]))


WITH_SCHEMA = [pair for pair in VALUES if pair[0] != dict[tuple[int, int], str]]


@pytest.mark.parametrize(("hint", "values"), WITH_SCHEMA, ids=[str(hint) for hint, _ in WITH_SCHEMA])
def test_what_is_written_is_valid(hint, values):
    """JSON that to_json writes with all its fields is valid against the schema of the same hint."""
    schema = schema_of(hint)
    jsonschema.Draft202012Validator.check_schema(schema)

    @given(values)
    def valid(value):
        if hint is not Movie or "year" in value:
            jsonschema.Draft202012Validator(schema).validate(to_json(value, hint))

    valid()
