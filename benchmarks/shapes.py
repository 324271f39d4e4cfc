"""Seven shapes of workflows that note all that they do: what is killed, starved of disk, and resumed twice.

What is noted survives a kill, so that whoever resumes a run can be compared with who ran it before.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import anyio

from flowlet import (
    LLM,
    AsyncLLM,
    Completion,
    TokenUsage,
    configure,
    pmap,
    register_provider,
    run,
    step,
    with_options,
    workflow,
)
from flowlet.messages import Request

LIST = Path("did.txt")
JOURNAL = "runs.db"
BACKENDS = ("asyncio", "trio")


def did(what: str, *facts: object) -> None:
    """Add a line to the list of what happened, which survives a kill."""
    line = json.dumps([what, *facts]) + "\n"
    file = os.open(LIST, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def facts(what: str, since: int = 0) -> list[list[Any]]:
    """What the list says of *what*, from its byte *since* on."""
    lines = LIST.read_text()[since:].splitlines() if LIST.exists() else []
    return [found[1:] for found in map(json.loads, lines) if found[0] == what]


def ran(since: int = 0) -> Counter[str]:
    """How often each step ran."""
    return Counter(f"{name} {x}" for name, x in facts("ran", since))


def got(value: Any) -> Any:
    """Note that the body was given *value*."""
    did("got", value)
    return value


# --- steps ---------------------------------------------------------------------------------------


@step
def add(x: int) -> int:
    did("ran", "add", x)
    return x + 1


@step
def nested(x: int) -> int:
    did("ran", "nested", x)
    return got(add(x)) + got(add(x))


@step
async def double(x: int) -> int:
    did("ran", "double", x)
    await anyio.sleep(0)
    return x * 2


@step(attempts=3)
def flaky(x: int) -> int:
    did("ran", "flaky", x)
    if LIST.read_text().count('["ran", "flaky", ') % 2:
        raise OSError("try again")
    return x


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    did("ran", "ask", question)
    return llm.ask(question) + llm.ask(question)


@step
async def aask(question: str, llm: AsyncLLM = AsyncLLM()) -> str:
    did("ran", "aask", question)
    return await llm.ask(question)


# --- shapes --------------------------------------------------------------------------------------


@workflow
async def sequence(x: int) -> int:
    for _ in range(4):
        x = got(await double(got(add(x))))
    return x


@workflow
def sync_body(x: int) -> int:
    for _ in range(3):
        x = got(add(got(add(x)))) + got(run(double, x))
    return x


@workflow
def fan_out(x: int) -> int:
    return sum(got(pmap(add, [x, x, x + 1, x + 2]))) + sum(got(pmap(double, [x, x, x + 3])))


@workflow
def child(x: int) -> int:
    return got(add(x)) + got(run(double, x))


@workflow
async def children(x: int) -> int:
    return got(child(x)) + got(child(x)) + await aparent(x)


@workflow
async def aparent(x: int) -> int:
    return got(await double(x)) + got(child(x + 1))


@workflow
def retries(x: int) -> int:
    return got(flaky(got(add(got(flaky(x))))))


@workflow
async def models(x: int) -> str:
    return got(ask(f"q{x}")) + got(await aask(f"q{x}")) + got(ask(f"q{x}"))


@workflow
def equal(x: int) -> int:
    def item(value: int) -> int:
        return got(add(value)) + got(nested(value)) + got(add(value)) + got(run(double, value))

    return sum(pmap(item, [x, x, x + 1, x], max_concurrency=3)) + got(nested(x))


SHAPES: dict[str, Any] = {
    "sequence": sequence,
    "sync body": sync_body,
    "pmap": fan_out,
    "child runs": children,
    "retries": retries,
    "models": models,
    "equal calls": equal,
}


class Seller:
    """A provider that notes what was bought."""

    live = False  # tests may ask it

    def complete(self, request: Request, /) -> Completion:
        """Answer at once."""
        question = request.messages[-1].content
        did("bought", question)
        return Completion(f"[{question}]", TokenUsage(1, 1, 2))


def execute(shape: str, backend: str) -> None:
    """Run *shape*, or go on with it, and note its result."""
    register_provider("shop", Seller())
    configure(model="shop:m")
    body = with_options(SHAPES[shape], journal=JOURNAL, run_id="r", backend=backend)
    did("result", run(body, 1))
