"""Runs with a journal that end otherwise than by themselves: each can be resumed at once, and nothing is lost."""

import gc
import os
import random
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest

from flowlet import (
    ConfigError,
    DefinitionError,
    ExcludeFromKey,
    InputError,
    JournalError,
    RunStopped,
    WorkflowTimeout,
    apmap,
    arun,
    configure,
    forget_runs,
    last_run,
    load_workflow,
    pmap,
    recorded,
    recorded_runs,
    register_provider,
    resume,
    rewind,
    run,
    start,
    step,
    with_options,
    workflow,
)
from flowlet.display._plain import Lines
from flowlet.display._report import page_of
from flowlet.display._text import text_of
from flowlet.display._view import view_of
from flowlet.entries import Entry
from flowlet.events import BodyDiverged, PluginFailed
from flowlet.journals import MemoryJournal, SQLiteJournal
from flowlet.testing import MockProvider
from rig import CancelAt, Heard, Trap, until

ran: list[str] = []
failing: set[str] = set()
rolled: list[int] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()
    failing.clear()
    rolled.clear()


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


def enter(name: str) -> None:
    ran.append(name)
    if name in failing:
        raise ValueError(name)


@step
def add(x: int) -> int:
    enter(f"add {x}")
    return x + 1


@step
async def double(x: int) -> int:
    enter(f"double {x}")
    await anyio.sleep(0)
    return x * 2


def kept(body: Any, journal: Any, **options: Any) -> Any:
    return with_options(body, journal=journal, run_id="r", **options)


# --- keys do not depend on order -----------------------------------------------------------------


@step
def roll() -> int:
    rolled.append(len(rolled))
    return rolled[-1]


@step
def pair(item: int, rolled: int) -> tuple[int, int]:
    enter(f"pair {item}")
    return item, rolled


@step
def last() -> None:
    enter("last")


async def arolled(item: int) -> tuple[int, int]:
    await anyio.sleep(random.random() / 200)
    return await arun(pair, item, await arun(roll))


def rolled_pair(item: int) -> tuple[int, int]:
    threading.Event().wait(random.random() / 200)
    return pair(item, roll())


@workflow
async def in_tasks() -> list[tuple[int, int]]:
    found = await apmap(arolled, [*range(6), 0])
    last()
    return found


@workflow
def in_threads() -> list[tuple[int, int]]:
    found = pmap(rolled_pair, [*range(6), 0])
    last()
    return found


@workflow
def in_children() -> list[tuple[int, int]]:
    handles = [start(rolled_pair, item) for item in range(6)]
    found = [handle.result() for handle in handles]
    last()
    return found


@pytest.mark.parametrize("body", [in_tasks, in_threads, in_children])
def test_equal_calls_belong_to_their_item(
    body: Any, journal: MemoryJournal, backend: str, heard: Heard
) -> None:
    """Whatever order the items of a fan-out are worked on in, each finds its own results again."""
    failing.add("last")
    with pytest.raises(ValueError, match="last"):
        run(kept(body, journal, backend=backend))
    before = {entry.value for entry in recorded("r", journal).calls if entry.name == "pair"}
    ran.clear()
    failing.clear()
    found = run(kept(body, journal, backend=backend))
    assert ran == ["last"]
    assert {f"[{item},{rolled}]" for item, rolled in found} == before
    assert not heard.of(BodyDiverged)


def test_calls_of_a_fan_out_hang_on_what_called_them(journal: MemoryJournal) -> None:
    """The items themselves are no calls."""

    @step
    def outer() -> int:
        return sum(pmap(lambda x: add(x), [1, 2]))

    @workflow
    def body() -> int:
        return outer() + sum(pmap(add, [1, 2]))

    run(kept(body, journal))
    calls = recorded("r", journal).calls
    (above,) = [entry.key for entry in calls if entry.name == "outer"]
    assert sorted(entry.parent for entry in calls if entry.name == "add") == ["", "", above, above]


