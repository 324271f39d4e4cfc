"""A hint of every kind, with the values that belong to it."""

import dataclasses
import enum
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypeVar

from attrs import field, frozen, validators
from hypothesis import strategies as st
from typing_extensions import TypeAliasType, TypedDict

T = TypeVar("T")
UserId = NewType("UserId", int)
Json = TypeAliasType("Json", "list[Json] | dict[str, Json] | str | int | float | bool | None")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@frozen
class Item:
    name: str
    price: Annotated[float, "in US dollars"] = 0.0


@frozen
class Cart:
    items: tuple[Item, ...]
    owner: str | None = None
    _secret: str = "s"


@dataclasses.dataclass
class Point:
    x: float
    y: float
    norm: float = dataclasses.field(init=False, default=0.0)


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


@frozen
class Node:
    value: int
    children: "tuple[Node, ...]" = ()


@frozen
class Box(Generic[T]):
    content: T


@frozen
class IntBox(Box[int]):
    label: str


@frozen
class Cat:
    name: str


@frozen
class Dog:
    name: str


@frozen
class Circle:
    kind: Literal["circle"]
    r: float


@frozen
class Square:
    kind: Literal["square"]
    r: float


@frozen
class Age:
    years: int = field(validator=validators.ge(0))


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ITEMS = st.builds(Item, TEXT, FLOATS)
NODES = st.recursive(
    st.builds(Node, st.integers()), lambda inner: st.builds(Node, st.integers(), st.tuples(inner, inner))
)
VALUES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, st.integers()),
    (float, FLOATS),
    (str, TEXT),
    (bytes, st.binary()),
    (datetime, st.datetimes(timezones=st.just(UTC) | st.none())),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (uuid.UUID, st.uuids()),
    (Path, st.builds(Path, TEXT)),
    (Color, st.sampled_from(Color)),
    (Literal["a", 1, True], st.sampled_from(["a", 1, True])),
    (UserId, st.integers()),
    (list[Item], st.lists(ITEMS)),
    (set[int], st.sets(st.integers())),
    (frozenset[str], st.frozensets(TEXT)),
    (tuple[int, str], st.tuples(st.integers(), TEXT)),
    (dict[str, Item], st.dictionaries(TEXT, ITEMS)),
    (dict[int, date], st.dictionaries(st.integers(), st.dates())),
    (dict[tuple[int, int], str], st.dictionaries(st.tuples(st.integers(), st.integers()), TEXT)),
    (Cart, st.builds(Cart, st.tuples(ITEMS), TEXT | st.none(), TEXT)),
    (Point, st.builds(Point, FLOATS, FLOATS)),
    (Pair, st.builds(Pair, st.integers(), TEXT)),
    (Movie, st.fixed_dictionaries({"title": TEXT}, optional={"year": st.integers()})),
    (Node, NODES),
    (Box[date], st.builds(Box, st.dates())),
    (IntBox, st.builds(IntBox, st.integers(), TEXT)),
    (int | str | None, st.integers() | TEXT | st.none()),
    (int | float | bool, st.integers() | FLOATS | st.booleans()),
    (list[Cat | Dog], st.lists(st.builds(Cat, TEXT) | st.builds(Dog, TEXT))),
    (Circle | Square, st.builds(Circle, st.just("circle"), FLOATS)),
    (Cat | dict[str, int], st.builds(Cat, TEXT) | st.dictionaries(TEXT, st.integers())),
    (Box[int] | Box[str], st.builds(Box, st.integers() | TEXT)),
    (Json, st.recursive(st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner))),
]
