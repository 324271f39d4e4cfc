"""Both plugins as their users meet them: by name, in runs, once the package is installed."""

from flowlet_example.proverbs import Proverbs

from flowlet import LLM, get_step, run, step, workflow
from flowlet.messages import Message, Request
from flowlet.testing import check_provider


def test_the_provider_keeps_to_the_protocol() -> None:
    """In all ways in which it can be called, on both backends."""
    unknown = Request("silent", (Message("user", "Say something."),))
    check_provider(Proverbs(), "wise", failing=unknown)


@step
def advise(topic: str, llm: LLM = LLM("proverbs:wise")) -> str:
    return llm.ask(f"Say something about {topic}")


@workflow
def talk(topic: str) -> list[str | None]:
    glossary = get_step("glossary")
    return [glossary("step"), glossary("tea"), advise(topic)]


@workflow
async def atalk(topic: str) -> list[str | None]:
    glossary = get_step("glossary")
    return [glossary("step"), glossary("tea"), advise(topic)]


EXPECTED = ["a function whose calls are recorded", None, "Haste makes waste."]


def test_both_are_found_by_name() -> None:
    """In a sync run."""
    assert run(talk, "haste") == EXPECTED


def test_both_serve_async_runs() -> None:
    """The runtime moves them."""
    assert run(atalk, "haste") == EXPECTED
