"""Whatever happens to a thousand calls, the records are what the server says it sent: per call, step, run and in all."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
import stamina
from attrs import define, evolve, field, frozen

import flowlet
from flowlet import (
    LLM,
    AsyncLLM,
    FlowletError,
    OutputError,
    ProviderError,
    Run,
    apmap,
    arun,
    configure,
    pmap,
    register_provider,
    run,
    start,
    step,
    with_options,
    workflow,
)
from flowlet._engine._attempts import InFlight
from flowlet._engine._threads import Threads
from flowlet.events import Event, ModelCalled
from flowlet.metrics import UNKNOWN, CallRecord, ExecutionMetrics, TokenUsage, Usage
from flowlet.pricing import Price
from flowlet.providers.openai import OpenAIProvider
from flowlet.settings import process
from hostile import Events, delta
from rig import until
from server import Answer, Body, Drop, RateLimit, Raw, Received, Server, Status, Step, Stream
from server_script import Wire

NOTHING = TokenUsage()
HASTY = 1.5
"""Seconds that a call may take which meets silence."""

# --- what the server does ------------------------------------------------------------------------


@frozen
class Deed:
    """One answer of the server, and the tokens that it tells with it."""

    step: Step
    tells: TokenUsage = UNKNOWN


@frozen
class Held:
    """A stream that breaks off, unless its reader has left by then; its tokens are never told."""

    def play(self, received: Received, wire: Wire) -> None:
        wire.begin(received)
        for _ in range(3):
            wire.chunk(f"data: {delta('tea')}\n\n".encode())
        wire.wait(0.1)
        wire.close()


def tokens(draw: random.Random) -> tuple[dict[str, Any], TokenUsage]:
    """Some tokens, as a server tells them and as they are to be booked."""
    prompt, answer = draw.randrange(5000), draw.randrange(5000)
    cached, reasoning = draw.randint(0, prompt), draw.randint(0, answer)
    told = {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    return told, TokenUsage(prompt, answer, prompt + answer, cached, reasoning)


def good(draw: random.Random, text: str = "tea", delay: float = 0.0) -> Deed:
    """An answer, mostly with its tokens."""
    told, usage = tokens(draw)
    if draw.random() < 0.15:
        told, usage = draw.choice([None, {}, "many", {"prompt_tokens": -1, "completion_tokens": 2}]), UNKNOWN  # type: ignore[assignment]
    return Deed(Answer(text, told, delay=delay), usage)


def passing(draw: random.Random) -> Deed:
    """A fault that is worth another attempt."""
    told, usage = tokens(draw)
    return draw.choice(
        [
            Deed(RateLimit(0.001), NOTHING),
            Deed(Status(500)),
            Deed(Drop("before")),
            Deed(Drop("body")),
            Deed(Body(b"<html>")),
            Deed(Answer("tea", told, patch={"choices": []}), usage),
        ]
    )


def final(draw: random.Random) -> Deed:
    """A fault that no other attempt mends."""
    return Deed(draw.choice([Status(400), Status(404), Status(403)]), NOTHING)


def broken(draw: random.Random) -> Deed:
    """A stream that ends badly, with or without its tokens."""
    told, usage = tokens(draw)
    early = delta("tea", usage=told)
    return draw.choice(
        [
            Deed(Stream(["te", "a"], cut=True)),
            Deed(Stream(["te", "a"], told, finish_reason="length"), usage),
            Deed(Stream(["te"], told, error={"message": "no", "type": "server_error"})),
            Deed(Events(early, cut=True), usage),
            Deed(Events(early, '{"error": {"message": "no"}}'), usage),
        ]
    )


# --- what is asked -------------------------------------------------------------------------------


@frozen
class Call:
    """One call: how it is made, and what it meets, attempt by attempt."""

    name: str
    kind: str
    deeds: tuple[Deed, ...]

    @property
    def timeout(self) -> float:
        return HASTY if any(isinstance(deed.step, Raw) for deed in self.deeds) else 10.0


@frozen
class Work:
    """A step with its calls; as a child run, where *child*."""

    name: str
    calls: tuple[Call, ...]
    child: bool


@frozen
class Job:
    """A run: its steps one by one or at once, its colour, and when it is cancelled or has timed out."""

    works: tuple[Work, ...]
    at_once: bool
    is_async: bool
    cancelled_after: float | None = None
    timeout: float | None = None

    @property
    def cut_short(self) -> bool:
        return self.cancelled_after is not None or self.timeout is not None


@define
class Drawn:
    """What is drawn at random from a seed. State: the generator, and how many names it gave."""

    draw: random.Random
    names: int = 0

    def name(self, kind: str) -> str:
        self.names += 1
        return f"{kind}{self.names}"

    def call(self, cut_short: bool) -> Call:
        draw = self.draw
        kind = draw.choice(["whole", "whole", "typed", "stream", "left"])
        if kind in ("stream", "left") and (cut_short or kind == "left"):
            return Call(self.name("call"), kind, (Deed(Held()),))
        if kind == "stream":
            return Call(self.name("call"), kind, (draw.choice([good, good, broken, final])(draw),))
        faults = [passing(draw) for _ in range(draw.choice([0, 0, 0, 1, 2, 3]))]
        if not cut_short and draw.random() < 0.008:
            faults.append(Deed(Raw(b"", keep=True)))
        delay = draw.choice([0, 0.02, 0.08]) if cut_short else 0
        if kind == "whole":
            ends = [final(draw) if draw.random() < 0.1 else good(draw, delay=delay)]
        else:
            ends = [good(draw, '{"value": "x"}'), good(draw, '{"value": 3}', delay)]
        return Call(self.name("call"), kind, tuple(faults[:3] + (ends if len(faults) < 3 else [])))

    def job(self) -> Job:
        draw = self.draw
        cancelled = draw.random() * 0.1 if draw.random() < 0.25 else None
        timeout = 0.05 if cancelled is None and draw.random() < 0.15 else None
        cut_short = cancelled is not None or timeout is not None
        works = tuple(
            Work(
                self.name("step"),
                tuple(self.call(cut_short) for _ in range(draw.randint(1, 4))),
                draw.random() < 0.2,
            )
            for _ in range(draw.randint(1, 6))
        )
        return Job(works, draw.random() < 0.5, draw.random() < 0.5, cancelled, timeout)


# --- how it is asked -----------------------------------------------------------------------------


def ask(call: Call) -> None:
    """Make a call; that it fails is part of the game."""
    llm = LLM("served:m", timeout=call.timeout)
    with suppress(ProviderError, OutputError):
        if call.kind == "whole":
            llm.ask(call.name)
        elif call.kind == "typed":
            llm.ask(call.name, int)
        else:
            with llm.stream(call.name) as pieces:
                for _ in pieces:
                    if call.kind == "left":
                        break


async def aask(call: Call) -> None:
    """Make a call; that it fails is part of the game."""
    llm = AsyncLLM("served:m", timeout=call.timeout)
    with suppress(ProviderError, OutputError):
        if call.kind == "whole":
            await llm.ask(call.name)
        elif call.kind == "typed":
            await llm.ask(call.name, int)
        else:
            async with llm.stream(call.name) as pieces:
                async for _ in pieces:
                    if call.kind == "left":
                        break


def working(work: Work) -> Callable[[], None]:
    """The step of *work*, under its own name."""

    def calls() -> None:
        for call in work.calls:
            ask(call)

    return step(name=work.name)(calls)


def aworking(work: Work) -> Callable[[], Any]:
    """The async step of *work*, under its own name."""

    async def calls() -> None:
        for call in work.calls:
            await aask(call)

    return step(name=work.name)(calls)


def perform(work: Work) -> None:
    one = working(work)
    run(workflow(lambda: one())) if work.child else one()


async def aperform(work: Work) -> None:
    one = aworking(work)

    async def child() -> None:
        await one()

    await (arun(workflow(child)) if work.child else one())


def body(job: Job) -> None:
    if job.at_once:
        pmap(perform, job.works)
    else:
        for work in job.works:
            perform(work)


async def abody(job: Job) -> None:
    if job.at_once:
        await apmap(aperform, job.works)
    else:
        for work in job.works:
            await aperform(work)


# --- what has to hold ----------------------------------------------------------------------------


@define
class Truth:
    """What the server was asked and has told, call by call; its lock guards the changes."""

    calls: dict[str, Call]
    told: dict[str, list[TokenUsage]] = field(factory=lambda: defaultdict(list))
    lock: threading.Lock = field(factory=threading.Lock)

    def next(self, received: Received) -> Step:
        call = self.calls[received.json["messages"][0]["content"]]
        with self.lock:
            deed = call.deeds[len(self.told[call.name])]
            self.told[call.name].append(deed.tells)
        return deed.step

    def of(self, names: Any) -> Usage:
        """What was told in the calls of these names, summed up as records are."""
        found = [usage for name in names for usage in self.told[name]]
        return Usage.of(map(record_of, found))


def record_of(usage: TokenUsage) -> CallRecord:
    cost = Decimal(usage.prompt_tokens + 2 * usage.completion_tokens) / 1_000_000
    return CallRecord("served", "m", usage, None if usage is UNKNOWN else cost, 0, 0)


def tokens_of(usage: Usage) -> Usage:
    """Without what the server can't know: how many calls failed."""
    return evolve(usage, failed=0)


