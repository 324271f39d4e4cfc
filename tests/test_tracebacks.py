"""An error leaves flowlet with the frames of the user as they were, and with none of ours that holds a value."""

import os
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import anyio
import pytest

import flowlet
from flowlet import agather, arun, pmap, run, start, step, with_options, workflow
from flowlet._tracebacks import conceal
from flowlet.errors import InputError, ProviderError

OURS = str(Path(flowlet.__file__).parent)


@step
def fails(text: str) -> str:
    mine = text.upper()
    raise LookupError(mine)


@workflow
def body(text: str) -> str:
    return fails(text)


@workflow
async def abody(text: str) -> str:
    return fails(text)


def frames_of(exc: BaseException) -> Iterator[FrameType]:
    return (frame for frame, _ in traceback.walk_tb(exc.__traceback__))


def check(exc: BaseException) -> None:
    """The user's frames are all there, with their values, and none of ours."""
    *_, last = frames_of(exc)
    assert last.f_code.co_name == "fails"
    assert last.f_locals["mine"] == "TEA"
    assert not [frame for frame in frames_of(exc) if frame.f_code.co_filename.startswith(OURS + os.sep)]


@pytest.mark.parametrize("fn", [fails, body, with_options(body, timeout=5), abody])
def test_sync_calls(fn, background: str) -> None:
    """At once, with a timeout, and in the background; fetched twice."""
    with pytest.raises(LookupError) as caught:
        run(fn, "tea")
    check(caught.value)
    handle = start(fn, "tea")
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            handle.result(5)
        check(caught.value)
    with pytest.raises(LookupError) as caught:
        pmap(fails, ["tea"])
    check(caught.value)


@pytest.mark.anyio
async def test_async_calls(anyio_backend: str) -> None:
    """In the caller's loop."""
    for fn in (fails, body, abody):
        with pytest.raises(LookupError) as caught:
            await arun(fn, "tea")
        check(caught.value)


@pytest.mark.anyio
async def test_an_error_that_goes_several_ways_ends_none_of_them(anyio_backend: str) -> None:
    """Tasks that wait for one failing run all get its error, also while others are still at it."""
    go = threading.Event()
    ended: list[str] = []

    @workflow
    def late() -> str:
        assert go.wait(5)
        raise LookupError("late")

    @workflow
    async def waits(name: str, handle: flowlet.Run[str]) -> str:
        try:
            return await handle
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            ended.append(name)

    handle = start(late)
    async with anyio.create_task_group() as group:

        async def one(name: str) -> None:
            with pytest.raises(LookupError):
                await agather(waits(name, handle), waits(name, handle))

        for name in "abc":
            group.start_soon(one, name)
        await anyio.sleep(0.01)
        go.set()
    assert sorted(ended) == sorted("aabbcc")


def test_packages_named_like_ours_are_not_ours() -> None:
    """The frames of a plugin named ``flowlet_tea`` stay, with their values."""
    space = {"fails": fails}
    exec(compile("def above(text):\n    return fails(text)\n", f"{OURS}_tea/steps.py", "exec"), space)
    with pytest.raises(LookupError) as caught:
        run(space["above"], "tea")
    (above,) = (frame for frame in frames_of(caught.value) if frame.f_code.co_name == "above")
    assert above.f_locals == {"text": "tea"}


def test_what_began_with_us_shows_where() -> None:
    """The last frames are ours, without values."""
    with pytest.raises(InputError) as caught:
        run(body, 3)
    *_, last = frames_of(caught.value)
    assert last.f_code.co_filename.startswith(OURS)
    assert not last.f_locals


def test_what_still_runs_is_not_touched() -> None:
    """A suspended generator of ours goes on after an error that it caught was shown elsewhere."""
    code = "def waits():\n    try:\n        fail()\n    except LookupError as exc:\n        yield exc\n        yield 'on'\n"
    space = {"fail": lambda: fails("tea")}
    exec(compile(code, OURS + "/made_up.py", "exec"), space)
    waiting = space["waits"]()
    conceal(next(waiting))
    assert next(waiting) == "on"


def test_a_cause_with_a_secret_is_cut_off_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without stays, and so does any cause of the user's own errors."""
    monkeypatch.setenv("SOME_API_KEY", "canary-0123456789")
    for text, error, kept in (
        ("it is canary-0123456789", ProviderError("other", "x"), False),
        ("nothing to hide", ProviderError("other", "x"), True),
        ("it is canary-0123456789", LookupError("x"), True),
    ):
        error.__cause__ = ValueError(text)
        conceal(error)
        assert (error.__cause__ is not None) is kept


def test_threads_share_an_error() -> None:
    """Several fetch one result at once, and each gets the whole error."""
    handle = start(body, "tea")
    names: list[str] = []

    def fetch() -> None:
        try:
            handle.result(5)
        except LookupError as exc:
            names.append([frame.f_code.co_name for frame in frames_of(exc)][-1])

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == ["fails"] * 8
