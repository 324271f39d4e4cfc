"""What the workflows of the tests use: functions, steps and workflows of either colour."""

import threading
from enum import Enum
from typing import Any, Literal

import anyio
from attrs import frozen

from flowlet import LLM, AsyncLLM, step, workflow

TOGETHER = threading.Barrier(2)


@frozen
class Page:
    """A page."""

    title: str
    points: list[str]


class Mood(Enum):
    """A mood."""

    GOOD = "good"
    BAD = "bad"


def split(text: str) -> list[str]:
    """A plain function."""
    return text.split()


async def shout(text: str) -> str:
    """An async function."""
    await anyio.sleep(0)
    return text.upper()


@step(attempts=2, retry_on=OSError)
def count(text: str) -> int:
    """A step."""
    return len(text)


@step
async def twice(text: str, times: int = 2) -> str:
    """An async step."""
    await anyio.sleep(0)
    return text * times


@workflow
def page(title: str, points: list[str]) -> Page:
    """A workflow."""
    return Page(title + "!" * count(title), points)


@workflow
async def apage(title: str, points: list[str]) -> Page:
    """An async workflow."""
    return Page(await twice(title), points)


def title_of(found: Page) -> str:
    """The part of a page."""
    return found.title


def mood(text: str) -> Mood:
    """An enumeration."""
    return Mood.GOOD if "good" in text else Mood.BAD


def kind(text: str) -> Literal["long", "short"]:
    """One of a few."""
    return "long" if len(text) > 3 else "short"


def maybe(text: str) -> str | None:
    """Something, or nothing."""
    return text or None


def either(one: str | None, other: str | None) -> str:
    """What is there."""
    return one or other or ""


def anything(value: Any) -> Any:
    """A function whose hints tell nothing."""
    return value


def extended(items: list[int]) -> list[int]:
    """A function that changes its argument."""
    items.append(len(items))
    return items


def grown(items: Any) -> Any:
    """A function without types that changes its argument."""
    items.append(len(items))
    return items


def strange(value: "Nowhere") -> 5:  # noqa: F821
    """A function whose hints are no types."""
    return value


def meet(text: str) -> str:
    """Return when somebody else is here at the same time."""
    TOGETHER.wait(5)
    return text


def fail(text: str) -> str:
    """Fail."""
    raise LookupError(text)


async def forever(text: str) -> str:
    """Never return."""
    await anyio.sleep_forever()
    return text


def any_of(**values: int) -> int:
    """A function of any names."""
    return sum(values.values())


def only(text: str, /) -> str:
    """A function that takes nothing by name."""
    return text


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    """Ask a model."""
    return llm.ask(question)


@step
async def aask(question: str, llm: AsyncLLM = AsyncLLM()) -> str:
    """Ask a model."""
    return await llm.ask(question)
