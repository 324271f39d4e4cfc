"""Runs that are recorded and resumed: what is kept, what is found again, and what is told when it can't be."""

import functools
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from attrs import frozen

from flowlet import (
    LLM,
    AsyncLLM,
    DefinitionError,
    ExcludeFromKey,
    InputError,
    JournalError,
    RunCancelled,
    WorkflowTimeout,
    aresume,
    arun,
    chain,
    configure,
    last_run,
    pmap,
    recorded,
    recorded_runs,
    register_provider,
    resume,
    rewind,
    run,
    start,
    step,
    usage,
    with_options,
    workflow,
)
from flowlet.entries import ChangedCode, Entry
from flowlet.events import BodyDiverged, CodeChanged
from flowlet.journals import MemoryJournal, SQLiteJournal
from flowlet.testing import MockProvider
from rig import Heard, Trap

Body = Callable[[int], int]


class Steps:
    """What ran, in order, and what is to fail."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.failing: set[str] = set()

    def enter(self, name: str) -> None:
        self.ran.append(name)
        if name in self.failing:
            raise ValueError(name)


steps = Steps()


@pytest.fixture(autouse=True)
def fresh_steps() -> None:
    steps.ran.clear()
    steps.failing.clear()


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@step
def add(x: int) -> int:
    steps.enter(f"add {x}")
    return x + 1


@step
async def double(x: int) -> int:
    steps.enter(f"double {x}")
    await anyio.sleep(0)
    return x * 2


@workflow
def sync_body(x: int) -> int:
    return add(run(double, add(x)))


@workflow
async def async_body(x: int) -> int:
    return add(await double(add(x)))


@workflow
def fan_body(x: int) -> int:
    return sum(pmap(add, [x, x, x + 1])) + sum(pmap(double, [x, x + 2]))


@workflow
async def parent_body(x: int) -> int:
    return await async_body(x) + await async_body(x) + sync_body(x + 10)


@workflow
def starting_body(x: int) -> int:
    return start(sync_body, x).result() + start(async_body, x).result()


BODIES: list[Any] = [sync_body, async_body, fan_body, parent_body, starting_body]


def kept(body: Any, journal: MemoryJournal, backend: str = "asyncio") -> Any:
    return with_options(body, journal=journal, run_id="r", backend=backend)


class Killed(BaseException):
    """Stands for the end of the process."""


class Dying(MemoryJournal):
    """A journal whose process dies with the n-th append, before or after it was written."""

    def __init__(self, at: int, written: bool) -> None:
        super().__init__()
        self.left = at
        self.written = written

    def append(self, entries: Sequence[Entry], /) -> None:
        self.left -= 1
        if self.left < 0:
            raise JournalError("dead")
        if self.left == 0 and not self.written:
            raise JournalError("dead")
        super().append(entries)
        if self.left == 0:
            raise JournalError("dead")

    def survivor(self) -> MemoryJournal:
        """What the next process finds."""
        found = MemoryJournal()
        for one in self.runs():
            found.append(self.read(one.run_id))
        return found


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
@pytest.mark.parametrize("written", [False, True])
def test_a_run_stopped_at_any_write_goes_on_there(body: Any, written: bool, backend: str) -> None:
    """No step that was recorded runs again, and the result is the same."""
    expected = run(body, 1)
    everything = sorted(steps.ran)
    for at in range(1, 100):
        steps.ran.clear()
        dying = Dying(at, written)
        try:
            run(kept(body, dying, backend), 1)
        except JournalError:
            survivor = dying.survivor()
            recorded_before = sum(e.kind == "step" and e.state == "completed" for e in survivor.read("r"))
            ran_before = len(steps.ran)
            steps.ran.clear()
            assert run(kept(body, survivor, backend), 1) == expected
            assert len(steps.ran) == len(everything) - recorded_before
            assert ran_before >= recorded_before
        else:
            assert at > len(everything)
            return
    pytest.fail("it never ended")


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_completed_run_is_not_run_again(body: Any, journal: MemoryJournal, backend: str) -> None:
    """The same id and inputs give the recorded result."""
    first = run(kept(body, journal, backend), 1)
    steps.ran.clear()
    assert run(kept(body, journal, backend), 1) == first
    assert steps.ran == []
    assert last_run().metrics.reused == "journal"


@pytest.mark.anyio
async def test_arun_resumes_too(journal: MemoryJournal, anyio_backend: str) -> None:
    """In the caller's own loop."""
    steps.failing.add("double 2")
    with pytest.raises(ValueError, match="double 2"):
        await arun(kept(async_body, journal), 1)
    steps.failing.clear()
    steps.ran.clear()
    assert await arun(kept(async_body, journal), 1) == 5
    assert steps.ran == ["double 2", "add 4"]
    assert await aresume("r", journal=journal) == 5


