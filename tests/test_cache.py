"""Results that are kept across runs: found by code, arguments and model, made once, never errors."""

import sqlite3
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import asdict, fields, frozen

from flowlet import (
    LLM,
    DefinitionError,
    InputError,
    JournalError,
    WorkflowTimeout,
    apmap,
    configure,
    last_run,
    pmap,
    recorded,
    recorded_runs,
    register_provider,
    rewind,
    run,
    step,
    usage,
    with_options,
    workflow,
)
from flowlet.events import CacheFailed
from flowlet.journals import MemoryJournal, SQLiteJournal
from flowlet.providers.openai import OpenAIProvider
from flowlet.settings import OpenAISettings
from flowlet.testing import MockProvider
from rig import Heard, Trap

ran: list[int] = []
failing: list[int] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()
    failing.clear()


class Paid(MockProvider):
    """Is no mock, as far as flowlet knows, and may be asked in a test."""

    live = None


def by_x(x: int) -> int:
    """Key steps that use what the test around them shares with them."""
    return x


@step(cache=True)
def square(x: int) -> int:
    ran.append(x)
    if x in failing:
        raise ValueError(x)
    return x * x


@step(cache=True)
async def asquare(x: int) -> int:
    ran.append(x)
    await anyio.sleep(0.01)
    if x in failing:
        raise ValueError(x)
    return x * x


@workflow
def body(x: int) -> int:
    return square(x)


@workflow
async def abody(x: int) -> int:
    return await asquare(x)


@workflow
async def mixed(x: int) -> int:
    return square(x)


@pytest.mark.parametrize("fn", [body, abody, mixed])
def test_a_result_is_made_once(fn: Any, backend: str) -> None:
    """Other runs take it from the cache, which metrics tell."""
    configure(backend=backend)
    assert [run(fn, 3), run(fn, 3), run(fn, 4)] == [9, 9, 16]
    assert ran == [3, 4]
    run(fn, 3)
    assert [s.reused for s in last_run().metrics.steps] == ["cache"]


def test_outside_a_run_it_is_the_plain_function() -> None:
    """As all steps are."""
    assert [square(3), square(3)] == [9, 9]
    assert ran == [3, 3]


@pytest.mark.parametrize("fn", [body, abody])
def test_errors_are_not_kept(fn: Any, backend: str) -> None:
    """The next call tries again."""
    configure(backend=backend)
    failing.append(3)
    for _ in range(2):
        with pytest.raises(ValueError, match="3"):
            run(fn, 3)
    failing.clear()
    assert run(fn, 3) == 9
    assert ran == [3, 3, 3]


def test_of_equal_calls_at_once_one_is_made(trap: Trap) -> None:
    """The others wait for it, on threads."""

    @step(cache=by_x)
    def slow(x: int) -> int:
        ran.append(x)
        trap.sleep()
        return x

    @workflow
    def many() -> list[int]:
        threading.Timer(0.05, trap.open.set).start()
        return pmap(slow, [1] * 8)

    assert run(many) == [1] * 8
    assert ran == [1]


@pytest.mark.anyio
async def test_of_equal_calls_in_tasks_one_is_made(anyio_backend: str) -> None:
    """The others wait for it, and the loop goes on."""

    @workflow
    async def many() -> list[int]:
        return await apmap(asquare, [2] * 50 + [3] * 50)

    assert await many() == [4] * 50 + [9] * 50
    assert sorted(ran) == [2, 3]


def test_a_call_whose_thread_was_left_behind_holds_nobody_up(trap: Trap) -> None:
    """Another run makes it anew."""

    @step(cache=by_x)
    def stuck(x: int) -> int:
        ran.append(x)
        if len(ran) == 1:
            trap.sleep()
        return x

    @workflow
    def calls(x: int) -> int:
        return stuck(x)

    with pytest.raises(WorkflowTimeout):
        run(with_options(calls, timeout=0.1), 1)
    assert run(with_options(calls, timeout=5), 1) == 1
    assert ran == [1, 1]


