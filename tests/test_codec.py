"""Typed Python to JSON and back: strict, exact, and with all faults at once."""

import contextlib
import enum
import json
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlet._codec import answer_from_json, check, from_json, from_text, to_json
from flowlet.errors import InputError
from typed_values import (
    FLOATS,
    VALUES,
    Age,
    Box,
    Cart,
    Cat,
    Circle,
    Color,
    Dog,
    IntBox,
    Item,
    Json,
    Movie,
    Node,
    Square,
)


def faults(convert: Callable[..., object], *args: Any) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        convert(*args)
    return caught.value.faults


@pytest.mark.parametrize(("hint", "values"), VALUES, ids=[str(hint) for hint, _ in VALUES])
def test_what_is_written_reads_back_the_same(hint, values):
    """For every kind of hint, a value survives to_json, JSON text and from_json, its type included."""

    @given(values)
    def round_trip(value):
        back = from_json(json.loads(json.dumps(to_json(value, hint))), hint)
        assert back == value
        assert type(back) is type(value)
        assert check(value, hint) == ()

    round_trip()


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (5, str),
        ("5", int),
        (3.7, int),
        (3.0, int),
        (True, int),
        (True, float),
        (1, bool),
        ("abc", list[str]),
        ("abc", Sequence[str]),
        ({"a": 1}, list[str]),
        (None, str),
        ("2024-05-31", datetime),
        ("2024-05-31T00:00:00", date),
        ("1_0", Decimal),
        ("a\n", bytes),
        ("RED", Color),
        (1, Literal[True]),
        ([1], tuple[int, int]),
        (math.nan, float),
        (10**400, float),
        (2**60 + 1, float),
        ("\ud800", str),
        ("{6f0b8a3e-5d1c-4b7a-9c2d-1e4f5a6b7c8d}", uuid.UUID),
    ],
)
def test_nothing_is_converted(data, hint):
    """JSON of another kind is a fault, however easily it could be converted."""
    assert len(faults(from_json, data, hint)) == 1


def test_an_int_is_read_for_a_float_and_a_number_for_a_decimal():
    """The two exceptions: JSON has no way to say that a whole number is a float or a Decimal."""
    found = from_json([1, 2], tuple[float, Decimal])
    assert found == (1.0, Decimal(2))
    assert type(found[0]) is float
    assert from_json(1.1, Decimal) == Decimal("1.1")


def test_all_faults_come_at_once_with_their_paths():
    """One error lists every fault: unexpected and missing fields, and misfits at any depth."""
    data = {"items": [{"name": "a"}, {"price": "x", "nme": 1}], "ownr": None}
    assert faults(from_json, data, Cart) == (
        "$.ownr: unexpected, did you mean owner?",
        "$.items[1].name: missing",
        "$.items[1].nme: unexpected, did you mean name?",
        '$.items[1].price: expected a number, found "x"',
    )
    assert faults(from_json, {"a b": 1}, dict[str, str]) == ('$["a b"]: expected text, found 1',)


def test_many_faults_are_counted_not_told():
    """A long list of wrong values does not make an endless message."""
    found = faults(from_json, ["x"] * 1000, list[int])
    assert len(found) == 101
    assert found[-1] == "and 900 more"


def test_a_fault_shows_little_of_a_long_value():
    """At most 60 characters of a value are told, and lone surrogates are made printable."""
    for value in ("x" * 10**6, ["y" * 99] * 99, {"k" * 99: 1}, 10**5000, "\ud800"):
        fault = faults(from_json, value, bool)[0]
        assert len(fault.encode()) < 110
    assert "\\ud800" in fault


def test_a_private_field_is_named_as_its_argument():
    """JSON names the fields as the constructor does."""
    cart = Cart((), None, "x")
    assert to_json(cart) == {"items": [], "owner": None, "secret": "x"}
    assert from_json({"items": [], "secret": "x"}, Cart) == cart


def test_a_class_s_own_validation_is_a_fault():
    """What a constructor raises is told at its place, with the other faults."""
    found = faults(from_json, [{"years": -1}, {"years": 1}, {"years": "x"}], list[Age])
    assert found[0].startswith("$[0]: ValueError: 'years' must be >= 0")
    assert found[1] == '$[2].years: expected a whole number, found "x"'


def test_classes_of_a_union_carry_their_name():
    """Where more than one member is an object, "type" says which; a lone class needs none."""
    assert to_json(Dog("Rex"), Cat | Dog) == {"type": "Dog", "name": "Rex"}
    assert to_json(Dog("Rex"), Dog | None) == {"name": "Rex"}
    assert faults(from_json, {"name": "x"}, Cat | Dog) == ('$.type: expected "Cat" or "Dog", found nothing',)
    assert faults(from_json, {"type": "Cow"}, Cat | Dog) == ('$.type: expected "Cat" or "Dog", found "Cow"',)


