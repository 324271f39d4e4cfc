"""The small languages in workflows of YAML: types and conditions mean what they mean in Python, and run nothing."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Optional, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlet._source import Source
from flowlet._yaml import Node, parse
from flowlet.declarative._clashes import clashes
from flowlet.declarative._conditions import narrowed, read_condition
from flowlet.declarative._hints import hint_in
from flowlet.declarative._tokens import Misread
from flowlet.declarative._types import either, item_of, mapping_of
from flowlet.declarative._values import value_in
from yaml_steps import Mood, Page


def node(text: str) -> Node:
    """*text* as a value in a file."""
    made = parse(Source("x.yaml", "v: '" + text.replace("'", "''") + "'"), [])
    assert made is not None
    return made.parts["v"]


def hint(text: str) -> Any:
    """The hint that *text* writes."""
    return hint_in(parse(Source("x.yaml", "t: '" + text.replace("'", "''") + "'"), []), "t", [])


PLAIN = st.sampled_from(["str", "int", "float", "bool", "bytes", "datetime", "Any", "None"])
LITERALS = st.lists(st.sampled_from(["'a'", '"b c"', "1", "-2", "True", "None"]), min_size=1).map(
    lambda values: f"Literal[{', '.join(values)}]"
)
HINTS = st.recursive(
    PLAIN | LITERALS,
    lambda inner: st.one_of(
        inner.map(lambda one: f"list[{one}]"),
        inner.map(lambda one: f"tuple[{one}, ...]"),
        st.tuples(inner, inner).map(lambda two: f"dict[{two[0]}, {two[1]}]"),
        st.tuples(inner, inner).map(lambda two: f"tuple[{two[0]}, {two[1]}]"),
        inner.map(lambda one: f"Optional[{one}]"),
        st.tuples(inner, inner).map(lambda two: f"{two[0]}|{two[1]}"),
    ),
    max_leaves=6,
)


@given(HINTS)
def test_a_type_means_what_it_means_in_python(text: str) -> None:
    """Read by hand, as Python evaluates it."""
    try:
        expected = eval(
            text,
            {"Any": Any, "Literal": Literal, "Optional": Optional, "datetime": datetime},
        )
    except TypeError:  # None | None
        return
    assert hint(text) == expected or (hint(text) is None and expected is None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yaml_steps:Page", Page),
        ("list[yaml_steps:Page | null]", list[Page | None]),
        ("yaml_steps:Mood", Mood),
        ('Literal["a]", true]', Literal["a]", True]),
        ("set[int]", set[int]),
        ("dict", dict),
    ],
)
def test_a_type_of_ones_own(text: str, expected: Any) -> None:
    """``module:Class``, and the words of YAML."""
    assert hint(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "list[",
        "list[]",
        "list[str",
        "str]",
        "|",
        "str |",
        "dict[str]",
        "list[str, int]",
        "tuple[...]",
        "Optional",
        "Literal",
        "Literal[]",
        "Literal[1.5]",
        "Literal[a]",
        "list[...]",
        "str int",
        "str.x",
        "a:b:c",
        "(str)",
        "'str'",
        "list[tuple[..., int]]",
        "yaml_steps:split",
        "yaml_steps:",
        ":Page",
        "Union[]",
        "None[str]",
    ],
)
def test_what_is_no_type_is_told(text: str) -> None:
    """And is nothing but that."""
    faults: list[Any] = []
    made = parse(Source("x.yaml", "t: '" + text.replace("'", "''") + "'"), faults)
    assert made is not None
    assert hint_in(made, "t", faults) is Any
    assert len(faults) == 1


NAMES = {"n": 3, "zero": 0, "word": "tea", "empty": "", "words": ["tea", "cup"], "yes": True, "nothing": None}
OPERANDS = st.sampled_from(
    [*NAMES, "1", "-2", "3.5", "'tea'", '"cup"', "True", "False", "None", "['tea', 1]", "[]"]
)
COMPARED = st.tuples(OPERANDS, st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "not in"]), OPERANDS)
CONDITIONS = st.recursive(
    OPERANDS | COMPARED.map(" ".join),
    lambda inner: st.one_of(
        inner.map(lambda one: f"not {one}"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
        inner.map(lambda one: f"({one})"),
    ),
    max_leaves=8,
)


@given(CONDITIONS)
def test_a_condition_means_what_it_means_in_python(text: str) -> None:
    """Precedence, truth and short circuits included."""
    try:
        expected: Any = bool(eval(text, {}, NAMES))
    except TypeError:
        expected = TypeError
    try:
        found: Any = bool(read_condition(node(text)).of(NAMES))
    except TypeError:
        found = TypeError
    assert found == expected


@pytest.mark.parametrize(
    "text",
    [
        "n ==",
        "== n",
        "n and",
        "and",
        "not",
        "n n",
        "n > 1 > 0",
        "(n",
        "n)",
        "[n",
        "[n n]",
        "[n > 1]",
        "n = 1",
        "n is None",
        "n.real",
        "n()",
        "n[0]",
        "f'x'",
        "n if n else n",
        "lambda: n",
        "n + 1",
        "n == 'x",
        "`id`",
        "n; n",
        "n # n",
        "*n",
    ],
)
def test_what_is_no_condition_is_told(text: str) -> None:
    """Nothing of Python but what the page says is read."""
    with pytest.raises(Misread):
        read_condition(node(text))


@given(st.text(alphabet=st.sampled_from("ab{}()[]<>=!'\"., :andornt\\#0-1"), max_size=30))
def test_any_text_is_a_condition_or_misread(text: str) -> None:
    """And nothing else comes of it."""
    said = "fine"
    try:
        read_condition(Node(text, Source("x", text).place(0, 0), text, last=1))
    except Misread as exc:
        said = exc.fault.message
    assert said


def test_braces_around_a_name_are_as_good_as_none() -> None:
    """As texts have them."""
    assert read_condition(node("{n} > 2 and { n } < 4")) == read_condition(node("n > 2 and n < 4"))


@pytest.mark.parametrize(
    ("condition", "wrong"),
    [
        ("n > 1 and word == 'x' and n in [1, 2] and word in words and 'e' in word", False),
        ("any > 1 or any == 'x' or any in any or maybe == 'x' or maybe != null", False),
        ("mood == 'good' and mood in ['bad']", False),
        ("maybe != null and maybe > 'a'", False),
        ("n == 3.0 and yes == true and n != null and word != null", False),
        ("mood == 'fine'", True),
        ("n == 'x'", True),
        ("word in [1, 2]", True),
        ("n in word", True),
        ("3 in n", True),
        ("maybe > 'a'", True),
        ("yes > 1", True),
        ("words > 1", True),
        ("not (n == 'x')", True),
    ],
)
def test_a_comparison_is_held_against_the_types(condition: str, wrong: bool) -> None:
    """What can't be, or never holds, is told; what may be is not."""
    hints: Mapping[str, Any] = {
        "n": int,
        "word": str,
        "words": list[str],
        "yes": bool,
        "any": Any,
        "mood": Mood,
        "maybe": str | None,
    }
    assert bool(list(clashes(read_condition(node(condition)), hints))) is wrong