def test_when_the_one_that_is_made_fails_the_next_is_made(backend: str) -> None:
    """Who waits is not handed the error of another."""
    configure(backend=backend)

    @step(cache=True)
    async def flaky(x: int) -> int:
        ran.append(x)
        await anyio.sleep(0.01)
        if len(ran) == 1:
            raise ValueError(x)
        return x

    async def tolerant(x: int) -> int | None:
        try:
            return await flaky(x)
        except ValueError:
            return None

    @workflow
    async def many() -> list[int | None]:
        return await apmap(tolerant, [1, 1, 1])

    assert sorted(run(many), key=str) == [1, 1, None]
    assert ran == [1, 1]


def test_it_lasts_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is made again."""
    now = 1000.0
    monkeypatch.setattr("time.time", lambda: now)

    @step(cache=timedelta(minutes=1))
    def short(x: int) -> int:
        ran.append(x)
        return x

    run(short, 1)
    now = 1059.0
    run(short, 1)
    assert ran == [1]
    now = 1061.0
    run(short, 1)
    assert ran == [1, 1]


@pytest.mark.parametrize("cache", [timedelta(0), timedelta(-1), "yes", 1, None])
def test_what_can_not_say_how_long_is_refused(cache: Any) -> None:
    """When the step is defined."""
    with pytest.raises(DefinitionError, match=r"cache=.* is not True, how long \(a timedelta above 0\)"):
        step(cache=cache)(lambda x: x)


def test_a_function_gives_the_key() -> None:
    """In place of all arguments."""

    @step(cache=lambda text, **_: text.lower())
    def shout(text: str, mark: object = None) -> str:
        ran.append(1)
        return text.upper()

    assert run(shout, "Tea", mark=object()) == run(shout, "tea", mark=object()) == "TEA"
    assert ran == [1]


def test_a_key_gets_the_arguments_that_it_names() -> None:
    """With their defaults, however the call passes them, and also when they come back from a journal."""

    @step(cache=lambda b, a, of="own", **rest: [a, b, of, rest])
    def adds(a: int, /, b: int = 2, *more: int, c: int = 3) -> int:
        ran.append(1)
        return a + b

    @step(cache=lambda a, /, c: [a, c])
    def takes(a: int, b: int = 2, c: int = 3) -> int:
        ran.append(2)
        return a + b

    @workflow
    def body() -> list[int]:
        return [adds(1), adds(1, 2), adds(1, b=2, c=3), takes(1), takes(c=3, b=5, a=1)]

    for journal in (None, MemoryJournal()):
        assert run(with_options(body, journal=journal)) == [3, 3, 3, 3, 3]
        assert (
            run(with_options(adds, journal=journal), 1) == run(with_options(takes, journal=journal), 1) == 3
        )
    assert ran == [1, 2, 1, 2], "once for each place where results lie"


@pytest.mark.parametrize("key", [lambda word: word, lambda *text: text, lambda text, *, size: text])
def test_a_key_of_something_else_is_refused(key: Any) -> None:
    """Whose parameters are none of the step; the error tells those that are."""

    @step(cache=key)
    def shout(text: str, mark: str = "!") -> str:
        return text + mark

    with pytest.raises(
        DefinitionError, match=r"step shout\(text, mark=…\): its cache key takes .*lambda text, mark:"
    ):
        run(shout, "tea")


def test_other_code_is_another_result() -> None:
    """A step of the same name is not taken for it."""

    def made(how: int) -> Any:
        if how == 1:

            @step(cache=True)
            def changing(x: int) -> int:
                return x + 1
        else:

            @step(cache=True)
            def changing(x: int) -> int:
                return x + 2

        return changing

    assert [run(made(how), 1) for how in (1, 2, 1)] == [2, 3, 2]


def test_another_model_is_another_result() -> None:
    """That of the step's LLM, and that of an LLM which its body makes; hits cost nothing."""
    provider = MockProvider(lambda request: request.model)
    register_provider("mock", provider)

    @step(cache=True)
    def asks(question: str, llm: LLM = LLM()) -> str:
        return llm.ask(question) + LLM().ask(question)

    found = [run(with_options(asks, model=f"mock:{name}"), "q") for name in ("one", "two", "one")]
    assert found == ["oneone", "twotwo", "oneone"]
    assert usage().calls == len(provider.requests) == 4


