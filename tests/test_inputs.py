"""Inputs are held to limits before the first step, and what is within them costs next to nothing."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from flowlet import InputError, arun, configure, run, start, step, workflow
from flowlet._engine._options import check_limits
from flowlet.settings import InputLimits, check

ran: list[object] = []


@frozen
class Mail:
    subject: str
    parts: list[Any]


@dataclass
class Box:
    mails: dict[str, Mail]


@step
def note(value: object) -> None:
    ran.append(value)


@workflow
def take(value: Any, *more: Any, **named: Any) -> None:
    note(value)


@workflow
async def atake(value: Any) -> None:
    note(value)


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def refused(value: object, call: Callable[..., object] = take) -> tuple[str, ...]:
    ran.clear()
    with pytest.raises(InputError, match="can't take these arguments") as caught:
        run(call, value)
    assert ran == []
    return caught.value.faults


@pytest.mark.parametrize("call", [take, atake])
def test_control_characters_are_refused_with_their_places(call: Callable[..., object]) -> None:
    """All at once, before the first step, in both modes; the text itself is not shown."""
    box = Box({"a": Mail("NUL \0", ["fine\n", ("bell", b"\0", "\x07")]), "b\x1b": Mail("", [])})
    advice = "take it out, or allow such with the setting inputs.control"
    assert refused(box, call) == (
        f"value.mails.a.subject: expected text, found the control character U+0000 at 4; {advice}",
        f"value.mails.a.parts[1][2]: expected text, found the control character U+0007 at 0; {advice}",
        f'value.mails["b\\u001b"]: expected text, found the control character U+001B at 1; {advice}',
    )


def test_what_texts_do_have_is_allowed() -> None:
    """Line ends, tabs, form feeds, emoji, right-to-left text, lone surrogates, numbers, bytes and objects."""
    values = [
        "a\tb\r\nc\f\v",
        "🙂 שלום \u202e \ufeff",
        "\ud800",
        "",
        1,
        2.5,
        None,
        True,
        b"\0\1",
        Path("/"),
        object(),
    ]
    for value in values:
        run(take, value)
    assert ran == values


def test_positional_and_named_rest_are_checked_too() -> None:
    """Each fault has the name of its argument."""
    with pytest.raises(InputError) as caught:
        run(take, "fine", "\0", extra="\x01")
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["args[1]", "extra"]


def test_size_counts_all_texts_together() -> None:
    """Many small ones are as much as one large one; bytes count too."""
    configure(inputs=InputLimits(size=10))
    run(take, ["12345", {"6789": b"0"}])
    assert refused(["12345", {"6789": b"01"}]) == (
        "expected at most 10 characters in all, found 11; raise the setting inputs.size to allow more",
    )
    assert len(refused("12345678901")) == 1


def test_depth_is_limited() -> None:
    """A value that is nested too deep is told with its place, and so is one that holds itself but once."""
    deep: Any = "end"
    for _ in range(101):
        deep = [deep]
    (fault,) = refused(deep)
    assert fault.endswith("expected at most 100 levels (the setting inputs.depth), found more")
    run(take, deep[0])
    endless: list[Any] = []
    endless.append(endless)
    run(take, endless)


def test_shared_parts_are_looked_at_once() -> None:
    """A value that would be 2**60 items when written out takes no time."""
    shared: Any = ["x"]
    for _ in range(60):
        shared = [shared, shared]
    began = time.monotonic()
    run(take, shared)
    assert time.monotonic() - began < 2


@pytest.mark.anyio
async def test_every_way_to_begin_a_run_checks() -> None:
    """``start``, ``await arun`` and a plain call do as ``run`` does."""
    with pytest.raises(InputError):
        start(take, "\0")
    for abegin in (lambda: arun(atake, "\0"), lambda: atake("\0")):
        with pytest.raises(InputError):
            await abegin()
    assert ran == []


def test_child_runs_and_steps_are_trusted() -> None:
    """What the program itself makes may hold what it likes."""

    @workflow
    def parent() -> None:
        take("\0")

    run(parent)
    assert ran == ["\0"]


def test_limits_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the file, in the environment, in Python."""
    monkeypatch.chdir(tmp_path)
    Path("flowlet.yaml").write_text("inputs:\n  control: true\n  size: 5\n")
    monkeypatch.setenv("FLOWLET_INPUTS_DEPTH", "2")
    assert "inputs.depth = 2 (FLOWLET_INPUTS_DEPTH)" in check()
    run(take, "\0")
    refused("123456")
    refused([[["x"]]])


def test_a_short_text_costs_less_than_a_microsecond() -> None:
    """The check is on the path of every run."""

    def fn(text: str) -> None: ...

    def once() -> float:
        began = time.process_time()
        for _ in range(10_000):
            check_limits(fn, ("Write a title for tea.",), {})
        return (time.process_time() - began) / 10_000

    assert min(once() for _ in range(5)) < 1e-6