def test_a_literal_field_serves_as_the_tag():
    """Classes that tell themselves apart by a Literal of their own get no second tag."""
    assert to_json(Circle("circle", 1.0), Circle | Square) == {"kind": "circle", "r": 1.0}
    found = faults(from_json, {"kind": "square", "r": "x"}, Circle | Square)
    assert found == ('$.r: expected a number, found "x"',)


def test_what_would_be_read_as_another_member_is_not_written():
    """A text that looks like a date can't stand for itself in a union of both, so it is a fault."""
    assert to_json("hello", str | date) == "hello"
    assert faults(to_json, "2024-05-31", str | date) == (
        '$: "2024-05-31" would be read back as a date, not text',
    )
    assert faults(to_json, IntBox(1, "x"), Box[int]) == ("$: IntBox object would be read back as Box[int]",)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([1, math.inf], "$[1]"),
        ({"a": {"b": "\ud800"}}, "$.a.b"),
        ({"a": print}, "$.a"),
        ({1: 2}, "$[1]"),
        (iter([1]), "$"),
        ([object()], "$[0]"),
        (Decimal("NaN"), "$"),
    ],
)
def test_what_is_no_json_is_refused_with_its_path(value, place):
    """NaN, lone surrogates, keys that are no text and arbitrary objects can't be written."""
    assert faults(to_json, value)[0].startswith(f"{place}: ")


@pytest.mark.parametrize(
    ("value", "hint", "fault"),
    [
        ((1,), tuple[int, int], "$: expected a tuple of 2, found (1,)"),
        ({"year": 1}, Movie, "$.title: missing"),
        ({Color.RED: 1}, dict[int, int], "$[\"<Color.RED: 'red'>\"]: expected a whole number, found"),
        ({"5": 1}, dict[int | str, int], '$["5"]: this key would not be read back as "5"'),
        ({math.nan: 1}, dict[float, int], "$.nan: expected a number that JSON can hold, found nan"),
        (["x"], list[int] | None, '$[0]: expected a whole number, found "x"'),
        ("x", int | None, '$: expected a whole number or None, found "x"'),
        ([1, "x"], list[int] | list[str], "$"),
        (print, Callable[[], int], "$: a callable can't be written as JSON"),
        ([1.5], list[int] | set[float], "$[0]: expected a whole number, found 1.5"),
        ({1.5}, list[float] | set[float], "$: {1.5} would be read back as a list, not a set"),
    ],
)
def test_what_does_not_fit_its_hint_is_not_written(value, hint, fault):
    """Writing is as strict as reading: what could not be read back is told when it is written."""
    assert faults(to_json, value, hint)[0].startswith(fault)


@pytest.mark.parametrize(
    ("hint", "values"),
    [
        (list[str], ["a", "\ud800"]),
        (list[float], [1.5, math.nan]),
        (list[int], [1, True]),
        (list[bool], [True, 1]),
        (tuple[str, ...], ("a", 1)),
    ],
)
def test_one_that_does_not_fit_is_found_among_many_that_do(hint, values):
    """Lists of plain values are looked at as a whole, which hides none of them."""
    for convert, data in ((to_json, values), (from_json, list(values))):
        assert faults(convert, data, hint)[0].startswith("$[1]: expected ")
    assert from_json([1, 2], list[float]) == to_json([1, 2.0], list[float]) == [1.0, 2.0]


def test_keys_are_read_by_their_hint():
    """Keys of JSON are text; those that do not fit, or mean the same, are faults."""
    assert from_json({"red": 1}, dict[Color, int]) == {Color.RED: 1}
    assert from_json({"[1, 2]": "x"}, dict[tuple[int, int], str]) == {(1, 2): "x"}
    assert faults(from_json, {"x": 1, "1": "y"}, dict[int, int]) == (
        '$.x: expected a whole number, found "x"',
        '$["1"]: expected a whole number, found "y"',
    )
    assert faults(from_json, {"1": 1, "+1": 1}, dict[int, int]) == ('$["+1"]: the same key as another one',)


def test_an_enum_is_its_value_or_its_name():
    """Values that JSON can hold are written; where one is not a scalar, all go by their names."""

    class Mixed(enum.Enum):
        ONE = 1
        PAIR = (1, 2)

    assert to_json([Color.RED, Mixed.PAIR]) == ["red", "PAIR"]
    assert from_json("ONE", Mixed) is Mixed.ONE
    assert to_json(Color.RED, Literal[Color.RED, b"x"]) == "red"
    assert check("red", Color) == ('$: expected Color, found "red"',)
    assert len(faults(from_json, "x", Literal[tuple(range(99))])[0]) < 120