def test_what_is_made_up_offline_is_no_models_result() -> None:
    """Nor the other way round, whoever says offline, and whatever model the step names."""
    asking = with_options(step(cache=True)(lambda question: LLM().ask(question)), model="mock:m")
    body = workflow(lambda: asking("q"))
    register_provider("mock", Paid(lambda request: "bought"))
    assert run(body) == "bought"
    assert run(with_options(body, model="offline")).startswith("[offline]")
    assert run(body) == "bought"
    configure(model="offline")
    assert run(body).startswith("[offline]")


def test_the_journal_keeps_results_for_other_processes() -> None:
    """And the run that hits records what it took."""
    journal = MemoryJournal()
    configure(journal=journal)
    run(body, 3)
    ran.clear()
    assert run(body, 3) == 9
    assert ran == []
    assert len(recorded_runs(journal)) == 2


def test_a_result_that_can_not_be_kept_is_an_error() -> None:
    """It names the step."""

    @step(cache=True)
    def opaque() -> dict[str, object]:
        return {"x": object()}

    with pytest.raises(InputError, match="the result of step 'opaque' can't be kept"):
        run(opaque)


def test_a_call_within_an_equal_call_is_made(backend: str) -> None:
    """It can't wait for the one that waits for it, nor can one deeper, or in a fan-out."""
    left = [1, 1]

    @step(cache=by_x)
    def again(x: int) -> int:
        return sum(pmap(deeper, [x])) if left and left.pop() else x

    @step
    def deeper(x: int) -> int:
        return again(x) + 1

    @step(cache=by_x)
    async def aagain(x: int) -> int:
        return await aagain(x) + 1 if left and left.pop() else x

    assert run(with_options(workflow(lambda: again(5)), timeout=10)) == 7
    left.append(1)

    @workflow
    async def abody() -> int:
        return await aagain(5)

    assert run(with_options(abody, timeout=10, backend=backend)) == 6


def test_a_call_within_an_equal_call_around_its_run_is_made(backend: str) -> None:
    """A child run can't wait for the step that waits for it."""
    left = [1, 1]

    @step(cache=by_x)
    def again(x: int) -> int:
        return run(child, x) if left and left.pop() else x

    @workflow
    def child(x: int) -> int:
        return again(x) + 1

    @step(cache=by_x)
    async def aagain(x: int) -> int:
        return await achild(x) if left and left.pop() else x

    @workflow
    async def achild(x: int) -> int:
        return await aagain(x) + 1

    assert run(with_options(child, timeout=10), 5) == 8
    left.append(1)
    assert run(with_options(achild, timeout=10, backend=backend), 5) == 7


def test_of_calls_that_would_wait_for_one_another_one_is_made() -> None:
    """Each is within what the other waits for."""
    both = threading.Barrier(2)
    met: list[str] = []

    def first(name: str) -> bool:
        met.append(name)
        return met.count(name) == 1 and both.wait(5) >= 0

    @step(cache=by_x)
    def one(x: int) -> int:
        return two(x) + 1 if first("one") else x

    @step(cache=by_x)
    def two(x: int) -> int:
        return one(x) + 1 if first("two") else x

    @workflow
    def crossing() -> list[int]:
        return pmap(lambda call: call(1), [one, two])

    assert sorted(run(with_options(crossing, timeout=10))) == [2, 3]
    assert len(met) == 3


# --- what tells results apart --------------------------------------------------------------------

RATE = 2


@pytest.mark.parametrize("colour", ["def", "async def"])
def test_what_a_step_takes_from_the_function_around_it_tells_results_apart(colour: str, backend: str) -> None:
    """Two steps of the same code, made with other values, in one process."""

    def made(by: int) -> Any:
        if colour == "def":

            @step(cache=True)
            def times(x: int) -> int:
                ran.append(by)
                return x * by

        else:

            @step(cache=timedelta(hours=1))
            async def times(x: int) -> int:
                ran.append(by)
                return x * by

        return times

    configure(backend=backend)
    assert [run(made(by), 3) for by in (2, 5, 2)] == [6, 15, 6]
    assert ran == [2, 5]


