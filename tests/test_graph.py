"""Graphs of names: circles, stages and the drawing, whatever the graph."""

from graphlib import CycleError
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlet._graph import circles, drawn, mermaid, stages

NAMES = st.sampled_from("abcdefgh")
GRAPHS = st.dictionaries(NAMES, st.lists(NAMES, max_size=4), max_size=8).map(
    lambda needs: {name: [n for n in needed if n in needs] for name, needed in needs.items()}
)


def test_a_circle_is_drawn_in_the_order_of_the_work() -> None:
    """What comes first in the file begins, and each is needed by the next."""
    assert circles({"b": ["a"], "a": ["c"], "c": ["b"], "d": ["a"]}) == [("b", "c", "a", "b")]
    assert drawn(("a", "b", "c", "a")) == "a → b → c → a"


def test_a_long_circle_is_cut() -> None:
    """Its beginning and its end tell where to look."""
    names = [f"s{number}" for number in range(30)]
    (found,) = circles({name: [names[at - 1]] for at, name in enumerate(names)})
    assert drawn(found) == "s0 → s1 → s2 → s3 → s4 → s5 → … → s29 → s0"


def test_all_circles_are_found_at_once() -> None:
    """Those that share no name; a step that needs itself is one."""
    assert circles({"a": ["b"], "b": ["a"], "c": ["c"], "d": ["a"], "e": []}) == [("a", "b", "a"), ("c", "c")]


@given(GRAPHS)
def test_a_graph_has_stages_or_circles(needs: dict[str, list[str]]) -> None:
    """Stages hold every name once, behind all that it needs; circles are real ones."""
    found = circles(needs)
    for circle in found:
        assert circle[0] == circle[-1]
        assert all(one in needs[other] for one, other in pairwise(circle))
    if found:
        with pytest.raises(CycleError):
            stages(needs)
        return
    stage_of = {name: number for number, stage in enumerate(stages(needs)) for name in stage}
    assert sorted(stage_of) == sorted(needs)
    assert all(stage_of[one] < stage_of[name] for name in needs for one in needs[name])


def test_a_name_that_mermaid_knows_is_drawn_all_the_same() -> None:
    """Nothing in a name or a label breaks the drawing."""
    assert mermaid({"end": 'say "hi" <b>', "x": "(x)"}, [("x", "end", "for each"), ("x", "x", "")]).split(
        "\n"
    ) == [
        "flowchart TD",
        '    end_["say #quot;hi#quot; #lt;b>"]',
        '    x(["x"])',
        '    x -->|"for each"| end_',
        "    x --> x",
    ]