def test_a_condition_tells_what_is_not_null() -> None:
    """By itself, by a comparison, and only where all of it holds."""
    hints = dict.fromkeys("abcdefg", int | None)
    found = narrowed(hints, read_condition(node("a and b != null and c == 1 and (d or e != null) and f > 1")))
    assert {name for name in hints if found[name] is int} == {"a", "b", "c", "f"}


def test_hints_are_made_of_hints() -> None:
    """Unions, items and mappings, with Any where nothing can be told."""
    assert either(int, str, int) == int | str
    assert either(int, Any) is Any
    assert either("Later", int) is Any
    assert [item_of(h) for h in (list[int], tuple[int, str], set[int] | list[str], Any, list)] == [
        int,
        int | str,
        int | str,
        Any,
        Any,
    ]
    assert [item_of(h) for h in (int, str, dict[str, int], list[int] | None, Literal["a"])] == [None] * 5
    made = mapping_of({"a b": int, "c": list[str]})
    assert (made.__name__, get_type_hints(made)) == ("{a b: int, c: list[str]}", {"a b": int, "c": list[str]})


@given(
    st.recursive(
        st.sampled_from(["{a}", "x {a} y", "{{a}}", "{b", "{ a }", "}", "", "plain"]),
        lambda i: st.lists(i, max_size=3),
    ),
    st.text(),
)
def test_a_value_is_put_in_once(tree: Any, value: str) -> None:
    """At any depth, whatever the value looks like."""
    made = parse(Source("x.yaml", json.dumps({"v": tree})), [])
    assert made is not None

    def filled(part: Any) -> Any:
        if isinstance(part, list):
            return [filled(inner) for inner in part]
        return "{a}" if part == "{{a}}" else part.replace("{a}", value)

    assert value_in(made.parts["v"]).of({"a": value}) == filled(tree)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("v: 'x {a} y'\n", 1, 7),
        ('v: "\\u0078 {a}"\n', 1, 12),
        ("v: |\n  one\n  {b} {a}\n", 3, 7),
        ("v: >\n  one\n  two {a}\n", 3, 7),
        ("v:\r\n  one {a}\r\n", 2, 7),
        ("v: 'x {{a}} {a}'\n", 1, 8),
        ("v: [x, {a}]\n", 1, 9),
    ],
)
def test_a_reference_has_its_place(text: str, line: int, column: int) -> None:
    """In every way to write a text."""
    made = parse(Source("x.yaml", text), [])
    assert made is not None
    place = next(r.place for r in value_in(made.parts["v"]).references if r.name == "a")
    assert (place.line, place.column) == (line, column)
