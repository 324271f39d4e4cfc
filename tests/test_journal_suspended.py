"""A suspended run: whatever its body makes of the fault, nothing more of it is written, and it goes on rightly."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from flowlet import (
    LLM,
    AsyncLLM,
    JournalError,
    apmap,
    configure,
    pmap,
    recorded,
    register_provider,
    resume,
    rewind,
    run,
    start,
    step,
    with_options,
    workflow,
)
from flowlet.entries import Entry
from flowlet.events import BodyDiverged
from flowlet.journals import MemoryJournal
from flowlet.testing import MockProvider
from rig import Heard

FALLBACK = -1


class Full(MemoryJournal):
    """A journal whose disk is full for one write."""

    full = False

    def append(self, entries: Sequence[Entry], /) -> None:
        if self.full:
            self.full = False
            raise JournalError("the disk is full")
        super().append(entries)


armed: list[Full] = []
failing: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    armed.clear()
    failing.clear()


@pytest.fixture
def store() -> Full:
    """A journal that fails when the price is to be written."""
    armed.append(Full())
    return armed[0]


def arm() -> None:
    if armed:
        armed.pop().full = True


@step
def price(x: int) -> int:
    arm()
    return x


@step
async def aprice(x: int) -> int:
    arm()
    return x


def tolerant(x: int) -> int:
    try:
        return price(x)
    except Exception:
        return FALLBACK


async def atolerant(x: int) -> int:
    try:
        return await aprice(x)
    except Exception:
        return FALLBACK


def grasping(x: int) -> int:
    try:
        return price(x)
    except BaseException:
        return FALLBACK


def spread(x: int) -> int:
    try:
        return sum(pmap(price, [x]))
    except Exception:
        return FALLBACK


def started(x: int) -> int:
    try:
        return start(price, x).result()
    except Exception:
        return FALLBACK


def told(x: int, llm: LLM = LLM()) -> int:
    arm()
    try:
        return int(llm.ask(f"{x}"))
    except Exception:
        return FALLBACK


async def atold(x: int, llm: AsyncLLM = AsyncLLM()) -> int:
    arm()
    try:
        return int(await llm.ask(f"{x}"))
    except Exception:
        return FALLBACK


async def of_sync(x: int) -> int:
    return step(tolerant)(x)


def calling(inner: Any) -> Any:
    """A workflow whose body calls *inner*, which may be in a step, in a cached one, or in a child run."""

    @workflow
    def body(x: int) -> int:
        return inner(x)

    return body


def acalling(inner: Any) -> Any:
    @workflow
    async def body(x: int) -> int:
        return await inner(x)

    return body


by_x = step(cache=lambda x: x)
BODIES: dict[str, Any] = {
    **{f"body {fn.__name__}": workflow(fn) for fn in (tolerant, atolerant, grasping, spread, started)},
    **{f"step {fn.__name__}": calling(step(fn)) for fn in (tolerant, grasping, spread, started, told)},
    **{f"step {fn.__name__}": acalling(step(fn)) for fn in (atolerant, atold)},
    "sync step of an async body": workflow(of_sync),
    "child run": calling(workflow(tolerant)),
    "async child run": acalling(workflow(atolerant)),
    "cached": calling(by_x(tolerant)),
    "async cached": acalling(by_x(atolerant)),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_a_swallowed_fault_leads_to_is_no_outcome(
    name: str, store: Full, backend: str, heard: Heard
) -> None:
    """Neither of a step, nor of a child run, nor of the run; nor is it cached for others."""
    register_provider("mock", MockProvider(lambda request: "7"))
    configure(model="mock:m")
    body = with_options(BODIES[name], backend=backend)
    with pytest.raises(JournalError, match="the disk is full; then resume run 'r'"):
        run(with_options(body, journal=store, run_id="r"), 7)
    found = recorded("r", store)
    assert (found.run.state, found.run.owner) == ("running", None)
    assert not [entry for entry in found.entries if entry.key and entry.state != "running"]
    assert run(with_options(body, journal=store), 7) == 7
    assert resume("r", body, journal=store) == 7
    assert not heard.of(BodyDiverged)


robust, arobust = step(tolerant), step(atolerant)
cached, acached = step(cache=lambda x: x)(tolerant), step(cache=lambda x: x)(atolerant)
child, achild = workflow(tolerant), workflow(atolerant)


@workflow
def everywhere(x: int) -> int:
    try:
        found = sum(pmap(grasping, [x, x + 1])) + robust(x) + start(achild, x).result()
    except Exception:
        found = FALLBACK
    return found + cached(x) + child(x)


@workflow
async def aeverywhere(x: int) -> int:
    try:
        found = sum(await apmap(atolerant, [x, x + 1])) + await arobust(x) + await start(child, x)
    except Exception:
        found = FALLBACK
    return found + await acached(x) + await achild(x)


class Failing(MemoryJournal):
    """A journal that fails at one write, or at all from then on."""

    def __init__(self, at: int, sticky: bool) -> None:
        super().__init__()
        self.at, self.sticky, self.writes = at, sticky, 0

    def append(self, entries: Sequence[Entry], /) -> None:
        self.writes += 1
        if self.at and (self.writes == self.at or (self.sticky and self.writes > self.at)):
            raise JournalError("the disk fails")
        super().append(entries)


@pytest.mark.parametrize("body", [everywhere, aeverywhere])
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
def test_wherever_a_fault_strikes_the_result_is_right(body: Any, sticky: bool, backend: str) -> None:
    """Though each part of the body makes something else of it."""
    for at in range(1, 100):
        store = Failing(at, sticky)
        kept = with_options(body, journal=store, backend=backend)
        with suppress(JournalError):
            assert run(with_options(kept, run_id="r"), 1) == 7
            assert store.writes < at
            return
        store.at = 0
        assert store.run("r") is None or store.run("r").state == "running"
        assert [run(kept, 1), run(with_options(kept, run_id="r"), 1)] == [7, 7], at
    pytest.fail("it never ended")


def changing(factor: int) -> Any:
    """A workflow whose cached step tolerates all that goes wrong with a price, which is made with *factor*."""

    @step(name="priced")
    def priced(x: int) -> int:
        return x * factor

    @step(name="shipped")
    def shipped(x: int) -> int:
        if failing:
            raise OSError("away")
        return x

    @step(name="robust", cache=lambda x: x)
    def robust(x: int) -> int:
        try:
            found = priced(x)
        except Exception:
            return FALLBACK
        return shipped(found)

    @workflow(name="body")
    def body(x: int) -> int:
        return robust(x)

    return body


def test_a_swallowed_refusal_of_changed_code_is_no_outcome() -> None:
    """The recorded price is still taken when that is asked for, and other runs make their own."""
    store = MemoryJournal()
    failing.append("shipped")
    with pytest.raises(OSError, match="away"):
        run(with_options(changing(1), journal=store, run_id="r"), 7)
    failing.clear()
    with pytest.raises(JournalError, match="the code of step .priced., .* has changed"):
        resume("r", changing(2), journal=store)
    assert run(with_options(changing(2), journal=store), 7) == 14
    assert resume("r", changing(1), journal=store) == 7


# --- refused -------------------------------------------------------------------------------------


def ending(factor: int, asynchronous: bool) -> Any:
    """A workflow that makes a price with *factor*, and then ends as it is told to."""

    @step(name="priced")
    def priced(x: int) -> int:
        return x * factor

    @step(name="end")
    def end() -> None:
        arm()
        if "failed" in failing:
            raise OSError("away")
        if "cancelled" in failing:
            raise KeyboardInterrupt

    @workflow(name="body")
    def body(x: int) -> int:
        found = priced(x)
        end()
        return found

    @workflow(name="body")
    async def abody(x: int) -> int:
        found = priced(x)
        end()
        return found

    return abody if asynchronous else body


def stands(store: MemoryJournal) -> tuple[Any, ...]:
    found = recorded("r", store)
    ended = None if found.run.state == "running" else found.run.ended
    return found.run.state, found.error, ended, found.run.owner, found.calls


@pytest.mark.parametrize("asynchronous", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize(
    ("state", "raised"),
    [("failed", OSError), ("cancelled", KeyboardInterrupt), ("running", JournalError), ("pending", OSError)],
)
def test_a_resume_that_is_refused_leaves_a_run_as_it_was(
    state: str, raised: type[BaseException], asynchronous: bool, backend: str, store: Full
) -> None:
    """As nothing was gone on with; also when it is refused again."""
    if state != "running":
        armed.clear()
        failing.append(state.replace("pending", "failed"))
    with pytest.raises(raised):
        run(with_options(ending(1, asynchronous), journal=store, run_id="r", backend=backend), 7)
    failing.clear()
    if state == "pending":
        rewind("r", "end", store)
    was = stands(store)
    assert was[0] == state
    for _ in range(2):
        with pytest.raises(JournalError, match="the code of step 'priced'"):
            resume("r", ending(2, asynchronous), journal=store)
        assert stands(store) == was
    assert resume("r", ending(2, asynchronous), journal=store, changed_code="reuse") == 7