def test_a_failed_step_runs_again_and_the_failure_is_recorded(journal: MemoryJournal, backend: str) -> None:
    """Recorded failures are for people to read."""
    steps.failing.add("double 2")
    with pytest.raises(ValueError, match="double 2"):
        run(kept(sync_body, journal, backend), 1)
    found = recorded("r", journal)
    assert found.run.state == "failed"
    assert found.error == "ValueError: double 2"
    assert [(e.name, e.state, e.error) for e in found.calls] == [
        ("add", "completed", ""),
        ("double", "failed", "ValueError: double 2"),
    ]
    steps.failing.clear()
    steps.ran.clear()
    assert resume("r", journal=journal) == 5
    assert steps.ran == ["double 2", "add 4"]
    assert [s.reused for s in last_run().metrics.steps] == ["journal", None, None]


def test_a_run_id_belongs_to_its_inputs(journal: MemoryJournal) -> None:
    """Another run under the same id is refused, and says what is there."""
    run(kept(sync_body, journal), 1)
    with pytest.raises(
        JournalError, match=r'already, as sync_body with \{"x":1\}, not sync_body with \{"x":2\}'
    ):
        run(kept(sync_body, journal), 2)
    with pytest.raises(JournalError, match="not async_body"):
        run(kept(async_body, journal), 1)


def grown(source: str) -> Any:
    """A workflow that takes what *source* says, and tells it."""
    names: dict[str, Any] = {"workflow": workflow, "enter": steps.enter}
    exec(f"@workflow\ndef grown({source}):\n    enter('end')\n    return str(locals())", names)
    return names["grown"]


@pytest.mark.parametrize(
    ("before", "now", "call", "inputs"),
    [
        ("x: int", "x: int, y: int = 5", {"x": 1}, "{'x': 1, 'y': 5}"),
        ("x: int", "x: int, y: int = 5", {"x": 1, "y": 5}, "{'x': 1, 'y': 5}"),
        ("x: int", "y: int = 5, *, x: int", {"x": 1}, "{'y': 5, 'x': 1}"),
        ("x: int", "x: int, **others: int", {"x": 1}, "{'x': 1, 'others': {}}"),
        ("x: int, y: int = 5", "x: int, y: int = 6", {"x": 1, "y": 5}, "{'x': 1, 'y': 5}"),
        ("x: int", "x: float", {"x": 1.0}, "{'x': 1.0}"),
    ],
)
def test_a_run_goes_on_when_its_workflow_takes_more(
    before: str, now: str, call: dict[str, Any], inputs: str
) -> None:
    """By its id, and by a call with the recorded inputs as the signature has them now."""
    for again in (
        lambda journal: resume("r", grown(now), journal=journal),
        lambda journal: run(kept(grown(now), journal), **call),
    ):
        journal = MemoryJournal()
        steps.failing.add("end")
        with pytest.raises(ValueError, match="end"):
            run(kept(grown(before), journal), x=1)
        steps.failing.clear()
        assert again(journal) == inputs
        assert resume("r", grown(before + ", z: int = 7"), journal=journal) == inputs, "it has completed"


def test_a_new_parameter_that_is_given_asks_for_another_run(journal: MemoryJournal) -> None:
    """With another value than its default; nor is one taken for the other that is gone, or does not fit."""
    run(kept(grown("x: int"), journal), 1)
    for now, args in [("x: int, y: int = 5", (1, 6)), ("y: int = 1", ()), ("x: str", ("1",))]:
        with pytest.raises(JournalError, match=r'already, as grown with \{"x":1\}'):
            run(kept(grown(now), journal), *args)
    with pytest.raises(InputError, match="x: unexpected"):
        resume("r", grown("y: int = 1"), journal=journal)


def test_a_run_that_is_executed_is_not_executed_twice(journal: MemoryJournal, trap: Trap) -> None:
    """Who comes second is told at once."""

    @workflow
    def stuck(x: int) -> int:
        trap.sleep()
        return x

    handle = start(kept(stuck, journal), 1)
    trap.wait_entered()
    with pytest.raises(JournalError, match="is being executed by"):
        run(kept(stuck, journal), 1)
    trap.open.set()
    assert handle.result(timeout=5) == 1
    assert run(kept(stuck, journal), 1) == 1


# --- models --------------------------------------------------------------------------------------


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    said = llm.ask(question)
    with llm.stream(f"and {question}") as pieces:
        said += "".join(pieces)
    steps.enter("ask")
    return said


@step
async def aask(question: str, llm: AsyncLLM = AsyncLLM()) -> str:
    said = await llm.ask(question)
    async with llm.stream(f"and {question}") as pieces:
        async for piece in pieces:
            said += piece
    steps.enter("ask")
    return said


@workflow
def talk(question: str) -> str:
    return ask(question)


@workflow
async def atalk(question: str) -> str:
    return await aask(question)


