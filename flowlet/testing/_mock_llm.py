"""Models for tests: pass one to a step, ``summarise("...", llm=MockLLM(["a title"]))``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import field, frozen

from .._engine._attempts import Target
from ..llm import LLM, AsyncLLM
from ..messages import JsonValue, Request
from ._mock_provider import MockProvider

__all__ = ["AsyncMockLLM", "MockLLM"]

Answers = Sequence[object] | Callable[[Request], object] | MockProvider | None


def _provider(answers: Answers) -> MockProvider:
    return answers if isinstance(answers, MockProvider) else MockProvider(answers)


class _Scripted:
    """What both have: the script, what was asked, and the check that it was all used."""

    __slots__ = ()
    provider: MockProvider

    @property
    def requests(self) -> tuple[Request, ...]:
        """What was asked so far, in order."""
        return self.provider.requests

    def verify(self) -> None:
        """Check that the calls were those of the script.

        Raises:
            UnexpectedCall: there were more calls than answers.
            UnusedAnswers: there were fewer.
        """
        self.provider.verify()

    __flowlet_code__ = "mock"

    def __flowlet_key__(self) -> JsonValue:
        return {"model": "mock"}

    def _target(self) -> tuple[Target, str]:
        return Target(self.provider, self.provider.name, 1), "mock"


@frozen(init=False, repr=False)
class MockLLM(_Scripted, LLM):
    """An ``LLM`` that answers from a script: ``MockLLM(["a title"])``.

    *answers* are what :class:`MockProvider` takes, or such a provider.
    """

    provider: MockProvider = field(kw_only=True)

    def __init__(self, answers: Answers = None) -> None:
        self.__attrs_init__(provider=_provider(answers))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


@frozen(init=False, repr=False)
class AsyncMockLLM(_Scripted, AsyncLLM):
    """An ``AsyncLLM`` that answers from a script: ``AsyncMockLLM(["a title"])``.

    *answers* are what :class:`MockProvider` takes, or such a provider.
    """

    provider: MockProvider = field(kw_only=True)

    def __init__(self, answers: Answers = None) -> None:
        self.__attrs_init__(provider=_provider(answers))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
