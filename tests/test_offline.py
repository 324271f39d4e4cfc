"""The offline provider answers alone, always alike, and says that no model did."""

import json
from decimal import Decimal

import pytest

from flowlet.messages import Message, OutputFormat, Request
from flowlet.metrics import TokenUsage
from flowlet.protocols import AsyncProvider, SyncProvider
from flowlet.providers.offline import NOTICE, OfflineProvider, count_tokens

PROMPT = "List three points for a talk about tea, one a line."
ASK = Request("offline", (Message("system", "Be brief."), Message("user", PROMPT)))
SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "minutes": {"type": "integer"}},
    "required": ["title", "minutes"],
    "additionalProperties": False,
}
TYPED = Request("offline", ASK.messages, output=OutputFormat("Talk", SCHEMA))


def test_text_is_an_extract_of_the_prompt_under_a_notice():
    """The first line says that no model wrote the answer, the others are the prompt's."""
    completion = OfflineProvider().complete(ASK)
    assert completion.text.splitlines() == [NOTICE, PROMPT]
    assert "No model" in NOTICE
    assert (completion.model, completion.finish_reason) == ("offline", "stop")


def test_a_long_prompt_gives_a_short_extract():
    """Three lines of at most 200 characters, empty ones left out."""
    request = Request("offline", (Message("user", "\n\n".join(["a" * 300, "b", "c", "d"])),))
    assert OfflineProvider().complete(request).text.splitlines() == [NOTICE, "a" * 199 + "…", "b", "c"]


def test_a_typed_answer_fits_the_schema():
    """A call with an output format gets JSON of the type asked for, and nothing else."""
    talk = json.loads(OfflineProvider().complete(TYPED).text)
    assert set(talk) == {"title", "minutes"}
    assert isinstance(talk["title"], str)
    assert isinstance(talk["minutes"], int)


@pytest.mark.parametrize("request_", [ASK, TYPED, Request("offline", ())])
def test_the_same_request_has_the_same_answer(request_):
    """Nothing is drawn at random, and no request is too small."""
    assert OfflineProvider().complete(request_) == OfflineProvider().complete(request_)


def test_tokens_are_counted_by_four_characters_and_cost_nothing():
    """Usage is the provider's own count over all messages and the answer."""
    completion = OfflineProvider().complete(ASK)
    prompt, answer = count_tokens("Be brief.") + count_tokens(PROMPT), count_tokens(completion.text)
    assert [count_tokens(text) for text in ("", "a", "four", "five5")] == [0, 1, 1, 2]
    assert completion.usage == TokenUsage(prompt, answer, prompt + answer, source="provider")
    assert OfflineProvider().price("offline", completion.usage) == Decimal(0)


@pytest.mark.parametrize("request_", [ASK, TYPED])
def test_a_stream_is_the_same_answer_word_by_word(request_):
    """The words make the text; the last delta brings the usage and the reason of the end."""
    completion = OfflineProvider().complete(request_)
    with OfflineProvider().stream(request_) as deltas:
        *words, last = deltas
    assert "".join(delta.text for delta in words) == completion.text
    assert len(words) == len(completion.text.split())
    assert (last.text, last.usage, last.finish_reason) == ("", completion.usage, "stop")


@pytest.mark.anyio
async def test_both_kinds_answer_alike():
    """Async calls and streams give what the sync ones give, also when a stream is left early."""
    provider = OfflineProvider()
    assert isinstance(provider, SyncProvider)
    assert isinstance(provider, AsyncProvider)
    assert await provider.acomplete(ASK) == provider.complete(ASK)
    async with provider.astream(ASK) as deltas:
        words = [delta async for delta in deltas]
    with provider.stream(ASK) as expected:
        assert words == list(expected)
    async with provider.astream(ASK) as deltas:
        assert (await anext(deltas)).text == "[offline] "
