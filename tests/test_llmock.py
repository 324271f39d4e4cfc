"""Against llmock, a server of faults that others wrote: it judges how a client behaves, and finds nothing.

Optional, since llmock brings a web framework: ``pip install llmock`` and run this file. Strict: its warnings count too.
"""

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from attrs import frozen

pytest.importorskip("llmock", reason="llmock is not installed; it is for this file alone")

from flowlet import LLM, AsyncLLM, ProviderError, Run, arun, run, runs, step

WAYS = ("sync", "asyncio", "trio")
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@frozen
class Talk:
    title: str
    minutes: int


@step
def ask(question: str, llm: LLM = LLM("openai:gpt-5-mini")) -> str:
    return llm.ask(question)


@step
async def aask(question: str, llm: AsyncLLM = AsyncLLM("openai:gpt-5-mini")) -> str:
    return await llm.ask(question)


@step(attempts=3, retry_on=ProviderError)
def read(question: str, llm: LLM = LLM("openai:gpt-5-mini")) -> str:
    with llm.stream(question) as pieces:
        return "".join(pieces)


@step(attempts=3, retry_on=ProviderError)
async def aread(question: str, llm: AsyncLLM = AsyncLLM("openai:gpt-5-mini")) -> str:
    async with llm.stream(question) as pieces:
        return "".join([piece async for piece in pieces])


@step
def talk(question: str) -> Talk:
    return LLM("openai:gpt-5-mini").ask(question, Talk)


@step
async def atalk(question: str) -> Talk:
    return await AsyncLLM("openai:gpt-5-mini").ask(question, Talk)


PAIRS = {ask: aask, read: aread, talk: atalk}


@pytest.fixture(params=WAYS)
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run a step, in each of the ways there are."""

    def call(fn: Callable[..., Any], question: str = "What is tea?", **of_llm: Any) -> Any:
        if request.param == "sync":
            args = (LLM("openai:gpt-5-mini", **of_llm),) if of_llm else ()
            return run(fn, question, *args)
        args = (AsyncLLM("openai:gpt-5-mini", **of_llm),) if of_llm else ()
        return anyio.run(arun, PAIRS[fn], question, *args, backend=request.param)

    return call


def newest() -> Run[Any]:
    return runs()[0]


def resilient(llmock: Any, attempts: int, faults: int) -> None:
    """What llmock saw is what was planned, and it has no fault to find, nor a warning."""
    verdict = llmock.verdict()
    verdict.assert_ok(strict=True)
    assert (len(verdict.calls), verdict.attempts, verdict.faults) == (1, attempts, faults)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_passes_is_tried_again(llmock, call, status) -> None:
    """Twice down, then an answer."""
    llmock.fail(status, times=2).reply("Leaves.")
    assert call(ask) == "Leaves."
    resilient(llmock, 3, 2)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "bad_request"),
        (401, "authentication"),
        (403, "permission"),
        (404, "not_found"),
        (422, "bad_request"),
    ],
)
def test_what_stays_is_not_tried_again(llmock, call, status, kind) -> None:
    """One attempt, one error."""
    llmock.fail(status)
    with pytest.raises(ProviderError) as caught:
        call(ask)
    assert (caught.value.kind, caught.value.retryable) == (kind, False)
    resilient(llmock, 1, 1)


def test_retry_after_is_kept_to(llmock, call) -> None:
    """The server says how long."""
    llmock.rate_limit(times=2, retry_after=0.4)
    call(ask)
    resilient(llmock, 3, 2)


def test_an_outage_ends_after_three_attempts(llmock, call) -> None:
    """With the error of the last one."""
    llmock.outage()
    with pytest.raises(ProviderError, match="503"):
        call(ask)
    resilient(llmock, 3, 3)


def test_a_prompt_too_long_is_told(llmock, call) -> None:
    """By the server's error, and by its own count of the tokens."""
    llmock.context_overflow()
    with pytest.raises(ProviderError, match="context_length_exceeded"):
        call(ask)
    resilient(llmock, 1, 1)
    llmock.reset().limits(context_window=10)
    with pytest.raises(ProviderError, match="context"):
        call(ask, "tea " * 100)
    resilient(llmock, 1, 1)


@pytest.mark.parametrize("limits", [{"rpm": 60}, {"tpm": 600}], ids=str)
def test_a_real_quota_is_waited_for(llmock, call, limits) -> None:
    """The wait that it asks for is the true one."""
    llmock.limits(**limits)
    count = 0
    while count < 61 and (count < 3 or not llmock.verdict().faults):
        call(ask, f"What is tea, {count}?")
        count += 1
    verdict = llmock.verdict()
    verdict.assert_ok(strict=True)
    assert verdict.faults >= 1
    assert (len(verdict.calls), verdict.attempts) == (count, count + verdict.faults)


def test_a_slow_answer_is_waited_for(llmock, call) -> None:
    """As long as the timeout allows."""
    llmock.delay(0.3)
    call(ask)
    assert len(llmock.requests) == 1
    llmock.verdict().assert_ok(strict=True)


def test_an_answer_that_is_too_slow_is_asked_for_again(llmock, call) -> None:
    """The connection is given up."""
    llmock.delay(1.0)
    call(ask, timeout=0.4)
    llmock.verdict().assert_ok(strict=True)
    assert [one.ok for one in newest().metrics.calls] == [False, True]


@pytest.mark.parametrize("fault", ["disconnect", "truncate", "corrupt"])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_broken_stream_is_no_answer(llmock, call, fault, after) -> None:
    """The step is tried again, and its text is that of the whole stream."""
    llmock.pace(20)  # else all is sent before we hang up, and llmock thinks it was accepted
    getattr(llmock.reply("one two three four five six", times=None), fault)(after_chunks=after)
    assert call(read) == "one two three four five six"
    resilient(llmock, 2, 1)


def test_a_stream_that_stalls_is_given_up(llmock, call) -> None:
    """At the deadline of the call."""
    llmock.reply("one two three four", times=None).stall(after_chunks=1, seconds=30)
    assert call(read, timeout=1.0) == "one two three four"
    resilient(llmock, 2, 1)


def test_a_slow_first_token_is_waited_for(llmock, call) -> None:
    """So is a slow stream."""
    llmock.reply("one two three four").slow_first_token(0.3).pace(20)
    assert call(read) == "one two three four"
    assert len(llmock.requests) == 1
    llmock.verdict().assert_ok(strict=True)


def test_typed_answers_fit(llmock, call) -> None:
    """By the schema that was sent."""
    assert isinstance(call(talk), Talk)
    resilient(llmock, 1, 0)


@pytest.mark.parametrize("kind", ["malformed_arguments", "unknown_tool", None])
def test_a_call_of_a_tool_is_no_text(llmock, call, kind) -> None:
    """Tools are what the caller asked for in ``extra``; flowlet calls none."""
    if kind is None:
        llmock.call_tool("weather", {"city": "Paris"})
    else:
        llmock.break_tool_call(kind)
    assert call(ask, extra={"tools": TOOLS}) == ""
    assert newest().metrics.calls[0].finish_reason == "other"
    resilient(llmock, 1, 0)  # llmock counts no faults of tools