@pytest.mark.parametrize("body", [talk, atalk])
def test_an_answer_is_bought_once(body: Any, journal: MemoryJournal, backend: str) -> None:
    """What a step that failed afterwards had asked is not asked again, costs nothing, and is counted."""
    provider = MockProvider(lambda request: request.messages[-1].content + "!")
    register_provider("mock", provider)
    configure(model="mock:m")
    steps.failing.add("ask")
    with pytest.raises(ValueError, match="ask"):
        run(kept(body, journal, backend), "tea")
    assert len(provider.requests) == 2
    before = usage()
    steps.failing.clear()
    assert run(kept(body, journal, backend), "tea") == "tea!and tea!"
    assert len(provider.requests) == 2
    assert [call.replayed for call in last_run().metrics.calls] == [True, True]
    assert (usage() - before).cost == 0
    assert recorded("r", journal).usage.calls == 2


def test_a_run_below_an_offline_one_is_resumed_offline(journal: MemoryJournal) -> None:
    """Also where it names a model itself."""

    @workflow(model="paid:m")
    def body() -> str:
        steps.enter("body")
        return LLM().ask("tea")

    steps.failing.add("body")
    with pytest.raises(ValueError, match="body"):
        run(with_options(workflow(lambda: kept(body, journal)()), model="offline"))
    steps.failing.clear()
    assert resume("r", body, journal=journal).startswith("[offline]")


def test_another_model_is_another_call(journal: MemoryJournal) -> None:
    """The key of a step has the model that its LLM resolves to."""
    provider = MockProvider(lambda request: request.model)
    register_provider("mock", provider)

    @workflow
    def both() -> list[str]:
        configure(model="mock:one")
        first = ask("q")
        configure(model="mock:two")
        return [first, ask("q")]

    assert run(kept(both, journal)) == ["oneone", "twotwo"]
    keys = {entry.key for entry in recorded("r", journal).calls if entry.kind == "step"}
    assert len(keys) == 2


# --- values --------------------------------------------------------------------------------------


@frozen
class Point:
    x: int
    y: int


@step
def point(x: int) -> Point:
    steps.enter("point")
    return Point(x, x)


def test_values_come_back_as_their_hints_say(journal: MemoryJournal) -> None:
    """A class is written as JSON and read back as the class."""

    @workflow
    def shift(at: Point, *more: int, **named: Point) -> list[Point]:
        found = [at, point(more[0]), named["other"]]
        steps.enter("end")
        return found

    steps.failing.add("end")
    with pytest.raises(ValueError, match="end"):
        run(kept(shift, journal), Point(1, 2), 3, other=Point(4, 5))
    steps.failing.clear()
    steps.ran.clear()
    expected = [Point(1, 2), Point(3, 3), Point(4, 5)]
    assert resume("r", shift, journal=journal) == expected
    assert steps.ran == ["end"]


def test_a_result_that_is_no_data_is_an_error_of_the_step(journal: MemoryJournal) -> None:
    """It names the step and the path, and nothing of it is written."""

    @step
    def opened() -> dict[str, object]:
        return {"file": object()}

    @workflow
    def body() -> int:
        opened()
        return 1

    with pytest.raises(InputError, match="the result of step 'opened' can't be kept") as caught:
        run(kept(body, journal))
    assert "$.file" in caught.value.faults[0]
    assert "in step 'opened'" in caught.value.__notes__[0]
    assert [e.kind for e in recorded("r", journal).entries] == ["run", "run"]


def test_a_result_without_a_hint_must_be_plain_json(journal: MemoryJournal) -> None:
    """A class could not be read back."""

    @step
    def unhinted(x: int):  # type: ignore[no-untyped-def]
        return Point(x, x)

    @workflow
    def body() -> int:
        return unhinted(1).x  # type: ignore[no-any-return]

    with pytest.raises(InputError, match="can't be kept") as caught:
        run(kept(body, journal))
    assert "needs a hint" in caught.value.faults[0]


class Client:
    def fetch(self) -> int:
        return 7


@step
def fetch(client: Annotated[Client, ExcludeFromKey], page: int) -> int:
    steps.enter(f"fetch {page}")
    return client.fetch() + page


def test_what_is_no_data_is_left_out_when_it_says_so(journal: MemoryJournal) -> None:
    """Another client object does not make another call."""

    @workflow
    def pages() -> list[int]:
        client = Client()
        found = [fetch(client, 1), fetch(client, 2)]
        steps.enter("end")
        return found

    steps.failing.add("end")
    with pytest.raises(ValueError, match="end"):
        run(kept(pages, journal))
    steps.failing.clear()
    steps.ran.clear()
    assert resume("r", pages, journal=journal) == [8, 9]
    assert steps.ran == ["end"]


def test_arguments_that_are_no_data_are_an_error_that_says_how(journal: MemoryJournal) -> None:
    """It shows the annotation."""

    @step
    def uses(client: Client) -> int:
        return client.fetch()

    @workflow
    def body() -> int:
        return uses(Client())

    with pytest.raises(InputError, match="ExcludeFromKey"):
        run(kept(body, journal))


