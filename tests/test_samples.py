"""Made-up values are valid, end, and are the same for the same text."""

import jsonschema
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from flowlet._codec import from_json
from flowlet._samples import sample_of
from flowlet._schema import schema_of
from flowlet.errors import DefinitionError
from typed_values import VALUES, Box, Cart, Color, Node

SCHEMAS = [(hint, schema_of(hint)) for hint, _ in VALUES if hint != dict[tuple[int, int], str]]


@frozen
class Endless:
    again: "Endless"


@frozen
class Neg:
    of: "Neg | Par"


@frozen
class Par:
    of: "list[Neg | Par]"


@given(st.text())
def test_a_sample_is_valid_and_readable(seed):
    """For every kind of hint and any text, the sample fits the schema and reads as the type."""
    for hint, schema in SCHEMAS:
        sample = sample_of(schema, seed)
        jsonschema.Draft202012Validator(schema).validate(sample)
        from_json(sample, hint)


def test_the_same_text_gives_the_same_sample():
    """Choices come from a digest of the text, so other texts give other samples."""
    schema = schema_of(tuple[Color, int, float, bool])
    samples = [sample_of(schema, f"text {n}") for n in range(20)]
    assert samples == [sample_of(schema, f"text {n}") for n in range(20)]
    assert len({str(sample) for sample in samples}) > 10


def test_texts_are_extracts_of_the_seed():
    """A made-up text is a few words of the prompt, or the name of its field without one."""
    words = "The weather in Rome is fine and in Paris it rains"
    assert sample_of({"type": "string"}, words) in words
    assert sample_of(schema_of(Box[str])) == {"content": "content"}


def test_optional_parts_are_filled_and_recursion_ends_early():
    """What may be null or empty has a value, unless it would lead back to where it stands."""
    assert sample_of(schema_of(Cart), "x") == {
        "items": [{"name": "x", "price": sample_of(schema_of(Cart), "x")["items"][0]["price"]}],
        "owner": "x",
        "secret": "x",
    }
    assert sample_of(schema_of(Node))["children"] == []
    assert sample_of(schema_of(Neg)) == {"of": {"type": "Par", "of": []}}


def test_a_type_without_an_end_has_no_sample():
    """A class that always needs another of itself is refused instead of recurring forever."""
    with pytest.raises(DefinitionError, match="no finite value"):
        sample_of(schema_of(Endless))
