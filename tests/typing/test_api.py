"""The whole public API as type checkers see it. Only checked, by mypy and pyright, never run."""

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, assert_type

import loguru
from attrs import evolve, frozen

import flowlet
import flowlet.pii
from flowlet import (
    LLM,
    AsyncLLM,
    Completion,
    ExecutionMetrics,
    Failure,
    Message,
    ModelCall,
    Run,
    RunCall,
    StepCall,
    TokenUsage,
    Usage,
    agather,
    apmap,
    arun,
    chain,
    failure_of,
    gather,
    is_step,
    is_workflow,
    last_run,
    load_workflow,
    pmap,
    prompt,
    run,
    runs,
    start,
    step,
    with_options,
    workflow,
)
from flowlet.entries import Entry, JournalledRun
from flowlet.journals import MemoryJournal, SQLiteJournal
from flowlet.messages import Delta, Request
from flowlet.testing import AsyncMockLLM, MockLLM, MockProvider


@frozen
class Label:
    """A class of answers."""

    name: str


@frozen
class Unsure:
    """Another one."""

    reason: str


class Point(TypedDict):
    """A typed dictionary."""

    text: str
    weight: int


class Mood(Enum):
    """An enumeration."""

    GOOD = "good"
    BAD = "bad"


# --- decorators are transparent ---------------------------------------------------------------


@step
def length(text: str) -> int:
    """A sync step."""
    return len(text)


@step(attempts=3, retry_on=(OSError, ValueError), timeout=5, max_concurrency=2, check=True, name="half")
def half(number: int, by: float = 2) -> float:
    """A sync step with options."""
    return number / by


@step
async def fetch(url: str, *, retries: int = 0) -> bytes:
    """An async step."""
    return url.encode() * retries


@step(timeout=1)
async def total(*numbers: int) -> int:
    """An async step with options."""
    return sum(numbers)


@workflow
def sync_flow(text: str) -> float:
    """A sync workflow."""
    return half(length(text), by=3)


@workflow(timeout=10, tags=["nightly"], backend="trio", model="openai:gpt-5-mini")
async def async_flow(url: str) -> list[int]:
    """An async workflow."""
    return list(await fetch(url))


class Shop:
    """Methods bind as those of an undecorated function do."""

    @step
    def price(self, item: str) -> Decimal:
        """A step as a method."""
        return Decimal(len(item))

    @workflow
    async def order(self, item: str) -> Decimal:
        """A workflow as a method."""
        return self.price(item)


def plain(number: int, text: str = "") -> str:
    """A plain function."""
    return text * number


