"""Coroutines of async steps that a body drops un-awaited: the run's error, or Python's warning."""

import gc
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from flowlet import BridgeError, apmap, arun, pmap, run, step, with_options, workflow
from flowlet._engine import _dropped

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(warnings, "_warn_unawaited_coroutine"), reason="only CPython tells of it"),
]


@step
async def asave(number: int) -> int:
    return number


@step
def save(number: int) -> int:
    return number


@step
def forgets() -> None:
    asave(1)  # type: ignore[unused-coroutine]


@step
async def aforgets() -> None:
    asave(1)  # type: ignore[unused-coroutine]


async def aforgets_it(_: int) -> None:
    asave(1)  # type: ignore[unused-coroutine]


def line(fn: Callable[..., object]) -> str:
    """The line below the head of *fn*, as an error names it."""
    code = getattr(fn, "__wrapped__", fn).__code__
    return f"{code.co_name}, {code.co_filename}:{code.co_firstlineno + 1}"


def nowhere() -> None:
    asave(1)  # type: ignore[unused-coroutine]


def in_a_list() -> None:
    with_options(save, name="keep")([asave(1)])  # type: ignore[arg-type]


def before_a_step() -> None:
    asave(1)  # type: ignore[unused-coroutine]
    save(1)
    raise AssertionError("no step begins any more")


def in_a_variable() -> None:
    _ = asave(1)


LOOKS = {
    "if": "'yes' if asave(1) else 'no'",
    "not": "not asave(1)",
    "and": "asave(1) and 2",
    "or": "(asave(1) or 2) == 2",
    "==": "asave(1) == 1",
    "is None": "asave(1) is None",
    "is None, as a condition": "1 if asave(1) is None else 2",
    "in": "1 in [asave(1)]",
    "f-string": "f'{asave(1)}'",
    "f-string with !r": "f'{asave(1)!r:>9}'",
    "%": "'%s' % asave(1)",
    "index": "[asave(1), 2][1]",
    "slice": "[asave(1), 2][1:]",
    "comprehension": "[n for n in (1, 2) if asave(n)]",
    "generator": "any(asave(n) for n in (1, 2))",
    "filter, unpacked into a list": "[*filter(asave, [1])]",
    "filter, unpacked into a set": "{*filter(asave, [1])}",
    "filter, as a loop": "[n for n in filter(asave, [1])]",
    "bool": "bool(asave(1))",
}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_body_that_only_looks_at_a_coroutine_fails(look: str, asynchronous: bool) -> None:
    """It would take the wrong way, since a coroutine is true, equal to nothing, and so on."""
    body: dict[str, Any] = {"asave": asave}
    exec(f"{'async ' * asynchronous}def body():\n    return {look}", body)
    with pytest.raises(BridgeError, match="'asave' is async and was not awaited"):
        run(body["body"])


def test_a_loop_on_a_coroutine_is_told_at_its_end() -> None:
    """With the line that asks."""

    def body() -> int:
        number = 0
        while asave(number) and number < 3:
            number += 1
        return number

    with pytest.raises(BridgeError, match=rf"{body.__code__.co_firstlineno + 2}\.\n"):
        run(body)


@pytest.mark.parametrize("make", [lambda c: [c], lambda c: (c, c), lambda c: {"n": c}, lambda c: {c}])
def test_a_coroutine_in_a_result_is_refused(make: Callable[[object], object]) -> None:
    """In lists, tuples, sets and dicts, of both colours."""

    async def abody() -> object:
        return make(asave(1))

    for body in (lambda: make(asave(1)), abody):
        with pytest.raises(BridgeError, match="gave its coroutine in a"):
            run(body)


@pytest.mark.parametrize("body", [nowhere, in_a_list, before_a_step])
@pytest.mark.parametrize("timeout", [None, 10])
def test_what_a_sync_body_drops_is_its_error(body: Callable[[], None], timeout: float | None) -> None:
    """It names the step, the line, and the lines that work."""
    with pytest.raises(BridgeError, match="'asave' is async and was not awaited") as caught:
        run(with_options(body, timeout=timeout))
    assert line(body) in str(caught.value)
    assert "await asave(...)" in str(caught.value)
    assert "run(asave, ...)" in str(caught.value)


def test_a_body_that_returns_is_named_without_a_line() -> None:
    """A variable is dropped after the last line, so the body is named."""
    with pytest.raises(BridgeError, match="dropped in 'in_a_variable'"):
        run(in_a_variable)


async def test_what_an_async_body_drops_is_its_error() -> None:
    """At its end, or when it calls the next step, of either colour."""

    async def at_the_end() -> None:
        asave(1)  # type: ignore[unused-coroutine]

    async def then_async() -> None:
        asave(1)  # type: ignore[unused-coroutine]
        await asave(2)
        raise AssertionError("no step begins any more")

    async def then_sync() -> None:
        asave(1)  # type: ignore[unused-coroutine]
        save(2)
        raise AssertionError("no step begins any more")

    for body in (at_the_end, then_async, then_sync):
        with pytest.raises(BridgeError, match="'asave' is async and was not awaited") as caught:
            await arun(body)
        assert line(body) in str(caught.value)


