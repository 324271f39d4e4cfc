"""Answers of models that nobody waits for any more: they were paid for, so a resume finds them."""

import time
from typing import Any

import anyio
import pytest

from flowlet import (
    LLM,
    AsyncLLM,
    RunCancelled,
    WorkflowTimeout,
    configure,
    last_run,
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
from flowlet.journals import MemoryJournal
from flowlet.testing import MockProvider
from rig import SlowAsync, SlowSync, aask, ask, until


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@step
def begin() -> int:
    return 1


@workflow
def talk(question: str) -> str:
    begin()
    return ask(question)


@workflow
async def atalk(question: str) -> str:
    begin()
    return await aask(question)


def kept(body: Any, journal: MemoryJournal, **options: Any) -> Any:
    return with_options(body, journal=journal, run_id="r", **options)


def asked(provider: SlowSync) -> SlowSync:
    """Let *provider* be the one that is asked."""
    register_provider("slow", provider)
    configure(model="slow:m")
    return provider


def late(body: Any, provider: SlowSync, journal: MemoryJournal, **options: Any) -> None:
    """Run *body* until its deadline, which passes while the call is in flight."""
    with pytest.raises(WorkflowTimeout):
        run(kept(body, journal, timeout=0.5, **options), "tea")
    until(lambda: is_free(journal))
    provider.wait_asked()


def answers(journal: MemoryJournal) -> list[str]:
    return [entry.state for entry in journal.read("r") if entry.kind == "call"]


def is_free(journal: MemoryJournal) -> bool:
    return all(one.owner is None for one in recorded_runs(journal))


@pytest.mark.parametrize("body", [talk, atalk])
@pytest.mark.parametrize("kind", [SlowSync, SlowAsync])
def test_an_answer_after_the_deadline_is_kept(
    body: Any, kind: type[SlowSync], journal: MemoryJournal, backend: str
) -> None:
    """The run was given back at its deadline; whoever resumes it later does not buy the answer again."""
    provider = asked(kind())
    late(body, provider, journal, backend=backend)
    provider.answer.set()
    until(lambda: answers(journal) == ["completed"])
    until(lambda: is_free(journal))
    assert recorded("r", journal).run.state == "timeout"
    assert resume("r", body, journal=journal) == "late"
    assert [call.replayed for call in last_run().metrics.calls] == [True]


@workflow
async def sleeps(seconds: float) -> int:
    found = begin()
    await anyio.sleep(seconds)
    return found


def test_a_run_has_been_given_back_when_its_timeout_is_told(backend: str) -> None:
    """Whoever is told may resume it at once."""
    for _ in range(12):
        journal = MemoryJournal()
        with pytest.raises(WorkflowTimeout):
            start(kept(sleeps, journal, timeout=0.05, backend=backend), 60.0).result()
        assert [(one.state, one.owner) for one in recorded_runs(journal)] in ([("timeout", None)], [])


@pytest.mark.parametrize("body", [talk, atalk])
def test_an_answer_within_the_grace_is_kept(body: Any, journal: MemoryJournal, backend: str) -> None:
    """The run that was cancelled waits for it."""
    provider = asked(SlowAsync() if body is atalk else SlowSync())
    handle = start(kept(body, journal, backend=backend), "tea")
    provider.wait_asked()
    handle.cancel()
    provider.answer.set()
    with pytest.raises(RunCancelled):
        handle.result(timeout=5)
    until(lambda: is_free(journal))
    assert answers(journal) == ["completed"]
    assert resume("r", body, journal=journal) == "late"


def booked(provider: SlowSync) -> None:
    """Let the answer come, and everything that follows from it."""
    provider.answer.set()
    until(lambda: usage().calls == 1)
    time.sleep(0.05)


def test_a_late_answer_is_left_out_where_somebody_has_the_run(journal: MemoryJournal) -> None:
    """Who goes on with it asks anew, and that answer holds."""
    provider = asked(SlowSync())
    late(talk, provider, journal)
    assert journal.claim("r") is None
    booked(provider)
    assert answers(journal) == []
    journal.release("r")


def test_a_late_answer_is_left_out_where_the_call_is_known(journal: MemoryJournal) -> None:
    """It was made anew meanwhile, or is open again."""
    provider, other = asked(SlowSync()), SlowSync()
    late(talk, provider, journal)
    asked(other).answer.set()
    assert resume("r", talk, journal=journal) == "late"
    rewind("r", "begin", journal)
    known = journal.read("r")
    provider.answer.set()
    until(lambda: usage().calls == 2)
    time.sleep(0.05)
    assert journal.read("r") == known


def test_a_late_answer_is_left_out_where_the_run_was_dropped(journal: MemoryJournal) -> None:
    """Nothing of it comes back."""
    provider = asked(SlowSync())
    late(talk, provider, journal)
    journal.forget(["r"])
    booked(provider)
    assert recorded_runs(journal) == []


broken = True


@step
def piecewise(question: str, llm: LLM = LLM()) -> str:
    with llm.stream(question) as pieces:
        said = "".join(pieces)
        if broken:
            raise OSError("the site is down")
    return said


@step
async def apiecewise(question: str, llm: AsyncLLM = AsyncLLM()) -> str:
    async with llm.stream(question) as pieces:
        said = "".join([piece async for piece in pieces])
        if broken:
            raise OSError("the site is down")
    return said


@workflow
def reads(question: str) -> str:
    return piecewise(question)


@workflow
async def areads(question: str) -> str:
    return await apiecewise(question)


@pytest.mark.parametrize("body", [reads, areads])
def test_a_stream_that_has_come_to_its_end_is_kept(
    body: Any, journal: MemoryJournal, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of what is done with it."""
    register_provider("mock", provider := MockProvider(["late or never"]))
    configure(model="mock:m")
    with pytest.raises(OSError, match="the site is down"):
        run(kept(body, journal, backend=backend), "tea")
    monkeypatch.setitem(globals(), "broken", False)
    assert resume("r", body, journal=journal) == "late or never"
    assert len(provider.requests) == 1