def test_a_secret_is_not_kept(journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in inputs, nor in results, nor in errors."""
    monkeypatch.setenv("CANARY_API_KEY", "canary-0123456789-abcdef")

    @step
    def leak(how: str) -> str:
        if how == "raise":
            raise ValueError("it was canary-0123456789-abcdef")
        return "canary-0123456789-abcdef"

    @workflow
    def body(how: str) -> str:
        return leak(how)

    with pytest.raises(InputError, match="holds a secret"):
        run(kept(body, journal), "return")
    with pytest.raises(InputError, match="holds a secret"):
        run(kept(body, journal), "canary-0123456789-abcdef")
    with pytest.raises(ValueError, match="it was"):
        run(with_options(body, journal=journal, run_id="other"), "raise")
    for option in ("run_id", "correlation_id", "tags"):
        told: dict[str, Any] = {
            option: ["canary-0123456789-abcdef"] if option == "tags" else "canary-0123456789-abcdef"
        }
        with pytest.raises(
            InputError, match="the run_id, tags or correlation_id of workflow 'body' can't be kept"
        ):
            run(with_options(body, journal=journal, **told), "harmless")
    everything = [entry for one in recorded_runs(journal) for entry in journal.read(one.run_id)]
    assert "canary-01234" not in repr(everything)


# --- changed code --------------------------------------------------------------------------------


def changing(how: str) -> tuple[Callable[[int], int], Any]:
    if how == "old":

        @step(name="changed")
        def changed(x: int) -> int:
            steps.enter("old")
            return x + 1
    else:

        @step(name="changed")
        def changed(x: int) -> int:
            steps.enter("new")
            return x + 2

    @workflow(name="body")
    def body(x: int) -> int:
        found = changed(x)
        steps.enter("end")
        return found

    return changed, body


@pytest.fixture
def interrupted(journal: MemoryJournal) -> MemoryJournal:
    """A run that stopped after a step whose code is old."""
    steps.failing.add("end")
    with pytest.raises(ValueError, match="end"):
        run(kept(changing("old")[1], journal), 1)
    steps.failing.clear()
    steps.ran.clear()
    return journal


def test_changed_code_suspends_the_run(interrupted: MemoryJournal, heard: Heard) -> None:
    """Unless something else is asked for; then the run can still be resumed."""
    body = changing("new")[1]
    with pytest.raises(JournalError, match="the code of step 'changed' has changed"):
        resume("r", body, journal=interrupted)
    assert heard.of(CodeChanged, step="changed", policy="error")
    assert resume("r", body, journal=interrupted, changed_code="reuse") == 2
    assert steps.ran == ["end"]


def test_what_has_changed_is_told_without_any_observer(
    journal: MemoryJournal, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names the step, once for all of its calls."""

    def made(how: str) -> Any:
        changed = changing(how)[0]

        @workflow(name="body")
        def body(x: int) -> int:
            found = [changed(x), changed(x)]
            steps.enter("end")
            return sum(found)

        return body

    steps.failing.add("end")
    with pytest.raises(ValueError, match="end"):
        run(kept(made("old"), journal), 1)
    steps.failing.clear()
    assert resume("r", made("new"), journal=journal, changed_code="reuse") == 4
    assert caplog.text.count("the code of step changed has changed") == 1


def test_another_way_is_told_without_any_observer(
    interrupted: MemoryJournal, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names what was expected and what was found."""

    @workflow(name="body")
    def body(x: int) -> int:
        return add(x)

    resume("r", body, journal=interrupted)
    assert "another way than the recorded one: expected changed, found add" in caplog.text


def test_changed_code_runs_again_when_asked(interrupted: MemoryJournal, heard: Heard) -> None:
    """And that is told."""
    assert resume("r", changing("new")[1], journal=interrupted, changed_code="rerun") == 3
    assert steps.ran == ["new", "end"]
    assert heard.of(CodeChanged, step="changed", policy="rerun")


RATE = 1
"""A constant of the module that a step names."""


@pytest.mark.parametrize("colour", ["def", "async def"])
@pytest.mark.parametrize("where", ["module", "closure", "decorator"])
def test_what_code_takes_from_outside_is_a_part_of_it(
    where: str, colour: str, journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """A constant of the module, a value of the function around, a function below a decorator."""

    def made(rate: int) -> Any:
        rate = 1 if where == "module" else rate

        def price(x: int) -> int:
            return x * (RATE if where == "module" else rate)

        @functools.wraps(price)
        def timed(x: int) -> int:
            return price(x)

        async def aprice(x: int) -> int:
            return x * (RATE if where == "module" else rate)

        @functools.wraps(aprice)
        async def atimed(x: int) -> int:
            return await aprice(x)

        fn, afn = (timed, atimed) if where == "decorator" else (price, aprice)
        one, other = step(name="price")(fn), step(name="price")(afn)

        @workflow(name="body")
        def body(x: int) -> int:
            found = one(x) if colour == "def" else run(other, x)
            steps.enter("end")
            return found

        return with_options(body, backend=backend)

    steps.failing.add("end")
    with pytest.raises(ValueError, match="end"):
        run(kept(made(1), journal), 2)
    steps.failing.clear()
    monkeypatch.setitem(globals(), "RATE", 3)
    told = r"the code of step 'price', or what it takes from outside \(RATE, rate, where\), has changed"
    with pytest.raises(JournalError, match=told):
        resume("r", made(3), journal=journal)
    assert resume("r", made(3), journal=journal, changed_code="reuse") == 2
    rewind("r", "price", journal)
    steps.failing.add("end")
    with pytest.raises(ValueError, match="end"):
        resume("r", made(3), journal=journal)
    steps.failing.clear()
    monkeypatch.setitem(globals(), "RATE", 4)
    assert resume("r", made(4), journal=journal, changed_code="rerun") == 8


def hinted(hint: Any, value: object, backend: str) -> Any:
    """A body with steps that give *value*, of which the hint is *hint*."""
    values = [value]

    @step
    def make(x: int) -> Any:
        steps.enter("make")
        return values[0]

    @step
    async def amake(x: int) -> Any:
        steps.enter("amake")
        return values[0]

    make.__wrapped__.__annotations__["return"] = amake.__wrapped__.__annotations__["return"] = hint

    @workflow
    async def body(x: int) -> str:
        found = [make(x), await amake(x)]
        steps.enter("end")
        return str(found)

    return with_options(body, backend=backend)


def test_a_result_that_does_not_fit_any_more_is_made_again_when_asked(
    journal: MemoryJournal, backend: str, heard: Heard
) -> None:
    """Else it is an error that says how, and the run is suspended."""
    steps.failing.add("end")
    with pytest.raises(ValueError, match="end"):
        run(kept(hinted(int, 1, backend), journal), 1)
    steps.failing.clear()
    changed = hinted(str, "one", backend)
    for policy in ("error", "reuse"):
        told = r"result of step 'make' does not fit .*found 1.*changed_code=\"rerun\".*flowlet rerun r --from make"
        with pytest.raises(JournalError, match=told):
            resume("r", changed, journal=journal, changed_code=policy)
        assert recorded("r", journal).run.state == "failed"
    steps.ran.clear()
    assert resume("r", changed, journal=journal, changed_code="rerun") == "['one', 'one']"
    assert steps.ran == ["make", "amake", "end"]
    assert [event.step for event in heard.of(CodeChanged)] == ["make", "amake"]
    with pytest.raises(JournalError, match="result of workflow 'body' does not fit [^\n]*to make it again$"):
        resume("r", bodies(int, backend)[1], journal=journal)


def bodies(returns: Any, backend: str, more: int = 0) -> tuple[Any, Any]:
    """A child and a body that runs it; both add *more*."""

    @workflow
    def child(x: int) -> int:
        return add(x) + more

    @workflow
    async def body(x: int) -> int:
        found = child(x) + more
        steps.enter("end")
        return found

    body.__wrapped__.__annotations__["return"] = returns
    return child, with_options(body, backend=backend)


BELOW = """
from flowlet import step, workflow

@step
def below(x: int) -> int:
    return x + {more}

@{kind}
def above(x: int) -> int:
    return below(x)

@workflow
def body(x: int) -> int:
    found = above(x)
    end()
    return found
"""


@pytest.mark.parametrize("kind", ["step", "workflow"])
@pytest.mark.parametrize(("policy", "result"), [("reuse", 2), ("rerun", 3)])
def test_a_changed_step_below_a_finished_call_is_changed_code(
    kind: str, policy: ChangedCode, result: int, journal: MemoryJournal
) -> None:
    """Though the code of that call is the same: no result of old code is taken silently."""

    def made(more: int) -> Any:
        names: dict[str, Any] = {"__name__": __name__, "end": lambda: steps.enter("end")}
        exec(BELOW.format(kind=kind, more=more), names)
        return names["body"]

    steps.failing.add("end")
    with pytest.raises(ValueError, match="end"):
        run(kept(made(1), journal), 1)
    steps.failing.clear()
    told = rf"the code of {kind} 'above', or what it takes from outside \(below\), has changed"
    with pytest.raises(JournalError, match=told):
        resume("r", made(2), journal=journal)
    assert resume("r", made(2), journal=journal, changed_code=policy) == result


@pytest.mark.parametrize(("policy", "result"), [("reuse", 4), ("rerun", 6)])
def test_the_changed_body_of_a_finished_child_is_changed_code(
    policy: ChangedCode, result: int, journal: MemoryJournal, backend: str, heard: Heard
) -> None:
    """As that of a step is; and it is told as what it is. That of the run itself may change."""
    steps.failing.add("end")
    with pytest.raises(ValueError, match="end"):
        run(kept(bodies(int, backend)[1], journal), 1)
    steps.failing.clear()
    changed = bodies(int, backend, more=2)[1]
    with pytest.raises(
        JournalError,
        match=r"the code of workflow 'child', or what it takes from outside \(add, more\), has changed",
    ):
        resume("r", changed, journal=journal)
    assert heard.of(CodeChanged, step="child", kind="workflow", policy="error")
    assert resume("r", changed, journal=journal, changed_code=policy) == result


def test_the_result_of_a_completed_run_can_be_fetched_whatever_its_code_is_now(
    journal: MemoryJournal, backend: str, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    """That the code has changed is told; ``rerun`` runs the body again."""
    run(kept(bodies(int, backend)[1], journal), 1)
    changed = bodies(int, backend, more=2)[1]
    steps.ran.clear()
    for policy in (None, "error", "reuse"):
        assert resume("r", changed, journal=journal, changed_code=policy) == 2
    assert steps.ran == []
    assert len(heard.of(CodeChanged, step="body", kind="workflow", policy="reuse")) == 3
    assert "the code of workflow body has changed since its result was recorded: it was reused" in caplog.text
    assert "suspended" not in caplog.text
    assert resume("r", changed, journal=journal, changed_code="rerun") == 6


def test_layout_and_comments_are_no_change(interrupted: MemoryJournal) -> None:
    """The same code elsewhere is the same code."""

    @step(name="changed")
    def changed(x: int) -> int:
        """Say it in other words."""
        # and with a comment
        steps.enter(
            "old",
        )
        return x + 1

    @workflow(name="body")
    def body(x: int) -> int:
        found = changed(x)
        steps.enter("end")
        return found

    assert resume("r", body, journal=interrupted) == 2


def test_a_body_that_takes_another_way_is_told(interrupted: MemoryJournal, heard: Heard) -> None:
    """With the step expected and the one found."""

    @workflow(name="body")
    def body(x: int) -> int:
        return add(x)

    assert resume("r", body, journal=interrupted) == 2
    (told,) = heard.of(BodyDiverged)
    assert isinstance(told, BodyDiverged)
    assert (told.expected, told.found) == (("changed",), ("add",))


def test_the_same_step_with_other_arguments_is_told_as_that(
    journal: MemoryJournal, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as the one behind a step that was run again with other code."""

    def made(more: int) -> Any:
        @step
        async def first(x: int) -> int:
            return x + more

        @workflow(name="body")
        async def body(x: int) -> int:
            found = add(await first(x))
            steps.enter("end")
            return found

        return with_options(body, backend=backend)

    steps.failing.add("end")
    with pytest.raises(ValueError, match="end"):
        run(kept(made(0), journal), 1)
    steps.failing.clear()
    assert resume("r", made(1), journal=journal, changed_code="rerun") == 3
    assert "expected add, found add with other arguments" in caplog.text


def test_what_was_made_again_is_expected_no_more(journal: MemoryJournal, heard: Heard) -> None:
    """Once is told that other code gave another way; to go on in it is no news."""

    def made(more: int) -> Any:
        first = step(name="first")(lambda x: x + more)

        @workflow(name="body")
        def body(x: int) -> int:
            found = add(add(first(x)))
            steps.enter("end")
            return last(found)

        return body

    @step(name="last")
    def last(x: int) -> int:
        steps.enter("last")
        return x

    for failing, resuming in [
        ("end", lambda: run(kept(made(0), journal), 1)),
        ("last", lambda: resume("r", made(1), journal=journal, changed_code="rerun")),
        ("last", lambda: resume("r", made(1), journal=journal)),
    ]:
        steps.failing = {failing}
        with pytest.raises(ValueError, match=failing):
            resuming()
    (told,) = heard.of(BodyDiverged)
    assert told.expected == ("add",)
    steps.failing.clear()
    assert resume("r", made(1), journal=journal) == 4
    assert len(heard.of(BodyDiverged)) == 1


# --- faults --------------------------------------------------------------------------------------


def test_a_storage_fault_suspends_the_run(backend: str) -> None:
    """A body that swallows it can't go on, and the journal knows of no failure."""
    dying = Dying(3, written=False)

    @workflow
    def swallows(x: int) -> int:
        for _ in range(5):
            try:
                add(x)
            except Exception:
                steps.enter("swallowed")
        return x

    with pytest.raises(JournalError, match="dead"):
        run(kept(swallows, dying, backend), 1)
    assert last_run().state == "failed"
    assert steps.ran == ["add 1", "add 1", "swallowed"]
    survivor = dying.survivor()
    assert recorded("r", survivor).run.state == "running"
    assert run(kept(swallows, survivor, backend), 1) == 1


def test_a_cancelled_run_can_be_resumed(journal: MemoryJournal, trap: Trap) -> None:
    """Its state is told, and what it did is kept."""

    @workflow
    def cancelled(x: int) -> int:
        found = add(x)
        if not trap.open.is_set():
            trap.sleep()
            add(0)
        return found

    handle = start(kept(cancelled, journal), 1)
    trap.wait_entered()
    handle.cancel()
    trap.open.set()
    with pytest.raises(RunCancelled):
        handle.result(timeout=5)
    steps.ran.clear()
    until_free(journal)
    assert recorded("r", journal).run.state == "cancelled"
    assert run(kept(cancelled, journal), 1) == 2
    assert steps.ran == []


def until_free(journal: MemoryJournal) -> None:
    for _ in range(500):
        if recorded_runs(journal)[0].owner is None:
            return
        threading.Event().wait(0.01)


@pytest.mark.anyio
async def test_a_run_that_timed_out_can_be_resumed(journal: MemoryJournal, anyio_backend: str) -> None:
    """Without the timeout it goes on where it was."""

    @workflow
    async def slow(x: int) -> int:
        found = await double(x)
        if not steps.failing:
            await anyio.sleep(60)
        return found

    with pytest.raises(WorkflowTimeout):
        await arun(with_options(kept(slow, journal), timeout=0.2), 1)
    assert recorded("r", journal).run.state == "timeout"
    steps.failing.add("nothing")
    steps.ran.clear()
    assert await aresume("r", slow, journal=journal) == 2
    assert steps.ran == []


def test_rewind_makes_a_step_and_what_follows_again(journal: MemoryJournal) -> None:
    """And keeps what was before it."""
    assert run(kept(sync_body, journal), 1) == 5
    steps.ran.clear()
    rewind("r", "double", journal)
    assert recorded("r", journal).run.state == "pending"
    assert resume("r", journal=journal) == 5
    assert steps.ran == ["double 2", "add 4"]
    with pytest.raises(JournalError, match=r"has no recorded step 'dubble'; it has add, double"):
        rewind("r", "dubble", journal)


@step
def both(x: int) -> int:
    return add(x) + run(double, x)


def test_rewind_keeps_what_came_before_in_a_child_run(journal: MemoryJournal) -> None:
    """The child is open again, since it goes on to the step; what it had called by then is kept."""

    @workflow
    def parent(x: int) -> int:
        return add(x) + run(sync_body, x) + both(x)

    assert run(kept(parent, journal), 1) == 11
    steps.ran.clear()
    rewind("r", "double", journal)
    assert resume("r", parent, journal=journal) == 11
    assert steps.ran == ["double 2", "add 4", "add 1", "double 1"]
    steps.ran.clear()
    rewind("r", "both", journal)
    assert resume("r", parent, journal=journal) == 11
    assert steps.ran == ["add 1", "double 1"]
    rewind("r", "sync_body", journal)
    assert resume("r", parent, journal=journal) == 11
    assert steps.ran[2:] == ["add 1", "double 2", "add 4", "add 1", "double 1"]


def test_a_workflow_that_takes_what_is_no_data_is_run_again(journal: MemoryJournal) -> None:
    """By its id alone it can't be resumed, which is told with the way that works."""

    @workflow
    def priced(shop: Annotated[Steps, ExcludeFromKey], x: int) -> int:
        shop.enter("body")
        return add(x)

    steps.failing.add("add 1")
    with pytest.raises(ValueError, match="add 1"):
        run(kept(priced, journal), steps, 1)
    steps.failing.clear()
    with pytest.raises(
        InputError, match="shop: missing, .*: run the workflow again with it, under the same run_id"
    ):
        resume("r", priced, journal=journal)
    assert run(kept(priced, journal), steps, 1) == 2


def test_a_chain_is_handed_over(journal: MemoryJournal) -> None:
    """It has no name to be found by, which is told."""
    more = chain(add, double)
    assert run(kept(more, journal), 1) == 4
    with pytest.raises(JournalError, match="it is a chain, or was made within .*\n    hand it over:  resume"):
        resume("r", journal=journal)
    assert resume("r", more, journal=journal) == 4


@pytest.mark.parametrize("end", ["made", "killed", "other"])
def test_a_second_rewind_keeps_what_the_first_made_again(journal: MemoryJournal, end: str) -> None:
    """Also where the step of the second was not made again, or with other arguments."""
    given = 3

    @workflow
    def measured() -> int:
        doubled = run(double, 1)
        if end == "killed" and given == 4:
            raise Killed
        return doubled + add(given)

    assert run(kept(measured, journal)) == 6
    rewind("r", "double", journal)
    given = 3 if end == "made" else 4
    with pytest.raises(Killed) if end == "killed" else nullcontext():
        resume("r", measured, journal=journal)
    rewind("r", "add", journal)
    steps.ran.clear()
    given = 5
    assert resume("r", measured, journal=journal) == 8
    assert steps.ran == ["add 5"]


def test_the_setting_names_the_journal(tmp_path: Any, backend: str) -> None:
    """A file, for every run; a name in the environment does the same."""
    configure(journal=str(tmp_path / "runs.db"), backend=backend)
    assert run(with_options(sync_body, run_id="one"), 1) == 5
    assert run(async_body, 1) == 5
    assert {found.run_id for found in recorded_runs()} == {"one", last_run().id}
    steps.ran.clear()
    assert resume("one") == 5
    assert steps.ran == []


def test_without_a_journal_there_is_a_clear_error() -> None:
    """It says how to name one."""
    with pytest.raises(ValueError, match="FLOWLET_JOURNAL"):
        resume("r")


def test_plain_functions_are_not_kept(journal: MemoryJournal) -> None:
    """A run of one is no run of a workflow; as a child it hands its place on."""
    configure(journal=journal)
    assert run(lambda: add(1)) == 2
    assert recorded_runs(journal) == []

    @workflow
    def body() -> int:
        return start(lambda: add(1)).result()

    assert run(body) == 2
    assert [e.name for e in journal.read(last_run().id) if e.kind == "step"] == ["add"]


@pytest.mark.parametrize("body", [sync_body, async_body], ids=lambda body: body.__name__)
def test_a_run_is_read_once(body: Any, backend: str) -> None:
    """New, stopped or completed; the result of a completed one is told without taking the run."""

    class Counting(MemoryJournal):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[str] = []

        def read(self, run_id: str, /) -> Sequence[Entry]:
            self.asked.append("read")
            return super().read(run_id)

        def claim(self, run_id: str, /) -> str | None:
            self.asked.append("claim")
            return super().claim(run_id)

    journal = Counting()
    steps.failing.add("double 2")
    with pytest.raises(ValueError, match="double 2"):
        run(kept(body, journal, backend), 1)
    steps.failing.clear()
    assert [run(kept(body, journal, backend), 1) for _ in range(2)] == [5, 5]
    assert journal.asked == ["claim", "read", "claim", "read", "read"]
    journal.claim("r")
    assert run(kept(body, journal, backend), 1) == 5


@pytest.mark.parametrize("body", [sync_body, async_body], ids=lambda body: body.__name__)
def test_a_child_run_has_no_journal_of_its_own(body: Any, tmp_path: Path, backend: str) -> None:
    """It is recorded with the run around it, and another wish is an error, not left unheard."""

    def parent(**options: Any) -> Any:
        @workflow
        async def parent(x: int) -> Any:
            return await arun(with_options(body, **options), x)

        return with_options(parent, journal=tmp_path / "runs.db", backend=backend)

    assert run(parent(journal=str(tmp_path / "x" / ".." / "runs.db")), 1) == 5
    assert run(parent(journal=SQLiteJournal(tmp_path / "runs.db"), changed_code="error"), 1) == 5
    with pytest.raises(
        DefinitionError, match=r"_body: journal='other.db' can't hold for a child run.*journal=None\)"
    ):
        run(parent(journal="other.db"), 1)
    with pytest.raises(DefinitionError, match=r"changed_code='rerun' can't hold .*, changed_code=None\)"):
        run(parent(changed_code="rerun"), 1)
    assert len(recorded_runs(tmp_path / "runs.db")) == 4
    assert not Path("other.db").exists()


def test_a_run_that_is_resumed_from_a_copy_of_its_journal_goes_on(tmp_path: Path) -> None:
    """Also where its child run names the file that it once was in."""
    child = with_options(sync_body, journal=tmp_path / "runs.db")

    @workflow(journal=tmp_path / "runs.db")
    def parent(x: int) -> int:
        steps.enter("begin")
        return child(x)

    steps.failing.add("begin")
    with pytest.raises(ValueError, match="begin"):
        run(with_options(parent, run_id="r"), 1)
    steps.failing.clear()
    with (
        closing(sqlite3.connect(tmp_path / "runs.db")) as db,
        closing(sqlite3.connect(tmp_path / "copy.db")) as copy,
    ):
        db.backup(copy)
    assert resume("r", parent, journal=tmp_path / "copy.db") == 5


def test_many_runs_share_a_journal(journal: MemoryJournal, backend: str) -> None:
    """Entries of runs that go on at once never mix."""
    configure(backend=backend)

    @workflow
    async def many() -> int:
        return await async_body(1)

    handles = [start(with_options(parent_body, journal=journal, run_id=f"r{i}"), i) for i in range(20)]
    results = [handle.result(timeout=10) for handle in handles]
    steps.ran.clear()
    again: list[Coroutine[Any, Any, int] | int] = [
        run(with_options(parent_body, journal=journal, run_id=f"r{i}"), i) for i in range(20)
    ]
    assert results == again
    assert steps.ran == []
