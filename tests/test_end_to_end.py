"""Workflows over real HTTP, against the small OpenAI-compatible server: both modes, both backends."""

from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
import stamina
from attrs import frozen

import flowlet
from flowlet import (
    LLM,
    AsyncLLM,
    ConfigError,
    ProviderError,
    Run,
    RunCancelled,
    WorkflowTimeout,
    apmap,
    arun,
    failure_of,
    last_run,
    pmap,
    run,
    start,
    step,
    with_options,
    workflow,
)
from rig import aask, ask
from server import Answer, Drop, Quota, RateLimit, Server, Status, Stream


@step
def outline(topic: str) -> str:
    return f"List three points for a talk about {topic}, one a line."


@step
def points(answer: str) -> list[str]:
    return [line.strip("-• ") for line in answer.splitlines() if line.strip()]


@workflow
def talk(topic: str) -> list[str]:
    return points(ask(outline(topic)))


@workflow
async def atalk(topic: str) -> list[str]:
    return points(await aask(outline(topic)))


ANSWER = "- leaf\n- water\n- time"
POINTS = ["leaf", "water", "time"]


@frozen
class Tea:
    name: str
    minutes: float


Talk = Callable[[str], Any]


@pytest.fixture(params=["sync", "async"])
def any_talk(request: pytest.FixtureRequest, backend: str) -> Talk:
    """The workflow as a ``def`` and as an ``async def``, on each backend."""
    return with_options(talk if request.param == "sync" else atalk, backend=backend)


@pytest.fixture(autouse=True)
def no_backoff() -> Iterator[None]:
    """Retry at once; a Retry-After is waited for all the same."""
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Callable[[Server], Server]:
    """Point the environment at a server."""

    def point(server: Server) -> Server:
        monkeypatch.setenv("OPENAI_API_KEY", server.key)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        return server

    return point


Serving = Callable[[Server], Server]


def test_a_workflow_runs_end_to_end(any_talk: Talk, serving: Serving) -> None:
    """The issue's example gives the points of the answer, with every token counted."""
    with Server([Answer(ANSWER)]) as server:
        serving(server)
        assert run(any_talk, "tea") == POINTS
        (request,) = server.requests
        (sent,) = server.sent_usage
    metrics = last_run().metrics
    assert request.json["messages"][-1]["content"].startswith("List three points for a talk about tea")
    assert [s.state for s in metrics.steps] == ["completed"] * 3
    assert (metrics.usage.calls, metrics.usage.total_tokens) == (1, sent["total_tokens"])
    assert flowlet.usage() == metrics.usage


def test_start_gives_a_handle_at_once(any_talk: Talk, serving: Serving) -> None:
    """A started run goes on in the background, and its result can be fetched again and again."""
    with Server([Answer(ANSWER, delay=0.05)]) as server:
        serving(server)
        handle = start(any_talk, "tea")
        assert handle.state in ("pending", "running")
        assert handle.result(5) == handle.result() == POINTS
    assert handle.state == "completed"


@pytest.mark.anyio
@pytest.mark.parametrize("which", [talk, atalk])
async def test_arun_leaves_the_loop_free(which: Any, serving: Serving) -> None:
    """While the model thinks, other tasks of the same loop go on."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await anyio.sleep(0.005)

    with Server([Answer(ANSWER, delay=0.15)]) as server:
        serving(server)
        await anyio.to_thread.run_sync(_warm)
        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            assert await arun(which, "tea") == POINTS
            group.cancel_scope.cancel()
    assert ticks > 5


def _warm() -> None:
    from flowlet.providers.openai import OpenAIProvider

    OpenAIProvider().load()


def test_a_rate_limit_is_waited_for(any_talk: Talk, serving: Serving) -> None:
    """A 429 is tried again after what Retry-After asks for, and every attempt is on record."""
    with Server([RateLimit(retry_after=0.1), Answer(ANSWER)]) as server:
        serving(server)
        assert run(any_talk, "tea") == POINTS
        first, second = server.requests
    calls = last_run().metrics.calls
    assert second.at - first.at >= 0.1
    assert [(c.attempt, c.ok) for c in calls] == [(1, False), (2, True)]


def test_server_faults_and_dropped_connections_are_tried_three_times(
    any_talk: Talk, serving: Serving
) -> None:
    """A 500 and a dropped connection are tried again; the third failure reaches the caller."""
    with Server([Status(500), Drop(), Answer(ANSWER), Status(500), Status(503), Drop()]) as server:
        serving(server)
        assert run(any_talk, "tea") == POINTS
        with pytest.raises(ProviderError) as caught:
            run(any_talk, "tea")
        assert len(server.requests) == 6
    failure = failure_of(caught.value)
    assert failure is not None
    assert failure.step in ("ask", "aask")
    assert caught.value.retryable
    assert last_run().metrics.usage.unknown == 3


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Status(401), "authentication"),
        (Status(403), "permission"),
        (Status(400), "bad_request"),
        (Quota(), "quota"),
    ],
)
def test_what_another_try_cannot_mend_is_not_tried_again(
    any_talk: Talk, serving: Serving, answer: Any, kind: str
) -> None:
    """A wrong key, a forbidden or malformed request and an empty account fail at once."""
    with Server([answer]) as server:
        serving(server)
        with pytest.raises(ProviderError) as caught:
            run(any_talk, "tea")
        assert len(server.requests) == 1
    assert (caught.value.kind, caught.value.retryable) == (kind, False)
    assert server.key not in repr(caught.value)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_a_wrong_key_says_what_to_set(
    any_talk: Talk, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a refused key names the variable that holds it, never the key."""
    with Server([Answer(ANSWER)]) as server:
        serving(server)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-4711-canary")
        with pytest.raises(ProviderError, match="OPENAI_API_KEY") as caught:
            run(any_talk, "tea")
    assert "canary" not in str(caught.value)