async def test_what_steps_and_fan_outs_drop_is_an_error_of_the_run() -> None:
    """In steps of both colours, on worker threads, and in the calls of ``pmap`` and ``apmap``."""

    async def calls_both() -> None:
        await aforgets()

    async def calls_moved() -> None:
        forgets()

    async def fans_out() -> None:
        await apmap(aforgets_it, [1, 2])

    for body in (calls_both, calls_moved, fans_out):
        with pytest.raises(BridgeError, match="'asave' is async and was not awaited"):
            await arun(body)
    for plain in (forgets, lambda: pmap(lambda _: forgets(), [1, 2])):
        with pytest.raises(BridgeError, match="'asave' is async and was not awaited"):
            await arun(plain)


def test_the_body_s_own_error_is_raised_and_tells_of_the_drop() -> None:
    """What was dropped may be why it failed."""

    def body() -> None:
        asave(1)  # type: ignore[unused-coroutine]
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        run(body)
    assert "'asave' is async and was not awaited" in caught.value.__notes__[-1]


def test_a_child_run_has_its_own_drops() -> None:
    """The child fails, and a parent that catches this goes on."""

    @workflow
    def child() -> None:
        asave(1)  # type: ignore[unused-coroutine]

    def body() -> int:
        with pytest.raises(BridgeError):
            child()
        return save(3)

    assert run(body) == 3


def told(call: Callable[[], object]) -> list[warnings.WarningMessage]:
    """What Python warns of while *call* goes on."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return found


def test_an_error_that_was_handled_leaves_a_warning() -> None:
    """What an exception kept alive was not left by the body that handles it."""

    def fails() -> None:
        _ = asave(1)
        raise ValueError

    def body() -> int:
        try:
            fails()
        except ValueError:
            return save(3)
        return 0

    assert len(told(lambda: run(body))) == 1


def test_an_error_in_the_same_expression_leaves_a_warning() -> None:
    """It was to be awaited, had the rest not failed, which the body handles; later drops are told."""
    errors: list[Exception] = []

    def both(*_: object) -> object: ...

    def handles() -> int:
        wrong: list[Callable[[], object]] = [
            lambda: int("x"),
            lambda: both(asave(1), int("x")),
            lambda: both(asave(1), errors[9]),
        ]
        for fails in wrong:
            try:
                both(asave(1), fails())
            except (IndexError, ValueError) as exc:
                errors.append(exc)
        return save(3)

    assert len(told(lambda: run(handles))) == 5


def test_errors_that_are_kept_hide_no_drop() -> None:
    """Only one that breaks off this very expression does."""
    errors: list[ValueError] = []

    def body() -> None:
        try:
            int("x")
        except ValueError as exc:
            errors.append(exc)
        asave(1)  # type: ignore[unused-coroutine]

    with pytest.raises(BridgeError):
        run(body)


def test_an_attempt_that_failed_leaves_a_warning() -> None:
    """The next one may await what it makes."""
    tried: list[int] = []

    @step(attempts=2)
    async def unsteady() -> int:
        coroutine = asave(len(tried))
        tried.append(1)
        if len(tried) == 1:
            raise ValueError
        return await coroutine

    assert len(told(lambda: run(unsteady))) == 1


def test_the_garbage_collector_fails_no_run() -> None:
    """It strikes in any run, so what it finds is Python's to tell."""

    def body() -> int:
        ring: list[Any] = [asave(1)]
        ring.append(ring)
        del ring
        gc.collect()
        return save(3)

    assert len(told(lambda: run(body))) == 1


@step
def calls_another() -> int:
    async def other() -> None: ...

    other()  # type: ignore[unused-coroutine]
    return 3


def test_python_warns_of_all_others_as_before() -> None:
    """Outside of runs, and of functions that are no steps: with the line that dropped them."""

    def outside() -> None:
        asave(1)  # type: ignore[unused-coroutine]

    (warned,) = told(outside)
    assert (warned.filename, warned.lineno) == (__file__, outside.__code__.co_firstlineno + 1)
    (warned,) = told(lambda: run(calls_another))
    assert warned.filename == __file__
    assert "other' was never awaited" in str(warned.message)


def test_the_line_of_creation_is_told_when_python_keeps_it() -> None:
    """With origin tracking (asyncio's debug mode) a variable has its line too."""
    sys.set_coroutine_origin_tracking_depth(1)
    try:
        with pytest.raises(BridgeError) as caught:
            run(in_a_variable)
    finally:
        sys.set_coroutine_origin_tracking_depth(0)
    assert line(in_a_variable) in str(caught.value)


def test_an_interpreter_without_that_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is put where Python has nothing."""
    monkeypatch.delattr(warnings, "_warn_unawaited_coroutine")
    _dropped._watch()
    assert not hasattr(warnings, "_warn_unawaited_coroutine")


def test_a_fault_of_ours_leaves_python_s_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A destructor must not raise."""
    monkeypatch.setattr(_dropped, "_LEFT", None)
    assert len(told(lambda: run(nowhere))) == 1