def test_a_constant_of_the_module_tells_results_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is bound anew while the program runs."""

    @step(cache=True)
    def price(x: int) -> int:
        ran.append(x)
        return x * RATE

    @workflow
    def thrice() -> list[int]:
        found = [price(3)]
        for rate in (7, 2):
            monkeypatch.setitem(globals(), "RATE", rate)
            found.append(price(3))
        return found

    assert run(thrice) == [6, 21, 6]
    assert ran == [3, 3]


@pytest.mark.parametrize("fn", [True, timedelta(1)])
def test_what_is_no_data_around_a_step_is_an_error(fn: Any, backend: str) -> None:
    """It names the variable and what to do; a key function is one way."""
    client = threading.Lock()

    def price(x: int) -> int:
        return x if client else 0

    async def aprice(x: int) -> int:
        return x if client else 0

    told = r"price: .* takes client \(a lock\) from the function around it.*make that an argument, or give the key"
    for one in (price, aprice):
        with pytest.raises(DefinitionError, match=told):
            run(with_options(step(cache=fn)(one), backend=backend), 1)
        assert run(with_options(step(cache=by_x)(one), backend=backend), 1) == 1


def test_another_server_is_another_model() -> None:
    """The address of OpenAI's provider, and of those that are registered."""

    @step(cache=True)
    def asks(question: str) -> int:
        ran.append(len(ran))
        return ran[-1]

    found = []
    for url in ("http://localhost:1/v1", "http://localhost:2/v1", "http://localhost:1/v1"):
        configure(openai=OpenAISettings(base_url=url))
        found.append(run(asks, "q"))
    configure(openai=OpenAISettings())
    for url in ("http://localhost:1/v1", "http://localhost:2/v1", "http://localhost:1/v1"):
        register_provider("local", OpenAIProvider(base_url=url))
        found.append(run(asks, "q"))
    assert found == [0, 1, 0, 2, 3, 2]


# --- rewound runs --------------------------------------------------------------------------------


@step
def around(x: int) -> int:
    return square(x)


@step(cache=True)
async def aaround(x: int) -> int:
    return await asquare(x)


@workflow
def bodies(x: int) -> list[int]:
    return [square(x + 1), around(x), square(x), run(aaround, x), *run(apmap, asquare, [x, x])]


@pytest.mark.parametrize("runs", [1, 2], ids=["made", "cached"])
@pytest.mark.parametrize(
    ("name", "made"),
    [("square", [3, 2, 2]), ("around", [2, 2]), ("aaround", [2]), ("asquare", [2])],
)
def test_a_step_that_was_rewound_is_made_anew(name: str, made: list[int], runs: int, backend: str) -> None:
    """With all that it calls, and the new result is kept; equal calls, at once or later, take that one."""
    journal = MemoryJournal()
    kept = with_options(bodies, journal=journal, backend=backend)
    for number in range(runs):
        right = run(with_options(kept, run_id=str(number)), 2)
    assert ran == [3, 2, 2]
    rewind(str(runs - 1), name, journal)
    ran.clear()
    assert run(with_options(kept, run_id=str(runs - 1)), 2) == right
    assert ran == made
    assert last_run().metrics.steps[-1].reused == "cache"
    ran.clear()
    assert run(with_options(bodies, journal=journal), 2) == right
    assert ran == []


def test_one_that_fails_when_it_is_rewound_is_made_anew_the_next_time(backend: str) -> None:
    """The old result does not come back."""
    journal = MemoryJournal()
    for fn in (body, abody):
        kept = with_options(fn, journal=journal, backend=backend, run_id=fn.__name__)
        run(kept, 3)
        rewind(fn.__name__, "square" if fn is body else "asquare", journal)
        failing.append(3)
        with pytest.raises(ValueError, match="3"):
            run(kept, 3)
        failing.clear()
        assert run(kept, 3) == 9
    assert ran == [3] * 6