class Moody:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_items_that_are_no_data_are_told_apart_by_their_order(journal: MemoryJournal) -> None:
    """Whatever they raise when they are looked at."""
    nested: list[Any] = []
    nested.append(nested)

    @workflow
    def body() -> int:
        found = pmap(lambda item: roll(), [Moody(), nested, object(), lambda: 1, "\ud800"])
        found += [start(lambda item: roll(), Moody()).result()]
        last()
        return sum(found)

    failing.add("last")
    with pytest.raises(ValueError, match="last"):
        run(kept(body, journal))
    failing.clear()
    assert run(kept(body, journal)) == 15
    assert len(rolled) == 6


# --- deadlines, cancellation, Ctrl-C -------------------------------------------------------------


def test_a_run_whose_thread_was_left_behind_can_be_resumed_at_once(
    journal: MemoryJournal, trap: Trap
) -> None:
    """And what that thread still does is not written."""
    came_back = threading.Event()

    @workflow
    def stuck(x: int) -> int:
        found = add(x)
        if not failing:
            try:
                trap.sleep()
                add(100)
            except RunStopped:
                came_back.set()
                raise
        return found

    with pytest.raises(WorkflowTimeout):
        run(kept(stuck, journal, timeout=0.1), 1)
    assert recorded("r", journal).run.state == "timeout"
    assert recorded("r", journal).run.owner is None
    failing.add("nothing")
    assert run(kept(stuck, journal), 1) == 2
    trap.open.set()
    assert came_back.wait(5)
    assert ran == ["add 1"]
    assert recorded("r", journal).run.state == "completed"


def is_free(journal: MemoryJournal) -> bool:
    return all(one.owner is None for one in recorded_runs(journal))


@workflow
async def three(x: int) -> int:
    return add(await double(add(x)))


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_cancelled_run_is_given_back_at_every_step(anyio_backend: str) -> None:
    """Wherever the task that awaits it is cancelled, nothing finished runs again."""
    for at in range(300):
        ran.clear()
        journal = MemoryJournal()
        scope = anyio.CancelScope()
        cancel = CancelAt(at, scope.cancel)
        with cancel.counting(), scope:
            await arun(kept(three, journal), 1)
        await anyio.to_thread.run_sync(until, partial(is_free, journal))
        done = [e for e in journal.read("r") if e.kind == "step" and e.state == "completed"]
        assert len(ran) - len(done) <= 1
        ran.clear()
        assert await arun(kept(three, journal), 1) == 5
        assert len(ran) == 3 - len({entry.key for entry in done})
        if not cancel.acted:
            return
    pytest.fail("it never ended")


@pytest.mark.parametrize(("error", "state"), [(KeyboardInterrupt, "cancelled"), (SystemExit, "failed")])
def test_what_ends_the_program_is_recorded_as_what_it_is(
    error: type[BaseException], state: str, journal: MemoryJournal
) -> None:
    """Ctrl-C cancels a run, and an exit of its own is a failure; both can be resumed."""

    @workflow
    def ends(x: int) -> int:
        found = add(x)
        if not failing:
            raise error
        return found

    with pytest.raises(error):
        run(kept(ends, journal), 1)
    assert recorded("r", journal).run.state == state
    failing.add("nothing")
    assert resume("r", ends, journal=journal) == 2
    assert ran == ["add 1"]


class Interrupted(MemoryJournal):
    """A journal where Ctrl-C strikes once, after the n-th write."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def append(self, entries: Sequence[Entry], /) -> None:
        super().append(entries)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


class Unreadable(MemoryJournal):
    """A journal that can't be read, once, when a run has been claimed."""

    def __init__(self) -> None:
        super().__init__()
        self.faults = 1

    def read(self, run_id: str, /) -> Sequence[Entry]:
        if self._claimed and self.faults:
            self.faults -= 1
            raise JournalError("the disk fails")
        return super().read(run_id)