async def decorators() -> None:
    """Calls have the types of the functions as they were written."""
    assert_type(length("a"), int)
    assert_type(half(1, by=2.0), float)
    assert_type(await fetch("u", retries=1), bytes)
    assert_type(await total(1, 2), int)
    assert_type(sync_flow("a"), float)
    assert_type(await async_flow("u"), list[int])
    assert_type(Shop().price("tea"), Decimal)
    assert_type(await Shop().order("tea"), Decimal)
    assert_type(is_step(length), bool)
    assert_type(is_workflow(sync_flow), bool)

    length(1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    length()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    sync_flow(text=3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    step(attemps=3)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]


# --- running ----------------------------------------------------------------------------------


def run_from_sync() -> None:
    """``run`` gives the result of either colour and checks the arguments."""
    assert_type(run(length, "a"), int)
    assert_type(run(half, 1, by=2.0), float)
    assert_type(run(fetch, "u", retries=2), bytes)
    assert_type(run(total, 1, 2, 3), int)
    assert_type(run(sync_flow, "a"), float)
    assert_type(run(async_flow, "u"), list[int])
    assert_type(run(plain, 1, text="x"), str)
    assert_type(run(lambda: fetch("u")), bytes)
    assert_type(run(Shop().order, "tea"), Decimal)

    run(length, 1)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    run(fetch, "u", tries=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


async def run_from_async() -> None:
    """``arun`` does too."""
    assert_type(await arun(length, "a"), int)
    assert_type(await arun(fetch, "u"), bytes)
    assert_type(await arun(sync_flow, "a"), float)
    assert_type(await arun(async_flow, "u"), list[int])


async def handles() -> None:
    """A handle knows the type of its result."""
    one = start(sync_flow, "a")
    two = start(async_flow, "u")
    assert_type(one, Run[float])
    assert_type(two, Run[list[int]])
    assert_type(one.result(), float)
    assert_type(two.result(timeout=3), list[int])
    assert_type(await two, list[int])
    assert_type(one.cancel(), bool)
    assert_type(one.id, str)
    assert_type(one.workflow, str)
    assert_type(one.state, Literal["pending", "running", "completed", "failed", "cancelled", "timeout"])
    assert_type(one.metrics, ExecutionMetrics)
    assert_type(one.metrics.usage, Usage)
    async with one.events() as events:
        async for event in events:
            print(event.at)
    several: list[Run[object]] = [one, two]
    assert_type(gather(*several), tuple[object, ...])
    assert_type(runs(), list[Run[Any]])
    assert_type(last_run(), Run[Any])
    assert_type(flowlet.usage(), Usage)


# --- many calls -------------------------------------------------------------------------------


def many_from_sync() -> None:
    """Fan-out keeps the types of its parts."""
    assert_type(pmap(length, ["a", "b"]), list[int])
    assert_type(pmap(fetch, ["u"], max_concurrency=4), list[bytes])
    assert_type(pmap(lambda n: n + 1, range(3)), list[int])
    assert_type(pmap(lambda url: fetch(url, retries=2), ["u"]), list[bytes])
    assert_type(gather(start(length, "a")), tuple[int])
    assert_type(gather(start(length, "a"), start(fetch, "u")), tuple[int, bytes])
    assert_type(gather(start(length, "a"), start(fetch, "u"), start(half, 1)), tuple[int, bytes, float])
    assert_type(gather(*[start(length, text) for text in "abc"]), tuple[int, ...])
    pmap(length, [1])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def many_from_async() -> None:
    """So do its async twins, of coroutines and handles alike."""
    assert_type(await apmap(length, ["a", "b"]), list[int])
    assert_type(await apmap(fetch, ["u"]), list[bytes])
    assert_type(await apmap(lambda url: fetch(url, retries=2), ["u"]), list[bytes])
    assert_type(await agather(fetch("u"), arun(length, "a")), tuple[bytes, int])
    assert_type(await agather(start(length, "a"), fetch("u"), total(1)), tuple[int, bytes, int])
    assert_type(await agather(*[fetch(u) for u in "abc"]), tuple[bytes, ...])


# --- options ----------------------------------------------------------------------------------


async def options() -> None:
    """``with_options`` keeps the function's type and knows the options' names and types."""
    assert_type(with_options(sync_flow, timeout=10, run_id="r-1", tags=["a"])("a"), float)
    assert_type(run(with_options(async_flow, model="offline", backend="trio"), "u"), list[int])
    assert_type(await with_options(fetch, attempts=2, name="get")("u"), bytes)
    with_options(sync_flow, tiemout=10)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    with_options(sync_flow, timeout="10")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with_options(sync_flow, backend="curio")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    flowlet.configure(model="offline", grace=1, observers=[print])
    flowlet.configure(modle="offline")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


# --- models -----------------------------------------------------------------------------------


@step
def judge(text: str, llm: LLM = LLM("openai:gpt-5-mini", temperature=0, stop=["\n"])) -> Label:
    """A step with a model."""
    return llm.ask(text, Label)


@step
async def ajudge(text: str, llm: AsyncLLM = AsyncLLM(system="Be brief.")) -> Label | Unsure:
    """An async step with a model."""
    return await llm.ask(text, Label | Unsure)


def answers(llm: LLM) -> None:
    """``ask`` gives exactly the type that it was asked for."""
    assert_type(llm.ask("?"), str)
    assert_type(llm.ask("?", str), str)
    assert_type(llm.ask("?", int), int)
    assert_type(llm.ask("?", Label), Label)
    assert_type(llm.ask("?", Label | Unsure), Label | Unsure)
    assert_type(llm.ask("?", Label | None), Label | None)
    assert_type(llm.ask("?", list[Label]), list[Label])
    assert_type(llm.ask("?", dict[str, list[int]]), dict[str, list[int]])
    assert_type(llm.ask("?", tuple[int, str]), tuple[int, str])
    assert_type(llm.ask("?", Literal["yes", "no"]), Literal["yes", "no"])
    assert_type(llm.ask("?", Point), Point)
    assert_type(llm.ask("?", Mood), Mood)
    assert_type(llm.ask("?", Annotated[int, "a number"]), int)
    assert_type(llm.complete("?"), Completion)
    assert_type(llm.complete([Message("user", "?")]).usage, TokenUsage)
    with llm.stream("?") as pieces:
        assert_type(pieces, Iterator[str])
    llm.ask("?", 3)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]


async def async_answers(llm: AsyncLLM) -> None:
    """So does the async one."""
    assert_type(await llm.ask("?"), str)
    assert_type(await llm.ask("?", Label | Unsure), Label | Unsure)
    assert_type(await llm.ask("?", list[Label]), list[Label])
    assert_type(await llm.ask("?", Literal[1, 2]), Literal[1, 2])
    assert_type(await llm.complete("?"), Completion)
    async with llm.stream("?") as pieces:
        assert_type(pieces, AsyncIterator[str])


async def mocks() -> None:
    """A scripted model goes where a model goes."""
    assert_type(judge("a", llm=MockLLM(['{"name": "tea"}'])), Label)
    assert_type(judge("a", MockLLM([Label("tea")])), Label)
    assert_type(await ajudge("a", llm=AsyncMockLLM(lambda request: request.model)), Label | Unsure)
    assert_type(MockLLM().provider, MockProvider)
    assert_type(evolve(LLM(), temperature=0.5), LLM)
    judge("a", llm=AsyncMockLLM())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


translate = prompt("Translate into {language}: {text}")
sentiment = prompt("Is this good? {text}", Literal["yes", "no"], name="sentiment")
points = prompt("Points of {text}", list[str], inputs={"text": str}, llm=LLM(temperature=0))
title = chain(length, "Write a title of {n} words", judge, name="title", llm=AsyncLLM())
brief = load_workflow("brief.yaml")
assert_type(brief, Callable[..., Coroutine[Any, Any, Any]])
assert_type(start(brief, topic="tea"), Run[Any])


async def templates() -> None:
    """A prompt is a sync step of the type it returns, a chain an async workflow."""
    assert_type(translate("German", text="tea"), str)
    assert_type(sentiment("tea"), Literal["yes", "no"])
    assert_type(points(text="tea", llm=MockLLM([["a"]])), list[str])
    votes: list[Literal["yes", "no"]] = pmap(sentiment, ["a", "b"])
    assert_type(pmap(points, votes), list[list[str]])
    assert_type(title, Callable[..., Coroutine[Any, Any, Any]])
    assert_type(await title("tea"), Any)
    assert_type(run(title, "tea"), Any)
    assert_type(start(title, "tea"), Run[Any])


# --- extension points -------------------------------------------------------------------------


class Echo:
    """A provider with sync methods alone."""

    name = "echo"

    def complete(self, request: Request, /) -> Completion:
        """Say the same again."""
        return Completion(request.messages[-1].content, TokenUsage(1, 1, 2), model=request.model)


@frozen
class AsyncEcho:
    """A provider with async methods alone, that prices its answers and is a frozen value."""

    name: str = "aecho"

    async def acomplete(self, request: Request, /) -> Completion:
        """Say the same again."""
        return Completion(Delta(request.messages[-1].content).text)

    def price(self, model: str, usage: TokenUsage) -> Decimal | None:
        """Cost what it costs."""
        return Decimal(usage.total_tokens) * len(model)


def log_steps(call: StepCall, next: Callable[[StepCall], object]) -> object:
    """A sync middleware of steps."""
    return next(evolve(call, args=call.args))


async def slow_models(call: ModelCall | RunCall, next: Callable[[Any], Awaitable[object]]) -> object:
    """An async middleware of model calls and runs."""
    return await next(call)


@workflow(middleware=[log_steps, slow_models])
def watched() -> None:
    """A workflow with middleware."""


class Glossary:
    """A step plugin of sync methods."""

    def open(self) -> None: ...

    def __call__(self, word: str) -> str:
        return word

    def close(self) -> None: ...


class AsyncGlossary:
    """A step plugin of async methods."""

    async def open(self) -> None: ...

    async def __call__(self, word: str) -> str:
        return word

    async def close(self) -> None: ...


def extensions() -> None:
    """Providers and middleware of one's own fit without a base class."""
    flowlet.register_provider("echo", Echo())
    flowlet.register_step("log", log_steps)
    flowlet.register_middleware("log", log_steps)
    flowlet.register_step("glossary", Glossary)
    plugins: list[flowlet.StepPlugin] = [Glossary(), AsyncGlossary()]
    assert plugins
    flowlet.configure(middleware=["log", log_steps])
    with_options(sync_flow, middleware=["log", log_steps])
    assert_type(flowlet.get_step("log"), Callable[..., Any])
    flowlet.register_provider("aecho", AsyncEcho())
    flowlet.configure(middleware=[log_steps], observers=[lambda event: print(event.at)])
    flowlet.register_provider("no", object())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# --- errors -----------------------------------------------------------------------------------


def errors() -> None:
    """Errors are typed facts, under the built-in class that a caller expects."""
    try:
        run(sync_flow, "a")
    except flowlet.WorkflowTimeout as exc:
        assert_type(exc.metrics, ExecutionMetrics)
        builtin: TimeoutError = exc
        assert_type(failure_of(builtin), Failure | None)
    except flowlet.ProviderError as exc:
        assert_type(exc.status, int | None)
        assert_type(exc.retryable, bool)
    except flowlet.OutputError as exc:
        assert_type(exc.faults, tuple[str, ...])


def logs() -> None:
    """Streams, paths and the loggers of the host; levels and formats are literal."""
    flowlet.log_to(sys.stderr, level="DEBUG", format="json", prompts=True)
    flowlet.log_to(Path("runs.jsonl"))
    flowlet.log_to(loguru.logger)
    flowlet.log_to(logging.getLogger("mine"))
    flowlet.log_to(None)
    flowlet.log_to(sys.stderr, level="LOUD")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    flowlet.log_to(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# --- safety -----------------------------------------------------------------------------------


def safety() -> None:
    """Untrusted text is text, detectors are functions, and a guard is a setting and a middleware."""
    text: str = flowlet.untrusted("from outside")
    assert_type(flowlet.pii.find(text, ["email"]), tuple[flowlet.pii.Match, ...])
    assert_type(flowlet.pii.mask(text), str)
    guard = flowlet.pii.Guard("mask", kinds="email, card", detectors=[lambda text: []])
    flowlet.configure(pii=guard, inputs=flowlet.InputLimits(size=1000))
    flowlet.pii.Guard("hide")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with_options(sync_flow, middleware=[guard])


# --- journal and cache --------------------------------------------------------------------------


@step(cache=True)
def cached(text: str) -> Label:
    """A step that keeps its results is the function that it was."""
    return Label(text)


class Till:
    """Something that is no data."""

    @step(cache=timedelta(hours=1))
    def price(self: Annotated["Till", flowlet.ExcludeFromKey], of: str) -> float:
        """A method leaves its object out of the key."""
        return len(of)


async def recorded_runs() -> None:
    """A journal is a path or a store; what is recorded is JSON, what is resumed is of any type."""
    with_options(sync_flow, journal="runs.db", run_id="tea-1", changed_code="rerun")
    with_options(sync_flow, journal=Path("runs.db"))
    store = SQLiteJournal("runs.db")
    flowlet.configure(journal=store, changed_code="reuse")
    assert_type(flowlet.recorded_runs(store), list[JournalledRun])
    assert_type(flowlet.DamagedRuns("damaged").runs, tuple[JournalledRun, ...])
    assert_type(store.run("tea-1"), JournalledRun | None)
    found = flowlet.recorded("tea-1", store)
    assert_type(found, flowlet.RecordedRun)
    assert_type(found.entries, tuple[Entry, ...])
    assert_type(found.usage, Usage)
    assert_type(found.error, str | None)
    flowlet.resume("tea-1", sync_flow, journal="runs.db", changed_code="error")
    await flowlet.aresume("tea-1", journal=MemoryJournal())
    flowlet.rewind("tea-1", "cached", "runs.db")
    flowlet.forget_runs(["tea-1"], "runs.db")
    assert_type(cached("a"), Label)
    assert_type(Till().price("tea"), float)
    step(cache=str.lower)(cached)
    with_options(sync_flow, changed_code="maybe")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    step(cache="yes")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
