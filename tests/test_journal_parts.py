"""Runs with a journal and everything else that a run may have: each part is resumed as the steps that it is made of."""

import contextvars
import threading
from pathlib import Path
from typing import Any

import pytest

from flowlet import (
    LLM,
    Budget,
    RunCall,
    StepCall,
    arun,
    chain,
    configure,
    get_step,
    last_run,
    pmap,
    prompt,
    recorded,
    register_provider,
    register_step,
    run,
    step,
    with_options,
    workflow,
)
from flowlet.journals import MemoryJournal
from flowlet.pii import Guard
from flowlet.testing import MockProvider, recording

ran: list[str] = []
failing: set[str] = set()


@pytest.fixture(autouse=True)
def provider() -> MockProvider:
    ran.clear()
    failing.clear()
    found = MockProvider(lambda request: f"<{request.messages[-1].content}>")
    register_provider("mock", found)
    configure(model="mock:m")
    return found


def enter(name: str) -> None:
    ran.append(name)
    if name in failing:
        raise ValueError(name)


@step
def last() -> None:
    enter("last")


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    enter("ask")
    return llm.ask(question)


say = prompt("Say {what}")
shout = chain("Tell {what}", str.upper)


class Adder:
    """A step that holds something open."""

    def open(self) -> None:
        enter("open")

    def __call__(self, x: int) -> int:
        enter("call")
        return x + 1

    def close(self) -> None:
        enter("close")


@step(attempts=3)
def tried(x: int) -> int:
    enter("tried")
    if ran.count("tried") < 3:
        raise OSError("again")
    return ask_length(x)


@step
def ask_length(x: int) -> int:
    return len(ask("x" * x))


@step
def factorial(n: int) -> int:
    enter(f"factorial {n}")
    return 1 if n == 0 else n * factorial(n - 1)


@step(max_concurrency=1, timeout=30)
def limited(x: int) -> int:
    enter(f"limited {x}")
    return x


def in_a_thread_of_its_own() -> int:
    found: list[int] = []
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: found.append(context.run(ask_length, 3)))
    thread.start()
    thread.join()
    return found[0]


@workflow
def below(n: int) -> str:
    return ask(f"q{n}") if n == 0 else ask(f"q{n}") + below(n - 1)


BODIES: dict[str, Any] = {
    "prompt": lambda: say("tea"),
    "plugin": lambda: get_step("adder")(1),
    "retries": lambda: tried(2),
    "recursion of a step": lambda: factorial(3),
    "recursion of a workflow": lambda: below(3),
    "limits": lambda: pmap(limited, [1, 2, 3]),
    "own thread": in_a_thread_of_its_own,
}


def stopped_and_resumed(body: Any, journal: Any = None, **options: Any) -> tuple[Any, Any]:
    """What *body* gives, and what it gives when it is stopped at its end and resumed; then *ran* is of that part."""

    @workflow
    def whole() -> list[Any]:
        found = [body()]
        last()
        return found

    expected = run(whole)
    ran.clear()
    kept = with_options(whole, journal=journal or MemoryJournal(), run_id="r", **options)
    failing.add("last")
    with pytest.raises(ValueError, match="last"):
        run(kept)
    failing.clear()
    ran.clear()
    return expected, run(kept)


@pytest.mark.parametrize("name", BODIES)
def test_what_has_finished_is_not_done_again(name: str, provider: MockProvider, backend: str) -> None:
    """Whatever kind of step it is, and wherever it is called."""
    register_step("adder", Adder)
    expected, found = stopped_and_resumed(BODIES[name], backend=backend)
    assert found == expected
    assert ran == ["last"]
    told = last_run().metrics
    assert [*told.steps, *told.children][0 if name != "recursion of a workflow" else -1].reused == "journal"


def test_a_chain_is_resumed_as_a_child_run(backend: str) -> None:
    """Its result is that of the run."""

    @workflow
    async def whole() -> str:
        found: str = await shout("tea")
        last()
        return found

    kept = with_options(whole, journal=MemoryJournal(), run_id="r", backend=backend)
    failing.add("last")
    with pytest.raises(ValueError, match="last"):
        run(kept)
    failing.clear()
    assert run(kept) == "<TELL TEA>"
    assert [child.reused for child in last_run().metrics.children] == ["journal"]


def test_recorded_answers_count_for_no_budget(provider: MockProvider) -> None:
    """What was bought before a crash does not hold the resumed run back."""

    @workflow
    def whole() -> str:
        first = ask("a")
        last()
        return first + ask("b")

    kept = with_options(whole, journal=MemoryJournal(), run_id="r", budget=Budget(calls=1))
    failing.add("last")
    with pytest.raises(ValueError, match="last"):
        run(kept)
    failing.clear()
    assert run(kept) == "<a><b>"
    assert [r.messages[-1].content for r in provider.requests] == ["a", "b"]


def test_middleware_of_steps_does_not_see_results_from_the_journal() -> None:
    """That of runs wraps the body each time."""
    seen: list[str] = []

    def sees(call: StepCall | RunCall, next: Any) -> Any:
        seen.append(call.step if isinstance(call, StepCall) else "run")
        return next(call)

    stopped_and_resumed(lambda: ask("a"), middleware=[sees])
    assert seen == ["run", "ask", "last", "run", "last"]


def test_the_journal_has_answers_as_they_were_sent_and_steps_as_they_are() -> None:
    """A guard masks what leaves; what the step gives is the program's own."""
    journal = MemoryJournal()
    _, found = stopped_and_resumed(
        lambda: ask("mail bob@example.com"), journal, middleware=[Guard("mask", kinds="email")]
    )
    assert found == ["<mail bob@example.com>"]
    values = {entry.kind: entry.value for entry in recorded("r", journal).calls if entry.name != "last"}
    assert "<EMAIL_1>" in values["call"]
    assert "bob@" not in values["call"]
    assert "bob@" in values["step"]


def test_a_recording_is_asked_for_what_the_journal_does_not_have(
    tmp_path: Path, provider: MockProvider
) -> None:
    """What the journal has, nobody asks for; the rest comes from the recording."""
    path = tmp_path / "calls.json"
    with recording(path, mode="all"):
        run(lambda: [ask("a"), ask("b")])

    @workflow
    def whole() -> list[str]:
        first = ask("a")
        last()
        return [first, ask("b")]

    kept = with_options(whole, journal=MemoryJournal(), run_id="r")
    failing.add("last")
    with recording(path, mode="none"):
        with pytest.raises(ValueError, match="last"):
            run(kept)
        failing.clear()
        assert run(kept) == ["<a>", "<b>"]
    assert len(provider.requests) == 2


@pytest.mark.anyio
async def test_a_step_by_itself_is_a_run_that_can_be_resumed(anyio_backend: str) -> None:
    """Its result is that of the run."""
    kept = with_options(ask, journal=MemoryJournal(), run_id="r")
    assert [await arun(kept, "a"), await arun(kept, "a")] == ["<a>", "<a>"]
    assert ran == ["ask"]


def test_a_prompt_by_itself_is_a_run_that_can_be_resumed(provider: MockProvider) -> None:
    """With the model that it was given."""
    translate = prompt("Translate into {language}: {text}")
    for llm in (LLM(), LLM(temperature=0.5)):
        kept = with_options(translate, journal=MemoryJournal(), run_id="r")
        answers = [run(kept, "German", text="tea", llm=llm) for _ in range(2)]
        assert answers == ["<Translate into German: tea>"] * 2
    assert [request.parameters.temperature for request in provider.requests] == [None, 0.5]
