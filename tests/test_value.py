"""What the frozen values of the vocabulary share."""

import inspect
from importlib import import_module
from typing import Any

import attrs
import pytest

from flowlet._value import Shown, Value
from flowlet.metrics import TokenUsage, Usage


@attrs.frozen(eq=False, repr=False)
class Ours(Value):
    x: int
    y: Any = attrs.field(default=0, repr=False)
    z: Any = attrs.field(default=0, eq=False)


@attrs.frozen
class Theirs:
    x: int
    y: Any = attrs.field(default=0, repr=False)
    z: Any = attrs.field(default=0, eq=False)


@pytest.mark.parametrize("other", [(1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3)])
def test_values_are_compared_as_attrs_would(other: tuple[int, int, int]) -> None:
    """By class and fields; a field with ``eq=False`` does not count."""
    ours, theirs = ([cls(1, 2, 3), cls(*other)] for cls in (Ours, Theirs))
    assert (ours[0] == ours[1]) is (theirs[0] == theirs[1])
    assert len(set(ours)) == len(set(theirs))
    assert ours[0] != theirs[0]


def test_a_value_is_shown_as_attrs_would() -> None:
    """By the names of its fields; one with ``repr=False`` is not told."""
    assert repr(Ours(1, 2, "a")).replace("Ours", "Theirs") == repr(Theirs(1, 2, "a"))
    assert repr(_local()) == "Local(x=TokenUsage(" + repr(TokenUsage()).partition("(")[2] + ")"


def _local() -> object:
    @attrs.frozen(eq=False, repr=False)
    class Local(Shown):
        x: object

    return Local(TokenUsage())


def test_what_can_not_be_hashed_says_so() -> None:
    """As a tuple of the same values would."""
    assert hash(Usage(calls=1)) == hash(Usage(calls=1))
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        hash(Ours(1, []))


VOCABULARY = ("metrics", "messages", "entries", "specs", "events", "protocols", "_catalogue", "errors")


@pytest.mark.parametrize("name", VOCABULARY)
def test_no_class_forgets_its_base(name: str) -> None:
    """Who tells attrs not to write equality and ``repr`` has them from here, unless it is an exception."""
    module = import_module(f"flowlet.{name}")
    found = [
        cls for _, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == module.__name__
    ]
    for cls in filter(attrs.has, found):
        assert issubclass(cls, Shown)
        assert issubclass(cls, Value | BaseException) or cls.__name__ == "Spec"