@pytest.mark.parametrize("body", ["def", "async def"])
def test_a_fault_while_a_run_is_opened_is_no_outcome_of_it(body: str, backend: str) -> None:
    """Nothing is recorded, and the run is free."""
    journal = Unreadable()
    begins = kept({"def": in_order, "async def": three}[body], journal, backend=backend)
    with pytest.raises(JournalError, match="the disk fails"):
        run(begins, 1)
    assert recorded_runs(journal) == []
    assert run(begins, 1) == {"def": 3, "async def": 5}[body]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_ctrl_c_amidst_a_write_loses_nothing(at: int) -> None:
    """What was to be written is written, and the run can be resumed."""
    journal = Interrupted(at)
    with pytest.raises(KeyboardInterrupt):
        run(kept(in_order, journal), 1)
    assert recorded("r", journal).run.state == "cancelled"
    done = [e for e in recorded("r", journal).calls if e.state == "completed"]
    assert len(done) == len(ran)
    ran.clear()
    assert run(kept(in_order, journal), 1) == 3
    assert len(ran) == 2 - len(done)


@workflow
def in_order(x: int) -> int:
    return add(add(x))


# --- processes -----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_writes_nothing_of_its_parents_run(tmp_path: Path) -> None:
    """Even where it runs on through the body; the parent keeps the run."""
    path = tmp_path / "runs.db"
    parent = os.getpid()

    @workflow
    def forks(x: int) -> int:
        found = add(x)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            found += add(10)
        return found

    try:
        result = run(kept(forks, path), 1)
    except BaseException:
        if os.getpid() != parent:
            os._exit(0)
        raise
    if os.getpid() != parent:
        os._exit(1)
    assert result == 13
    assert [e.state for e in recorded("r", path).entries] == [
        "running",
        "completed",
        "completed",
        "completed",
    ]


_LEFT = """
import os, time, sys
from flowlet import start, step, with_options, workflow

@step
def first(x: int) -> int:
    print("first", flush=True)
    return x + 1

@workflow
async def agoes_on(x: int) -> int:
    import anyio
    found = first(x)
    if not os.path.exists("left"):
        await anyio.sleep(60)
    return found

@workflow
def goes_on(x: int) -> int:
    found = first(x)
    if not os.path.exists("left"):
        time.sleep(60)
    return found

if __name__ == "__main__":
    body = {"def": goes_on, "async": agoes_on}[sys.argv[1]]
    handle = start(with_options(body, journal="runs.db", run_id="r", backend=sys.argv[2]), 1)
    while not handle.metrics.steps or handle.metrics.steps[0].state == "running":
        time.sleep(0.005)
"""


@pytest.mark.parametrize("colour", ["def", "async"])
def test_a_background_run_is_given_back_as_the_interpreter_ends(
    colour: str, tmp_path: Path, backend: str
) -> None:
    """Another process goes on with it, by the command line."""
    (tmp_path / "left.py").write_text(_LEFT)
    python = [sys.executable, "left.py", colour, backend]
    ended = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "first\n"
    store = SQLiteJournal(tmp_path / "runs.db")
    assert [(one.state, one.owner) for one in store.runs()] == [("cancelled", None)]
    store.close()
    (tmp_path / "left").touch()
    command = [sys.executable, "-m", "flowlet", "resume", "r", "--journal", "runs.db"]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    assert again.stdout == "2\n"


# --- what is no data -----------------------------------------------------------------------------


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    @step
    def price(self: Annotated["Shop", ExcludeFromKey], of: str) -> str:
        enter(of)
        return f"{of} at {self.name}"

    @step
    def unmarked(self) -> str:
        return self.name


def test_a_method_leaves_its_object_out_when_it_says_so(journal: MemoryJournal) -> None:
    """The annotation goes on ``self``; without it the error says so."""

    @workflow
    def prices() -> list[str]:
        found = [Shop("a").price("tea"), Shop("a").price("milk")]
        last()
        return found

    failing.add("last")
    with pytest.raises(ValueError, match="last"):
        run(kept(prices, journal))
    failing.clear()
    ran.clear()
    assert resume("r", prices, journal=journal) == ["tea at a", "milk at a"]
    assert ran == ["last"]
    with pytest.raises(InputError, match=r"(?s)self: .*ExcludeFromKey"):
        run(kept(lambda: Shop("a").unmarked(), MemoryJournal()))


def test_a_kept_method_does_not_keep_its_object_alive(journal: MemoryJournal) -> None:
    """What is remembered of its code is the function's."""
    shop = Shop("a")
    gone = weakref.ref(shop)
    assert run(kept(shop.price, journal), "tea") == "tea at a"
    del shop
    gc.collect()
    assert gone() is None