def known(usages: list[TokenUsage]) -> list[TokenUsage]:
    return [usage for usage in usages if usage.source != "unknown"]


def steps_of(metrics: ExecutionMetrics) -> Iterator[tuple[str, Usage]]:
    for one in metrics.steps:
        yield one.name, one.usage
    for child in metrics.children:
        yield from steps_of(child)


@pytest.mark.parametrize("seed", range(3))
def test_the_records_are_what_the_server_says(background: str, seed: int) -> None:
    """Through faults, retries, streams, cancellations and concurrent runs the difference is zero."""
    drawn = Drawn(random.Random(seed))
    jobs = [drawn.job() for _ in range(50)]
    truth = Truth({call.name: call for job in jobs for work in job.works for call in work.calls})
    records: dict[str, list[CallRecord]] = defaultdict(list)

    def hear(event: Event) -> None:
        if isinstance(event, ModelCalled):
            records[event.request.messages[0].content].append(event.record)

    with Server(truth.next) as server, stamina.set_testing(True, attempts=100, cap=True):
        provider = OpenAIProvider(server.key, server.url)
        register_provider("served", provider)
        configure(observers=[hear], prices={"served:m": Price(1, 2)}, grace=5)
        handles = play(jobs)
        until(lambda: not process.of(InFlight).calls and not process.of(Threads).abandoned)
        provider.close()
    for job, handle in zip(jobs, handles, strict=True):
        check_job(job, handle, truth, records)
    every, told = flowlet.usage(), truth.of(truth.calls)
    cut_short = [call.name for job in jobs if job.cut_short for work in job.works for call in work.calls]
    unsent = sum(
        len(records[name]) - len(truth.told[name]) for name in cut_short
    )  # streams that were left first
    assert tokens_of(every) == evolve(told, calls=told.calls + unsent, unknown=told.unknown + unsent)


