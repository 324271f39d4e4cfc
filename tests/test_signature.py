"""A call is checked against its signature: nothing is converted, every fault is told."""

import functools
import gc
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import pytest
from attrs import frozen

from flowlet._signature import check_inputs, check_result, signature_of
from flowlet.errors import InputError

if TYPE_CHECKING:
    from nowhere import Ghost  # type: ignore[import-not-found]

T = TypeVar("T", bound=str)


@frozen
class Item:
    name: str


class Client:
    pass


class Speaker(Protocol):
    def speak(self) -> str: ...


def order(topic: str, count: int = 1, *, item: Item | None = None, tags: list[str] = []) -> Item:  # noqa: B006
    return item or Item(topic * count + "".join(tags))


def faults(fn: Callable[..., object], *args: Any, **kwargs: Any) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        check_inputs(fn, args, kwargs)
    return caught.value.faults


def test_a_call_that_fits_passes():
    """Positions, keywords and defaults may be mixed as in any call."""
    check_inputs(order, ("a",), {})
    check_inputs(order, ("a", 2), {"item": Item("x"), "tags": ["t"]})
    check_inputs(order, (), {"count": 2, "topic": "a", "item": None})


def test_all_faults_come_at_once():
    """Values that do not fit are told by parameter and path, unexpected names with the nearest one."""
    assert faults(order, 5, "x", tags=["a", 1], itme=2) == (
        "itme: unexpected, did you mean item?",
        "topic: expected text, found 5",
        'count: expected a whole number, found "x"',
        "tags[1]: expected text, found 1",
    )
    assert faults(order, count=True) == (
        "topic: missing",
        "count: expected a whole number, found True",
    )
    assert faults(order, "a", 1, 2, topic="b") == (
        "at most 2 positional arguments fit, found 3",
        "topic: given twice",
    )


def test_the_message_shows_the_signature():
    """The error names the function with its parameters; those with a default are marked."""
    with pytest.raises(InputError, match=r"^order\(topic, count=…, item=…, tags=…\) can't take"):
        check_inputs(order, (), {})


def test_defaults_and_unannotated_parameters_are_not_checked():
    """A default is the author's own word, and no hint allows anything."""

    def loose(a, b: int = "none", *rest, **more):  # type: ignore[assignment]
        return a, b, rest, more

    check_inputs(loose, (object(),), {})
    check_inputs(loose, (1, 2, 3, 4), {"c": 5})
    assert faults(loose, 1, "x") == ('b: expected a whole number, found "x"',)


def test_variadic_arguments_are_checked_one_by_one():
    """Each of *args and **kwargs has its own path."""

    def total(first: int, /, *rest: int, **named: float) -> float:
        return first + sum(rest) + sum(named.values())

    check_inputs(total, (1, 2, 3), {"first": 1})
    assert faults(total, 1, 2, "x", y="z") == (
        'rest[1]: expected a whole number, found "x"',
        'y: expected a number, found "z"',
    )


def test_what_is_no_data_is_checked_by_its_class():
    """Clients and callables fit by isinstance, Protocols that can't be asked pass, and bounds count."""

    def use(client: Client, call: Callable[[], int], speaker: Speaker, kind: type[Client], text: T) -> T:
        return text

    check_inputs(use, (Client(), print, object(), Client, "x"), {})
    assert faults(use, 1, 2, 3, 4, 5) == (
        "client: expected Client, found 1",
        "call: expected a callable, found 2",
        "kind: expected a class, found 4",
        "text: expected text, found 5",
    )


def test_a_hint_that_cannot_be_resolved_allows_anything():
    """A name known only to type checkers, or not yet defined, breaks neither decoration nor call."""

    def haunted(ghost: "Ghost", count: "int", later: "list[Undefined]") -> "Ghost":  # noqa: F821
        return ghost

    check_inputs(haunted, (1, 2, 3), {})
    check_result(haunted, object())
    assert faults(haunted, 1, "x", 3) == ('count: expected a whole number, found "x"',)


def test_hints_resolve_at_first_use():
    """A class that is defined after the function is known when the function is called."""
    names: dict[str, Any] = {"__name__": "cell"}
    exec("def late(x: 'Late'): ...", names)
    exec("class Late: ...", names)
    assert faults(names["late"], 1) == ("x: expected Late, found 1",)


def test_a_result_is_checked_against_the_return_hint():
    """The result has paths that begin with its own word."""

    def prices() -> dict[str, list[float]]:
        return {}

    check_result(prices, {"a": [1, 2.5]})
    with pytest.raises(InputError, match=r'result\.a\[1\]: expected a number, found "x"'):
        check_result(prices, {"a": [1, "x"]})
    check_result(order, Item("a"))
    check_result(lambda: 1, object())


def test_methods_partials_and_callable_objects_are_read():
    """Whatever can be called has a signature."""

    class Adder:
        def __call__(self, n: int) -> int:
            return n

        def method(self, n: int) -> int:
            return n

    for fn in (Adder(), Adder().method, functools.partial(order, "a"), print):
        check_inputs(fn, (1,), {})
    for fn in (Adder(), Adder().method):
        assert faults(fn, "x") == ('n: expected a whole number, found "x"',)
    assert faults(functools.partial(order, "a"), "x") == ('count: expected a whole number, found "x"',)


def test_a_signature_is_read_once_and_not_kept_alive():
    """The cache gives the same object to every thread, and lets go of functions that are gone."""

    def short(x: Annotated[int, "a number"]) -> int:
        return x

    found = signature_of(short)
    threads = [threading.Thread(target=check_inputs, args=(short, (1,), {})) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert signature_of(short) is found
    assert str(found) == "short(x)"
    gone = weakref.ref(short)
    del short, threads, thread
    gc.collect()
    assert gone() is None
