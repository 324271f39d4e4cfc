"""A provider that asks no model: it needs neither key nor network, and says so in what it answers.

The same request always gets the same answer. Text begins with :data:`NOTICE` and goes on with the first
lines of the prompt; a typed answer is a value made up to fit the schema. It is chosen by name only
(``FLOWLET_MODEL=offline``), so no one takes its answers for a model's.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from decimal import Decimal

import anyio.lowlevel

from .._samples import sample_of
from ..messages import Completion, Delta, Message, OutputFormat, Request
from ..metrics import TokenUsage
from ..protocols import StructuredOutput

__all__ = [
    "NOTICE",
    "OfflineProvider",
    "after_checkpoints",
    "count_tokens",
    "counted_usage",
    "deltas_of",
    "last_message",
    "sample_text",
]

NOTICE = "[offline] No model was asked. The prompt began:"
_LINES = 3
_WIDTH = 200


class OfflineProvider:
    """Answers every request by itself, at no cost, on any thread and event loop."""

    name = "offline"
    keeps_time = True
    live = False
    structured_output: StructuredOutput = "json_schema"

    def complete(self, request: Request, /) -> Completion:
        """Answer *request* with a sample of the type asked for, or with an extract of the prompt."""
        prompt = last_message(request).content
        text = _extract(prompt) if request.output is None else sample_text(request.output, prompt)
        return Completion(text, counted_usage(request, text), model=self.name)

    async def acomplete(self, request: Request, /) -> Completion:
        """Answer as :meth:`complete` does, after letting other tasks go first."""
        await anyio.lowlevel.checkpoint()
        return self.complete(request)

    @contextmanager
    def stream(self, request: Request, /) -> Generator[Iterator[Delta], None, None]:
        """Answer word by word."""
        yield self._words(request)

    @asynccontextmanager
    async def astream(self, request: Request, /) -> AsyncGenerator[AsyncIterator[Delta], None]:
        """Answer word by word, letting other tasks go before each."""
        async with aclosing(after_checkpoints(self._words(request))) as deltas:
            yield deltas

    def price(self, model: str, usage: TokenUsage) -> Decimal:
        """Cost nothing."""
        return Decimal(0)

    def _words(self, request: Request) -> Iterator[Delta]:
        completion = self.complete(request)
        return deltas_of(completion, re.findall(r"\S+\s*|\s+", completion.text))


def count_tokens(text: str) -> int:
    """Count *text* as one token for every four characters begun, a rule of thumb for English."""
    return (len(text) + 3) // 4


def counted_usage(request: Request, text: str) -> TokenUsage:
    """Count the tokens of *request*'s messages and of the answer *text*, as :func:`count_tokens` does."""
    prompt = sum(count_tokens(message.content) for message in request.messages)
    completion = count_tokens(text)
    return TokenUsage(prompt, completion, prompt + completion)


def sample_text(output: OutputFormat, prompt: str) -> str:
    """Make up the JSON of a value that fits *output*; equal prompts give equal ones."""
    return json.dumps(sample_of(output.schema, prompt), ensure_ascii=False)


def last_message(request: Request) -> Message:
    """The message that *request* wants answered."""
    return request.messages[-1] if request.messages else Message("user", "")


def deltas_of(completion: Completion, pieces: Iterable[str]) -> Iterator[Delta]:
    """Stream *completion*, its text as *pieces*; the last delta has no text but everything else."""
    yield from map(Delta, pieces)
    yield Delta(
        usage=completion.usage,
        finish_reason=completion.finish_reason,
        model=completion.model,
        request_id=completion.request_id,
        refusal=completion.refusal,
        replayed=completion.replayed,
    )


async def after_checkpoints(deltas: Iterable[Delta]) -> AsyncGenerator[Delta, None]:
    """Give *deltas* one by one, letting other tasks go before each."""
    for delta in deltas:
        await anyio.lowlevel.checkpoint()
        yield delta


def _extract(prompt: str) -> str:
    lines = [line.strip() for line in prompt.splitlines() if line.strip()]
    return "\n".join([NOTICE, *(_shortened(line) for line in lines[:_LINES])])


def _shortened(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
