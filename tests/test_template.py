"""Templates substitute names and nothing else."""

import json
import string

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from flowlet._suggest import nearest
from flowlet._template import Template, check_names, to_text
from flowlet.errors import DefinitionError

BRACED = st.text("{}x\"'.![]:_1 ", max_size=20)


@frozen
class Talk:
    title: str
    minutes: int


def test_a_name_in_braces_is_replaced():
    """Each `{name}` becomes its value, wherever and however often it stands."""
    template = Template.parse("{greeting}, {name}! {greeting}?")
    assert template.names == ("greeting", "name")
    assert template.render({"greeting": "Hi", "name": "Ada", "other": 1}) == "Hi, Ada! Hi?"


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "b": {"c": []}}',
        "{}",
        "{ x }",
        "{x.__class__}",
        "{x.__class__.__mro__[1].__subclasses__()}",
        "{x[0]}",
        "{x!r}",
        "{x:>99}",
        "{0}",
        "{x",
        "x}",
        "{x²}",
        "%(x)s $x ${ x }",
    ],
)
def test_every_other_brace_is_itself(text):
    """What is not exactly a name in braces is neither evaluated nor changed."""
    assert Template.parse(text).names == ()
    assert Template.parse(text).render({"x": object}) == text


@given(st.integers(1, 6), st.text("abc{}", max_size=5))
def test_doubled_braces_mean_what_they_mean_in_str_format(braces, value):
    """`{{name}}` is the text `{name}` and `{{{name}}}` the value in braces, as str.format has it."""
    text = "{" * braces + "name" + "}" * braces
    assert Template.parse(text).render({"name": value}) == text.format(name=value)


@given(BRACED, BRACED)
def test_values_are_never_scanned_again(text, value):
    """A value with braces comes out as it went in, as often as its name was used."""
    template = Template.parse(f"<{text}|{{secret}}|{text}>")
    pieces = template.parts
    assert "secret" in template.names
    values = dict.fromkeys(template.names, value)
    assert template.render(values) == "".join(value if i % 2 else p for i, p in enumerate(pieces))


@given(BRACED)
def test_a_template_without_doubled_braces_keeps_every_character(text):
    """Rendering each name as itself in braces gives the text back."""
    template = Template.parse(text)
    again = template.render({name: f"{{{name}}}" for name in template.names})
    assert again == text or "{{" in text


@given(st.dictionaries(st.text(string.printable), st.integers() | st.text(string.printable)))
def test_json_that_is_written_with_spaces_survives(value):
    """JSON as `json.dumps` indents it holds no placeholder, unless one of its strings does."""
    text = json.dumps(value, indent=1)
    assert Template.parse(text).render({}) == text if not Template.parse(text).names else True


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as {it} is", "as {it} is"),
        (7, "7"),
        (0.5, "0.5"),
        (True, "true"),
        (None, "null"),
        (["a", "é"], '["a", "é"]'),
        ({"a": [1, 2]}, '{"a": [1, 2]}'),
        (Talk("Tea", 20), '{"title": "Tea", "minutes": 20}'),
    ],
)
def test_values_are_written_as_json_and_strings_as_they_are(value, text):
    """A model reads JSON well, and a string without quotes better."""
    assert to_text(value) == text
    assert Template.parse("{value}").render({"value": value}) == text


def test_all_wrong_names_are_told_at_once_with_what_was_meant():
    """Unknown and unused names make one error that suggests the right ones."""
    template = Template.parse("Translate {txet} into {language}, {zzz}")
    with pytest.raises(DefinitionError) as caught:
        check_names(template, ["text", "language", "tone"], "prompt 'translate'")
    assert str(caught.value) == (
        "prompt 'translate': {txet} has no value of that name (did you mean {text}?); "
        "{zzz} has no value of that name (write {{zzz}} for the text {zzz}); "
        "'text' is not used in the template; 'tone' is not used in the template"
    )


def test_right_names_pass():
    """A template that uses each name, in any order, is fine."""
    check_names(Template.parse("{b}{a}{b}"), ["a", "b"], "here")


def test_the_nearest_word_is_found_whatever_its_case():
    """Slips of a letter and of case have a suggestion, other words have none."""
    assert nearest("langauge", ["text", "language"]) == "language"
    assert nearest("MODEL", ["model"]) == "model"
    assert nearest("zebra", ["text", "language"]) is None
