"""Models for tests: pass one to a step, ``summarise("...", llm=MockLLM(["a title"]))``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import field, frozen

from .._engine._models import Target
from ..llm import LLM, AsyncLLM
from ..messages import Request
from ._mock_provider import MockProvider

__all__ = ["AsyncMockLLM", "MockLLM"]

Answers = Sequence[object] | Callable[[Request], object] | None


@frozen(init=False)
class MockLLM(LLM):
    """An ``LLM`` that answers from a script; see :class:`MockProvider` for what *answers* may be."""

    provider: MockProvider = field(kw_only=True)

    def __init__(self, answers: Answers = None) -> None:
        provider = MockProvider(answers)
        self.__attrs_init__(model="mock:mock", provider=provider)  # pyright: ignore

    def _target(self) -> tuple[Target, str]:
        return Target(self.provider, "mock", self.attempts or 1), "mock"


@frozen(init=False)
class AsyncMockLLM(AsyncLLM):
    """An ``AsyncLLM`` that answers from a script; see :class:`MockProvider` for what *answers* may be."""

    provider: MockProvider = field(kw_only=True)

    def __init__(self, answers: Answers = None) -> None:
        provider = MockProvider(answers)
        self.__attrs_init__(model="mock:mock", provider=provider)  # pyright: ignore

    def _target(self) -> tuple[Target, str]:
        return Target(self.provider, "mock", self.attempts or 1), "mock"