# --- a store that fails --------------------------------------------------------------------------


class Failing(MemoryJournal):
    """A store whose cache fails at use number *at*, or at all uses from there on."""

    def __init__(self, at: int, sticky: bool = False, error: Exception | None = None) -> None:
        super().__init__()
        self.at, self.sticky, self.uses = at, sticky, 0
        self.error = error or JournalError("the disk is full")

    def _use(self) -> None:
        self.uses += 1
        if self.uses == self.at or (self.sticky and self.uses > self.at):
            raise self.error

    def kept(self, *args: Any) -> str | None:
        self._use()
        return super().kept(*args)

    def keep(self, *args: Any) -> None:
        self._use()
        super().keep(*args)


@workflow
def tolerant(x: int) -> int:
    try:
        return square(x) + square(x + 1)
    except Exception:
        return -1


@workflow
async def atolerant(x: int) -> int:
    try:
        return await asquare(x) + await asquare(x + 1)
    except Exception:
        return -1


@pytest.mark.parametrize("fn", [tolerant, atolerant])
@pytest.mark.parametrize("sticky", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_store_that_fails_changes_no_outcome(
    fn: Any, at: int, sticky: bool, backend: str, heard: Heard
) -> None:
    """At any look and any write, what is not found is made, which is told; the body has no fault to swallow."""
    store = Failing(at, sticky)
    assert run(with_options(fn, journal=store, run_id="r", backend=backend), 2) == 13
    assert recorded("r", store).run.state == "completed"
    failed = range(at, 5) if sticky else [at]  # look for 2, keep it, look for 3, keep it
    assert len(heard.of(CacheFailed, error="JournalError: the disk is full")) == len(failed)
    ran.clear()
    store.at, store.sticky = 0, False
    assert run(with_options(fn, journal=store, backend=backend), 2) == 13
    assert ran == [use // 2 + 1 for use in failed if use % 2 == 0]


def test_a_store_of_another_may_fail_as_it_likes(heard: Heard) -> None:
    """Any exception is told, and does no harm."""
    configure(journal=Failing(1, sticky=True, error=RuntimeError("no such table")))
    assert run(body, 3) == 9
    assert [event.error for event in heard.of(CacheFailed)] == ["RuntimeError: no such table"] * 2


@pytest.mark.parametrize("fn", [body, abody])
def test_a_damaged_value_is_made_anew(fn: Any, backend: str, tmp_path: Path, heard: Heard) -> None:
    """That it is damaged is told once, since it is replaced."""
    path = tmp_path / "runs.db"
    configure(journal=str(path), backend=backend)
    run(fn, 3)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE cache SET body = CAST('{}' AS BLOB)")
    db.close()
    assert [run(fn, 3), run(fn, 3)] == [9, 9]
    assert ran == [3, 3]
    assert len(heard.of(CacheFailed, step=square.__name__ if fn is body else asquare.__name__)) == 1


def test_a_locked_file_holds_a_cached_step_up_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    """The wait for the lock is bounded; then the result is made, and not kept."""
    path = tmp_path / "runs.db"
    SQLiteJournal(path).keep("other", "1", None)
    monkeypatch.setattr("flowlet.journals._opening.BUSY", 0.05)
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    configure(journal=SQLiteJournal(path))
    assert run(lambda: square(3)) == 9
    other.rollback()
    other.close()
    assert [event.step for event in heard.of(CacheFailed)] == ["square"]


def test_a_value_that_does_not_fit_any_more_is_made_anew() -> None:
    """Its type has got a field, say."""

    def made(how: int) -> Any:
        if how == 1:

            @frozen
            class Made:
                a: int
        else:

            @frozen
            class Made:  # type: ignore[no-redef]
                a: int
                b: int

        @step(cache=lambda x: x)
        def make(x: int) -> Made:
            ran.append(how)
            return Made(*[x] * len(fields(Made)))

        return make

    found = [run(made(how), 1) for how in (1, 1, 2, 2)]
    assert [len(asdict(one)) for one in found] == [1, 1, 2, 2]
    assert ran == [1, 2]