def test_without_a_provider_the_error_names_three_ways(any_talk: Talk) -> None:
    """With no key and no choice of model the error says what one can set."""
    with pytest.raises(ConfigError) as caught:
        run(any_talk, "tea")
    for way in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "FLOWLET_MODEL=offline"):
        assert way in str(caught.value)


def test_offline_is_a_choice(any_talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLOWLET_MODEL=offline runs everything without a key, and says so."""
    monkeypatch.setenv("FLOWLET_MODEL", "offline")
    assert "offline" in run(any_talk, "tea")[0]
    assert last_run().metrics.usage.total_tokens > 0


def test_a_deadline_ends_a_call_in_flight_and_books_it_later(any_talk: Talk, serving: Serving) -> None:
    """A run ends at its deadline with the figures of that moment; the answer that comes late is booked."""
    with Server([Answer(ANSWER), Answer(ANSWER, delay=0.4)]) as server:
        serving(server)
        run(any_talk, "tea")
        with pytest.raises(WorkflowTimeout) as caught:
            run(with_options(any_talk, timeout=0.15), "tea")
        handle = last_run()
        metrics = caught.value.metrics
        assert 0.15 <= metrics.duration < 0.4
        assert [s.state for s in metrics.steps] == ["completed", "running"]
        assert metrics.usage.calls == 0
        _until(lambda: handle.metrics.usage.calls == 1)
        assert handle.metrics.usage.total_tokens == server.sent_usage[-1]["total_tokens"]
        assert handle.state == "timeout"


def test_cancelling_lets_the_call_in_flight_finish(any_talk: Talk, serving: Serving) -> None:
    """A cancelled run waits for the model's answer, books it, and starts no further step."""
    with Server([Answer(ANSWER), Answer(ANSWER, delay=0.3)]) as server:
        serving(server)
        run(any_talk, "tea")
        handle = start(any_talk, "tea")
        _until(lambda: len(server.requests) == 2)
        assert handle.cancel()
        with pytest.raises(RunCancelled):
            handle.result(5)
        assert handle.metrics.usage.total_tokens == server.sent_usage[-1]["total_tokens"]
    assert handle.state == "cancelled"
    assert len(handle.metrics.steps) == 2


def test_typed_answers_come_as_values(backend: str, serving: Serving) -> None:
    """A typed question sends the schema and gives the value; a misfit is told once and mended."""

    @step
    def tea(llm: LLM = LLM()) -> Tea:
        return llm.ask("Name a tea.", Tea)

    with Server([Answer('{"name": "sencha"}'), Answer('{"name": "sencha", "minutes": 2}')]) as server:
        serving(server)
        assert run(with_options(tea, backend=backend)) == Tea("sencha", 2.0)
        first, second = server.requests
    assert first.json["response_format"]["json_schema"]["name"] == "Tea"
    assert "minutes" in second.json["messages"][-1]["content"]


@pytest.mark.anyio
async def test_streams_come_in_pieces_and_are_booked(serving: Serving) -> None:
    """A stream gives its pieces in both colours, and its usage is on record."""

    def pieces() -> list[str]:
        with LLM().stream("tea") as texts:
            return list(texts)

    with Server([Stream(["gr", "een"]), Stream(["bl", "ack"])]) as server:
        serving(server)
        async with AsyncLLM().stream("tea") as texts:
            assert [text async for text in texts] == ["gr", "een"]
        assert await anyio.to_thread.run_sync(pieces) == ["bl", "ack"]
        sent = sum(usage["total_tokens"] for usage in server.sent_usage)
    assert flowlet.usage().total_tokens == sent


def test_a_hundred_calls_at_once_are_counted_exactly(backend: str, serving: Serving) -> None:
    """Concurrent calls from threads and tasks: the records equal what the server says it sent."""

    @workflow
    def fan(count: int) -> int:
        return len(pmap(ask, ["tea"] * count))

    @workflow
    async def afan(count: int) -> int:
        return len(await apmap(aask, ["tea"] * count))

    with Server() as server:
        serving(server)
        both: list[Run[int]] = [start(with_options(which, backend=backend), 50) for which in (fan, afan)]
        assert [handle.result(20) for handle in both] == [50, 50]
        sent = sum(usage["total_tokens"] for usage in server.sent_usage)
    assert sum(handle.metrics.usage.total_tokens for handle in both) == sent == flowlet.usage().total_tokens


def _until(condition: Callable[[], bool]) -> None:
    import time

    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until, "it did not happen within 5 s"
        time.sleep(0.005)