def test_large_ints_and_sets_are_written_exactly():
    """Ints have no limit in JSON, and a set has the same order in every process."""
    assert to_json(2**63) == 2**63
    assert to_json({"b", "a", "c"}) == ["a", "b", "c"]


def test_depth_is_bounded_by_a_fault():
    """Circular and endlessly nested values are a fault, never a RecursionError."""
    circle: list[Any] = []
    circle.append(circle)
    circle.append(circle)
    deep: Any = None
    for _ in range(300):
        deep = [deep]
    chain = Node(0)
    for _ in range(300):
        chain = Node(0, (chain,))
    for found in (faults(to_json, circle), faults(from_json, deep, Json), faults(to_json, chain)):
        assert "nested" in found[-1]
    assert "nested" in check(deep, Json)[-1]
    assert faults(from_text, "[" * 10**5, list[int])


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("5", int, 5),
        (" -5 ", int, -5),
        ("5", str, "5"),
        ("1e3", float, 1000.0),
        ("Yes", bool, True),
        ("false", bool, False),
        ("", int | None, None),
        ("null", str | None, "null"),
        ("5", int | str, 5),
        ("five", int | str, "five"),
        ("[1, 2]", list[int], [1, 2]),
        ("[draft]", str | list[str], "[draft]"),
        ('{"name": "x", "price": 1}', Item, Item("x", 1.0)),
        ('{"type": "Dog", "name": "x"}', Cat | Dog, Dog("x")),
        ("PT1H30M", timedelta, timedelta(minutes=90)),
        ("-P1DT0.5S", timedelta, -timedelta(days=1, seconds=0.5)),
        ("2024-05-31T12:00:00Z", datetime, datetime(2024, 5, 31, 12, tzinfo=UTC)),
        ("red", Color, Color.RED),
        ("5", Any, "5"),
    ],
)
def test_text_is_read_as_the_hint_says(text, hint, value):
    """On a command line everything is text: scalars have their text form, the rest is JSON."""
    assert from_text(text, hint) == value


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("x", int),
        ("1_0", int),
        ("٣", int),
        ("9" * 5000, int),
        ("nan", float),
        ("1_0", float),
        ("on", bool),
        ("[1", list[int]),
        ("[NaN]", list[float]),
        ("green", Color),
        ("P", timedelta),
        ("\ud800", str),
    ],
)
def test_text_that_does_not_fit_is_refused(text, hint):
    """Python's laxer forms, such as underscores in numbers, are no numbers here."""
    assert len(faults(from_text, text, hint)) == 1


def test_an_answer_may_be_fenced_and_is_unwrapped():
    """Models like to fence their JSON; what is no object comes under "value"."""
    assert answer_from_json('```json\n{"value": [1, 2]}\n```', list[int]) == [1, 2]
    assert answer_from_json('{"name": "Rex"}', Dog) == Dog("Rex")
    assert faults(answer_from_json, '{"value": ["x"]}', list[int]) == (
        '$.value[0]: expected a whole number, found "x"',
    )
    assert faults(answer_from_json, "{}", list[int]) == ("$.value: missing",)
    assert "expected JSON" in faults(answer_from_json, "I can't", Dog)[0]


def test_check_looks_into_containers_and_trusts_instances():
    """Containers are checked to the bottom; a class's constructor answers for its fields."""
    assert check([1, "x", {"a": Dog("d")}], list[int | dict[str, Cat]]) == (
        '$[1]: expected a whole number or a mapping, found "x"',
        "$[2].a: expected Cat, found Dog object",
    )
    assert check(Item(5), Item) == ()  # type: ignore[arg-type]
    assert check(iter("ab"), Iterable[int]) == ()
    assert check({"title": 1}, Movie) == ("$.title: expected text, found 1",)
    assert check({1: 2}, Mapping[str, int]) == ("$[1]: expected a key that is text, found 1",)
    assert check(print, Callable[[str], None]) == ()


@given(st.recursive(st.none() | st.booleans() | st.integers() | FLOATS | st.text(), st.lists))
def test_reading_any_json_ends_in_a_value_or_in_faults(data):
    """No JSON, whatever it is, makes the reader fail in another way."""
    for hint, _ in VALUES:
        with contextlib.suppress(InputError):
            assert check(from_json(data, hint), hint) == ()
