"""How the glossary is tested: for nothing, with neither key nor network. ``pytest`` in this folder runs it."""

from collections.abc import Callable

import pytest
from glossary import adefine, aglossary, define, first_sentence, glossary

from flowlet import ProviderError, arun, last_run, run, with_options
from flowlet.messages import Request
from flowlet.testing import AsyncMockLLM, MockLLM, MockProvider, stub

WORDS = ["tea", "coffee", "a kettle"]
MODEL = "openai:gemma-3-270m"  # who was asked when glossary.json was recorded


# --- steps are functions ---------------------------------------------------------------------------


def test_the_first_sentence_is_taken() -> None:
    assert first_sentence(" Tea is hot. Tea is green.\n") == "Tea is hot."


def test_the_word_is_asked_for() -> None:
    llm = MockLLM(["Leaves."])
    assert define("tea", llm=llm) == "Leaves."
    assert llm.requests[0].messages[-1].content == "What is tea?"


@pytest.mark.anyio
async def test_the_word_is_asked_for_async() -> None:
    assert await adefine("tea", llm=AsyncMockLLM(["Leaves."])) == "Leaves."


# --- workflows, with a mock for the model ----------------------------------------------------------


def leaves(request: Request) -> str:
    """Answer by what is asked: the calls of a fan-out have no order."""
    return {"What is tea?": "Leaves. Hot ones.", "What is coffee?": "Beans."}[request.messages[-1].content]


def test_every_word_has_its_sentence(flowlet_mock: Callable[..., MockProvider]) -> None:
    mock = flowlet_mock(leaves)
    assert run(glossary, ["tea", "coffee"]) == {"tea": "Leaves.", "coffee": "Beans."}
    assert len(mock.requests) == 2


def test_a_busy_model_is_asked_again(flowlet_mock: Callable[..., MockProvider]) -> None:
    flowlet_mock([ProviderError("rate_limit", "busy", retryable=True, retry_after=0), "Leaves."])
    assert run(glossary, ["tea"]) == {"tea": "Leaves."}
    assert [call.ok for call in last_run().metrics.calls] == [False, True]


def test_a_step_can_be_replaced() -> None:
    defined = stub(define, str.upper)
    assert run(with_options(glossary, middleware=[defined]), ["tea"]) == {"tea": "TEA."}


# --- workflows, with what a real model once said ---------------------------------------------------


@pytest.mark.flowlet_recording("glossary.json")
@pytest.mark.flowlet_budget(calls=3, cost=0.01)
def test_a_real_model_defines_words() -> None:
    found = run(with_options(glossary, model=MODEL), WORDS)
    assert found["tea"] == "Tea is a beverage made from the leaves of tea plants."
    assert last_run().metrics.usage.cost == 0


@pytest.mark.anyio
@pytest.mark.flowlet_recording("glossary.json")
async def test_async_code_is_answered_from_the_same_file() -> None:
    found = await arun(with_options(aglossary, model=MODEL), WORDS)
    assert found["a kettle"] == "A kettle is a device that can be used to boil water."