class Broken(MemoryJournal):
    """A store whose methods fail that are named *broken*, in a way of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = ""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return (
            partial(fail, name) if not name.startswith("_") and name == self.__dict__.get("broken") else found
        )


def fail(name: str, *args: object) -> None:
    raise ZeroDivisionError(f"in {name}")


@pytest.mark.parametrize("body", ["def", "async def"])
@pytest.mark.parametrize(
    ("name", "then"),
    [
        ("append", "; then resume run 'r'"),
        ("read", "; then resume run 'r'"),
        ("claim", "; then resume run 'r'"),
        ("run", ""),
    ],
)
def test_a_store_of_another_that_fails_as_it_likes_is_a_journal_error(
    name: str, then: str, body: str, backend: str
) -> None:
    """It is no outcome of the run, which can be resumed."""
    store = Broken()
    kind, result = {"def": (in_order, 3), "async def": (three, 5)}[body]
    failing.add("add 2" if body == "def" else "double 2")
    with pytest.raises(ValueError, match=failing.copy().pop()):
        run(kept(kind, store, backend=backend), 1)
    failing.clear()
    store.broken = name
    with pytest.raises(
        JournalError, match=f"the journal failed: ZeroDivisionError: in {name}{then}$"
    ) as caught:
        run(kept(kind, store, backend=backend), 1)
    assert isinstance(caught.value.__cause__, JournalError | ZeroDivisionError)
    store.broken = ""
    found = recorded("r", store).run
    assert (found.state, found.owner) == ("failed", None)
    assert run(kept(kind, store, backend=backend), 1) == result


@pytest.mark.parametrize("body", ["def", "async def"])
def test_a_store_that_does_not_take_a_run_back_loses_no_result(body: str, backend: str, heard: Heard) -> None:
    """That is told."""
    store = Broken()
    store.broken = "release"
    kind, result = {"def": (in_order, 3), "async def": (three, 5)}[body]
    for _ in range(2):
        assert run(kept(kind, store, backend=backend), 1) == result
    (event,) = heard.of(PluginFailed)
    assert event.run.id == "r"
    assert event.error == "the journal failed: ZeroDivisionError: in release"


def test_whatever_asks_a_store_of_another_is_told_of_a_journal_error() -> None:
    """Its exception is the cause."""
    store = Broken()
    run(kept(in_order, store), 1)
    asks: dict[str, list[Callable[[], object]]] = {
        "runs": [lambda: recorded_runs(store), lambda: recorded("nope", store)],
        "run": [lambda: recorded("r", store), lambda: resume("r", in_order, journal=store)],
        "read": [lambda: recorded("r", store), lambda: rewind("r", "add", store)],
        "claim": [lambda: rewind("r", "add", store), lambda: forget_runs(["r"], store)],
        "append": [lambda: rewind("r", "add", store)],
        "forget": [lambda: forget_runs(["r"], store)],
        "expire": [lambda: forget_runs([], store)],
    }
    for store.broken, calls in asks.items():
        for call in calls:
            with pytest.raises(
                JournalError, match=f"the journal failed: ZeroDivisionError: in {store.broken}"
            ) as caught:
                call()
            assert isinstance(caught.value.__cause__, ZeroDivisionError | JournalError)


def test_a_store_whose_methods_are_async_is_told() -> None:
    """Nothing would be written otherwise."""

    class Async(MemoryJournal):
        async def append(self, entries: Sequence[Entry], /) -> None:  # type: ignore[override]
            super().append(entries)

    with pytest.raises(
        JournalError, match="its 'append' is async; a journal has plain functions; then start it again"
    ):
        run(kept(in_order, Async()), 1)


@pytest.mark.parametrize("bad", [MemoryJournal, [], object()])
def test_what_is_no_journal_is_refused(bad: Any) -> None:
    """A class is not meant, nor has it a run to tell of."""
    with pytest.raises(DefinitionError, match=r'is not a file such as "runs.db", or a journal'):
        with_options(in_order, journal=bad)
    with pytest.raises(ConfigError, match="journal: expected the path of a file, or a journal"):
        configure(journal=bad)


@pytest.mark.parametrize("name", ["x\0.db", "~nobody-of-this-name/x.db"])
def test_a_name_that_no_file_can_have_is_told(name: str) -> None:
    """Before anything runs."""
    for call in (lambda: run(kept(in_order, name), 1), lambda: recorded_runs(name)):
        with pytest.raises(JournalError, match="no file can have this name"):
            call()
    assert ran == []


@pytest.mark.parametrize("bad", [None, 5, ["r"], b"r"])
def test_an_id_that_is_no_text_is_told(bad: Any, journal: MemoryJournal) -> None:
    """Whatever is to be done with the run."""
    run(kept(in_order, journal), 1)
    for call in (recorded, resume, lambda bad, journal: rewind(bad, "add", journal)):
        with pytest.raises(InputError, match="the id of a run is a text, not"):
            call(bad, journal=journal)
    with pytest.raises(InputError, match="the id of a run is a text, not 5"):
        forget_runs([5], journal)  # type: ignore[list-item]


def test_a_damaged_run_takes_no_other_with_it(backend: str) -> None:
    """Though what many runs write goes into the journal at once."""

    class Damaged(MemoryJournal):
        def append(self, entries: Sequence[Entry], /) -> None:
            if any(entry.run_id == "r0" and entry.key for entry in entries):
                raise JournalError("run 'r0' is damaged")
            super().append(entries)

    @step
    async def waited(x: int) -> int:
        await anyio.sleep(0.01)
        return x

    @workflow
    async def slow() -> int:
        return sum([await waited(x) for x in range(4)])

    damaged = Damaged()
    handles = [
        start(with_options(slow, journal=damaged, run_id=f"r{number}", backend=backend))
        for number in range(6)
    ]
    assert [handle.result() for handle in handles[1:]] == [6] * 5
    with pytest.raises(JournalError, match="run 'r0' is damaged"):
        handles[0].result()


# --- what has changed, and what is shown ---------------------------------------------------------


def test_a_step_that_is_added_to_a_file_lets_the_others_be(journal: MemoryJournal, tmp_path: Path) -> None:
    """Steps in YAML are known by their names, not by their order."""
    steps = ["a: {prompt: 'Say {x}.'}", "b: {prompt: 'Say {x}.'}", "c: {prompt: 'End {a} {b}.'}"]
    file = tmp_path / "brief.yaml"

    def written(*lines: str) -> Any:
        file.write_text("\n  ".join(["inputs: {x: str}\nsteps:", *lines]) + "\noutput: '{c}'\n")
        return kept(load_workflow(file), journal, model="mock:m")

    answers = iter(["first", "second", ValueError("no third"), "new", "end"])
    provider = MockProvider(lambda _: next(answers))
    register_provider("mock", provider)
    with pytest.raises(ValueError, match="no third"):
        run(written(*steps), "tea")
    assert run(written("new: {prompt: 'Say {x}.'}", *steps), "tea") == "end"
    assert provider.requests[-1].messages[-1].content in ("End first second.", "End second first.")
    assert len(provider.requests) == 5


def test_displays_say_where_a_result_came_from(journal: MemoryJournal) -> None:
    """The tree, plain lines, the notebook and the page, of a step, of many, and of a whole run."""
    failing.add("last")
    with pytest.raises(ValueError, match="last"):
        run(kept(shown, journal))
    failing.clear()
    painted = StringIO()
    painter = Lines(painted)
    configure(observers=[lambda event: painter.show([event])])
    run(kept(shown, journal))
    assert "shown r  add #0  from the journal in" in painted.getvalue()
    assert re.search("in_order [0-9a-f]+  from the journal in", painted.getvalue())
    view = view_of(last_run().metrics)
    tree = text_of(view)
    assert "add  from the journal" in tree
    assert "double ×4  4 from the journal" in tree
    assert "in_order  from the journal" in tree
    assert "from the journal" in page_of(view)
    run(kept(shown, journal))
    assert text_of(view_of(last_run().metrics)).startswith("✓ shown  from the journal")


@workflow
def shown() -> int:
    found = add(1) + sum(pmap(double, [1, 2, 3, 4])) + in_order(1)
    last()
    return found
