"""The fingerprint of code: what changes it, what does not, and that it is the same in every process."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from functools import partial, wraps
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest.mock import Mock
from uuid import UUID

import pytest
from attrs import frozen, mutable

from flowlet import LLM, AsyncLLM, prompt, step, untrusted, with_options
from flowlet._fingerprint import constants_of, fingerprint, loose_of
from flowlet.testing import MockLLM


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Pair(NamedTuple):
    a: int
    b: str


@frozen
class Rates:
    low: float
    high: float = 2.0


@mutable
class Counter:
    count: int = 0


CONSTANTS: list[tuple[object, object]] = [
    (1, 2),
    (1, True),
    (1, 1.0),
    ("1", 1),
    ("a", "b"),
    ("a", b"a"),
    (None, 5),
    (0.0, -0.0),
    (10**5000, 10**5000 + 1),
    ((1, 2), (2, 1)),
    ((1, (2, "x")), (1, (2, "y"))),
    (("ab", "c"), ("a", "bc")),
    (frozenset({"a", "b"}), frozenset({"a", "c"})),
    (Colour.RED, Colour.BLUE),
    (Level.LOW, Level.HIGH),
    (Level.LOW, 1),
    (Pair(1, "x"), Pair(1, "y")),
    (Pair(1, "x"), (1, "x")),
    (Rates(1.0), Rates(1.0, 3.0)),
    (date(2026, 1, 1), date(2026, 1, 2)),
    (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1)),
    (timedelta(1), timedelta(2)),
    (Decimal("1.0"), Decimal("1.00")),
    (UUID(int=1), UUID(int=2)),
    (Path("a"), Path("b")),
    (re.compile("a"), re.compile("a", re.IGNORECASE)),
    (re.compile("a" * 300 + "b"), re.compile("a" * 300 + "c")),
    (range(3), range(4)),
    (list[int], list[str]),
    (int | str, int | None),
    (Literal["a"], Literal["b"]),
    (untrusted("a"), untrusted("b")),
    (untrusted("a"), "a"),
    (LLM("openai:g1"), LLM("openai:g2")),
    (LLM(temperature=0), LLM(temperature=1)),
    (LLM(system="a"), LLM(system="b")),
    (LLM(extra={"a": 1}), LLM(extra={"a": 2})),
    (LLM("openai:g1"), AsyncLLM("openai:g1")),
    (prompt("Say {x}"), prompt("Sing {x}")),
]


def closing_over(value: object) -> Callable[[], object]:
    return lambda: value


@pytest.mark.parametrize(("one", "other"), CONSTANTS, ids=lambda value: type(value).__name__)
def test_constants_from_outside_count(one: object, other: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the module and those of the functions around it, each told from any other."""
    monkeypatch.setitem(globals(), "CONSTANT", one)

    def uses() -> object:
        return CONSTANT  # type: ignore[name-defined] # noqa: F821

    prints = [fingerprint(uses), fingerprint(closing_over(one)), fingerprint(uses)]
    monkeypatch.setitem(globals(), "CONSTANT", other)
    changed = [fingerprint(uses), fingerprint(closing_over(other)), fingerprint(uses)]
    assert prints[0] == prints[2] != changed[0] == changed[2]
    assert prints[1] != changed[1]
    assert fingerprint(closing_over(one)) == prints[1]
    assert not loose_of(closing_over(one))
    assert constants_of(uses) == ("CONSTANT",)
    assert constants_of(closing_over(other)) == ("value",)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1], [2]),
        ({}, {"a": 1}),
        ({1}, {2}),
        (([1],), ([2],)),
        (Counter(1), Counter(2)),
        (threading.Lock(), object()),
        (None, threading.Lock()),
        (len, print),
        (closing_over(1), closing_over(2)),
        (Colour, Level),
        (os, re),
        (LLM(timeout=1, attempts=1), LLM(timeout=2)),
        (MockLLM(["a"]), MockLLM(["b"])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_may_change_or_is_called_has_no_part(
    one: object, other: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists, objects, functions, classes, modules of a module; nor what does not change an answer."""

    def uses() -> object:
        return CONSTANT  # type: ignore[name-defined] # noqa: F821

    monkeypatch.setitem(globals(), "CONSTANT", one)
    before = fingerprint(uses)
    monkeypatch.setitem(globals(), "CONSTANT", other)
    assert fingerprint(uses) == before


SAME = {
    "docstring added": ("print(x)", "'Doc.'\nprint(x)"),
    "docstring of one that uses None": ("return x or None", "'Doc.'\nreturn x or None"),
    "docstring changed": ("'One.'\nreturn 'k'", "'Another.'\nreturn 'k'"),
    "docstring alone": ("pass", "'Doc.'"),
    "docstring of an inner function": (
        "def g():\n  'One.'\n  return 1\nreturn g",
        "def g():\n  return 1\nreturn g",
    ),
    "docstring of an inner class": (
        "class G:\n  'One.'\n  y = x\nreturn G",
        "\n# Far.\n\nclass G:\n  y = x\nreturn G",
    ),
    "try": (
        "try: return x()\nexcept Exception: pass",
        "try:\n  # Why.\n  return x()\nexcept Exception:\n  pass",
    ),
    "with": ("with x: return 1", "with x:\n  return 1"),
    "text": ("return 'ab'", "return (\n  'a'\n  'b'\n)"),
    "loop": ("for y in x: y = x; z = y\nreturn z", "for y in x:\n  y = x\n  z = y\n\nreturn z"),
    "arguments": ("y = x; return x(x, y, x)", "y = x\nreturn x(\n  x,\n  y,\n  x,\n)"),
    "while": ("while True:\n  if x: break", "while True:\n  if (\n    x\n  ):\n    break"),
}


def compiled(body: str) -> Callable[..., object]:
    names: dict[str, Any] = {}
    exec("def f(x):\n" + body.replace("\n", "\n ").join((" ", "\n")), names)
    return names["f"]


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_layout_comments_and_docstrings_have_no_part(one: str, other: str) -> None:
    """Wherever they stand, and whatever numbers Python gives to constants and lines for them."""
    assert fingerprint(compiled(one)) == fingerprint(compiled(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("'Say.'\nreturn x('Say.')", "'Sing.'\nreturn x('Sing.')"),
        ("return x('a', 'b')", "return x('b', 'a')"),
        ("return x.a", "return x.b"),
        ("return x < 1", "return x > 1"),
        ("return x + 1", "return x - 1"),
        ("return x if x else 1", "return 1 if x else x"),
        ("while x(): x(1)", "while x():\n  x(1)\n  break"),
        ("try: x(1); x(2)\nexcept OSError: pass", "try: x(1)\nexcept OSError: pass\nx(2)"),
        ("return f'{x}'", "return f'{x!r}'"),
        ("y = x; x = 1; return y, x", "y = x; x = 1; return x, y"),
        ("return lambda: 1", "return lambda: 2"),
    ],
)
def test_what_is_done_counts(one: str, other: str) -> None:
    """Also a text that is the docstring, too."""
    assert fingerprint(compiled(one)) != fingerprint(compiled(other))


MODULE = """
from functools import partial
from types import ModuleType
from flowlet import step, workflow

parts = ModuleType("parts")
parts.inner = ModuleType("inner")

@step
def one(x): return x {how}

@workflow
def middle(x): return one(x)

def around(client):
    @step
    def inner(x): return client, x {how}
    return inner

@step
def odd(x): return x and even(x - 1)

@step
def even(x): return not x or odd(x {how})

def plain(x): return x {how}

parts.one = parts.inner.one = one
parts.plain = plain
parts.RATE = {{"a": 1, "b": 2}}
BOTH, HALF, MADE = (one, 1), partial(one, 1), around([])

def uses(x): return {body}
"""


def used(body: str, how: str = "+ 1") -> Any:
    names: dict[str, Any] = {"__name__": "flows"}
    exec(MODULE.format(body=body, how=how), names)
    return names["uses"]


@pytest.mark.parametrize(
    "body",
    [
        "one(x)",
        "middle(x)",
        "[one(y) for y in x]",
        "(lambda: one(x))()",
        "BOTH[0](x)",
        "HALF()",
        "MADE(x)",
        "odd(x)",
        "parts.one(x)",
        "parts.inner.one(x)",
        "print(parts.one)",
    ],
)
def test_steps_and_workflows_that_it_names_count(body: str) -> None:
    """By their code, also by way of others and of modules, so that a change below is a change above."""
    before = used(body)
    assert fingerprint(before) == fingerprint(used(body)) != fingerprint(used(body, "+ 2"))
    assert loose_of(before) == (), "what a step below takes from around it"


@pytest.mark.parametrize(
    "body", ["plain(x)", "parts.plain(x)", "parts.missing", "x.one", "parts.RATE.get", "missing.one"]
)
def test_plain_functions_that_it_names_do_not(body: str) -> None:
    """Nor what else is found in another module."""
    assert fingerprint(used(body)) == fingerprint(used(body, "+ 2"))


def test_a_step_that_is_bound_anew_is_seen() -> None:
    """In its module and in another."""
    for body in ("one(x)", "parts.one(x)"):
        function = used(body)
        before, names = fingerprint(function), function.__globals__
        names["one"] = names["parts"].one = used(body, "+ 2").__globals__["one"]
        assert fingerprint(function) != before


def test_a_state_that_it_changes_itself_has_no_part() -> None:
    """A counter, say; the code of who else changes it can't be known."""
    count, seen = 0, 0

    def counts(x: int) -> int:
        def inner() -> None:
            nonlocal count
            count += 1

        inner()
        global TOTAL
        TOTAL = globals().get("TOTAL", 0) + 1
        return x + seen

    before = fingerprint(counts)
    counts(1)
    assert (count, fingerprint(counts)) == (1, before)
    seen = 1
    assert fingerprint(counts) != before


def test_functions_around_count_by_their_code_and_all_that_they_take() -> None:
    """Since each step that is made so may have another: decorated ones, partials, methods, ones that call each other."""

    def calling(fn: Callable[..., object]) -> Callable[..., object]:
        return lambda x: fn(x)

    def more(by: int, how: str = "") -> Callable[..., object]:
        return lambda x, how=how: x + by

    def recursive(by: int) -> Callable[..., object]:
        def even(x: int) -> object:
            return x == by or odd(x - 1)

        def odd(x: int) -> object:
            return x != by and even(x - 1)

        return even

    plain = step(more(1))
    fns: list[Any] = [
        more(1),
        more(2),
        more(1, "x"),
        partial(pow, 2),
        partial(pow, 3),
        len,
        "a".join,
        "b".join,
    ]
    fns += [
        Pair(1, "x").count,
        Pair(1, "y").count,
        recursive(1),
        recursive(2),
        Colour,
        Level,
        Rates(1).__eq__,
    ]
    fns += [plain, with_options(plain, model="offline"), with_options(plain, name="other")]
    prints = [fingerprint(calling(fn)) for fn in fns]
    assert len({*prints}) == len(fns)
    assert not any(loose_of(calling(fn)) for fn in fns)
    again = [more(1), "a".join, recursive(1), step(more(1))]
    assert [prints.index(fingerprint(calling(fn))) for fn in again] == [0, 6, 10, 15]


def test_it_looks_below_decorators() -> None:
    """At what they took, and at the function that they wrap, with its defaults."""

    def times(n: int) -> Callable[[Any], Any]:
        def around(fn: Any) -> Any:
            lock = threading.Lock()

            @wraps(fn)
            def inner(*args: Any) -> Any:
                with lock:
                    return fn(*args) * n

            return inner

        return around

    def made(add: int, rate: int, n: int) -> Any:
        if add == 1:

            def tax(x: int, rate: int = rate) -> int:
                return x * rate + 1
        else:

            def tax(x: int, rate: int = rate) -> int:
                return x * rate + 2

        return times(n)(tax)

    prints = [fingerprint(made(*how)) for how in [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 1, 1)]]
    assert len({*prints}) == 4
    assert prints[0] == prints[4]
    assert loose_of(made(1, 1, 1)) == ()  # a decorator may hold what it likes


def test_which_variable_is_taken_counts() -> None:
    """Also where both have the same value."""

    def make(net: int, gross: int) -> list[Any]:
        def one(x: int) -> int:
            return x * net

        def other(x: int) -> int:
            return x * gross

        return [one, other]

    one, other = make(1, 1)
    assert fingerprint(one) != fingerprint(other)


def test_what_no_fingerprint_can_tell_is_named() -> None:
    """By its variable and its type; also what a function that is followed takes."""
    client, words, later = threading.Lock(), ["a"], 1

    def helper() -> object:
        return client

    def uses() -> object:
        return helper(), words, later

    assert loose_of(uses) == ("client (a lock)", "words (a list)")


def test_an_object_of_a_strange_kind_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a proxy for what is there within a request only: it is no data, and is not touched."""

    class Proxy:
        @property
        def __class__(self) -> type:  # type: ignore[override]
            raise RuntimeError("outside of a request")

        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    class Strange(type):
        __hash__ = None  # type: ignore[assignment]

    def uses() -> object:
        return CONSTANT  # type: ignore[name-defined] # noqa: F821

    for constant in (Proxy(), Strange("Kind", (), {})(), Mock(), None):  # the last lets go of the others
        monkeypatch.setitem(globals(), "CONSTANT", constant)
        assert fingerprint(uses)


def test_a_variable_that_is_bound_later_is_seen() -> None:
    """One that has no value yet does no harm."""

    def make() -> Iterator[Any]:
        def uses() -> int:
            return later

        yield uses
        later = 5
        yield uses

    made = make()
    before = fingerprint(next(made))
    assert fingerprint(next(made)) != before


def test_methods_that_call_their_class_count_by_their_code() -> None:
    """``super()`` takes the class itself from around."""

    class Base:
        def price(self) -> int:
            return 1

    class Shop(Base):
        def price(self) -> int:
            return super().price() + 1

    assert loose_of(Shop.price) == ()
    assert fingerprint(Shop().price) == fingerprint(Shop.price)


SCRIPT = """
from flowlet import LLM, prompt, untrusted
from flowlet._fingerprint import fingerprint
from test_fingerprint import CONSTANTS, closing_over

WORDS = frozenset({"a", "b", "c", "d", "e"})
def uses(x): return x in {"k", "l", "m", "n"} and x in WORDS and (lambda y: y in {1, "z"})(x)
print(fingerprint(uses), *(fingerprint(closing_over(value)) for pair in CONSTANTS for value in pair))
"""


def test_it_is_the_same_in_every_process() -> None:
    """Whatever the seeds of hashes are, and wherever objects lie."""
    found = set()
    for seed in ("0", "1", "2", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1


FLOWS = """
from enum import Enum
from attrs import frozen
from flowlet._fingerprint import fingerprint

class Colour(Enum):
    RED = "red"

@frozen
class Rates:
    low: float

RATES, COLOUR, CLASSES = Rates(1.0), Colour.RED, (Rates, Colour)

def uses(x):
    return __name__, __file__, RATES, COLOUR, CLASSES

def main():
    print(fingerprint(uses))

if __name__ == "__main__":
    main()
"""


def test_it_is_the_same_for_a_program_and_a_module(tmp_path: Path) -> None:
    """So that what ``python flows.py`` has begun, ``flowlet resume`` ends."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "flows.py").write_text(FLOWS)
    ways = (["package/flows.py"], ["-m", "package.flows"], ["-c", "import package.flows as f; f.main()"])
    found = set()
    for way in ways:
        done = subprocess.run([sys.executable, *way], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1
