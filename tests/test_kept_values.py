"""Values on their way through journal and cache: what a body gets is the same before a crash and after it."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from flowlet import InputError, configure, run, step, with_options, workflow
from flowlet.journals import MemoryJournal

SURROGATE = os.fsdecode(b"caf\xe9.txt")
LONG = 10**5000


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@step
def same(x: Any) -> Any:
    return x


@step
def given(name: str) -> int:
    return LONG if name == "int" else len(name)


@step(cache=True)
def cached(name: str) -> int:
    return given(name)


@step
def text(which: int) -> str:
    return SURROGATE


@step(cache=True)
def cached_text(which: int) -> str:
    return SURROGATE


@workflow
def takes(name: str, size: int = 0) -> int:
    return len(name)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: text(1), r"the result of step 'text' can't be kept\n  \$: expected text that JSON can hold"),
        (lambda: cached_text(1), "the result of step 'cached_text' can't be kept"),
        (lambda: given(SURROGATE), "name: expected text that JSON can hold"),
        (lambda: same([SURROGATE]), r"x\[0\]: expected text that JSON can hold"),
        (
            lambda: given("int"),
            r"the result of step 'given' can't be kept\n  \$: expected a whole number that",
        ),
        (lambda: cached("int"), "the result of step 'given' can't be kept"),
        (lambda: same(LONG), "x: expected a whole number that JSON can hold, found int object"),
        (lambda: same({"a": [LONG]}), r"x\.a\[0\]: expected a whole number that JSON can hold"),
    ],
)
def test_what_can_not_be_read_back_is_refused_at_once(
    journal: MemoryJournal, backend: str, call: Callable[[], Any], told: str
) -> None:
    """A lone surrogate, and a whole number of more digits than Python reads; the step and the path are named."""
    configure(backend=backend)

    @workflow
    def body() -> Any:
        return call()

    @workflow
    async def abody() -> Any:
        return call()

    for fn in (body, abody):
        with pytest.raises(InputError, match=told):
            run(with_options(fn, journal=journal))


@pytest.mark.parametrize(("args", "place"), [((SURROGATE,), "name"), (("a", LONG), "size")])
def test_inputs_that_can_not_be_read_back_are_refused(
    journal: MemoryJournal, args: tuple[Any, ...], place: str
) -> None:
    """Before the run begins, since it could not be resumed."""
    with pytest.raises(
        InputError, match=rf"the inputs of workflow 'takes' can't be kept\n  {place}: expected"
    ):
        run(with_options(takes, journal=journal, run_id="r"), *args)
    assert not journal.runs()
