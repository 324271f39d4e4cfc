"""The middleware under examples/ does what it says, in sync and async runs."""

import logging
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowlet import AsyncLLM, BudgetExceeded, arun, configure, register_provider, run, step, with_options
from flowlet.testing import MockProvider

FOLDER = Path(__file__).parent.parent / "examples"


@step
async def aask(question: str, llm: AsyncLLM = AsyncLLM()) -> str:
    return await llm.ask(question)


@pytest.fixture
def asked() -> MockProvider:
    """The model that is asked."""
    mock = MockProvider(lambda request: "write to jo@example.org")
    register_provider("mock", mock)
    configure(model="mock:m")
    return mock


@pytest.fixture(params=["sync", "async"])
def asking(request: pytest.FixtureRequest, backend: str) -> Callable[..., str]:
    """Asks a question in a run with middleware."""

    def asks(names: dict[str, Any], question: str, **options: object) -> str:
        sync = names.get("ask") or names["reply"]
        if request.param == "sync":
            return run(with_options(sync, **options), question)
        return anyio.run(arun, with_options(aask, **options), question, backend=backend)

    return asks


def test_the_cost_guard_refuses_who_spent_the_limit(asked: MockProvider, asking: Callable[..., str]) -> None:
    """And nobody else."""
    names = runpy.run_path(str(FOLDER / "cost_guard.py"))
    guard = names["CostGuard"]("0.00001", "1000000")
    asking(names, "one", middleware=[guard], tags=["acme"])
    assert guard.spent["acme"] > 0
    with pytest.raises(BudgetExceeded, match=r"budget of \$0.00001 per customer acme is used up"):
        asking(names, "two", middleware=[guard], tags=["acme"])
    asking(names, "three", middleware=[guard], tags=["blue"])
    assert [r.messages[-1].content for r in asked.requests] == ["one", "three"]


def test_the_prompt_log_hides_what_must_not_be_in_it(
    asked: MockProvider, asking: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """In prompts and answers; the model is asked with all of it."""
    names = runpy.run_path(str(FOLDER / "prompt_log.py"))
    with caplog.at_level(logging.INFO, "prompts"):
        asking(names, "jo@example.org sk-abcdefgh12345678 4111 1111 1111 1111", middleware=[names["prompts"]])
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "<KEY>" in logged
    assert logged.count("<EMAIL") == 2
    assert not [secret for secret in ("jo@", "sk-abc", "4111") if secret in logged]
    assert "jo@example.org sk-abcdefgh12345678" in asked.requests[0].messages[-1].content


def test_the_cache_asks_once(asked: MockProvider, asking: Callable[..., str]) -> None:
    """The same question of the same model, until the answer is too old."""
    names = runpy.run_path(str(FOLDER / "answer_cache.py"))
    cache, short = names["AnswerCache"](), names["AnswerCache"](0)
    answers = [asking(names, question, middleware=[cache]) for question in ("one", "one", "two")]
    assert answers == ["write to jo@example.org"] * 3
    assert len(asked.requests) == 2
    for _ in range(2):
        asking(names, "one", middleware=[short])
    assert len(asked.requests) == 4