def play(jobs: list[Job]) -> list[Run[None]]:
    """Run all *jobs*, a dozen at a time."""
    handles: list[Run[None]] = []
    for begin in range(0, len(jobs), 12):
        some = jobs[begin : begin + 12]
        now = [start(with_options(abody if job.is_async else body, timeout=job.timeout), job) for job in some]
        for job, handle in zip(some, now, strict=True):
            if job.cancelled_after is not None:
                time.sleep(job.cancelled_after / 4)
                handle.cancel()
        for handle in now:
            with suppress(FlowletError):
                handle.result(20)
        handles += now
    return handles


def check_job(job: Job, handle: Run[None], truth: Truth, records: dict[str, list[CallRecord]]) -> None:
    """Each call, each step and the run have booked what the server told; where all went its way, call by call."""
    names = [call.name for work in job.works for call in work.calls]
    for name in names:
        booked = [record.usage for record in records[name]]
        assert known(booked) == known(truth.told[name]), name
        assert job.cut_short or booked == truth.told[name], (name, truth.calls[name], records[name])
    metrics = handle.metrics
    for name, usage in steps_of(metrics):
        mine = [call.name for work in job.works if work.name == name for call in work.calls]
        assert tokens_of(usage) == evolve(truth.of(mine), calls=usage.calls, unknown=usage.unknown), name
    assert tokens_of(metrics.usage) == evolve(
        truth.of(names), calls=metrics.usage.calls, unknown=metrics.usage.unknown
    )
    if not job.cut_short:
        assert tokens_of(metrics.usage) == truth.of(names)
