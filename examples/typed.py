"""Answers of a type: a class is asked for, and a value of it comes back, or an error that lists the faults."""

from typing import Literal

from attrs import frozen

from flowlet import LLM, run, step, workflow


@frozen
class Review:
    mood: Literal["good", "bad", "mixed"]
    stars: int
    reasons: list[str]


@frozen
class NoReview:
    why: str


@step
def read(text: str, llm: LLM = LLM()) -> Review | NoReview:
    return llm.ask(f"Read this review:\n{text}", Review | NoReview)


@workflow
def mood(text: str) -> str:
    found = read(text)
    if isinstance(found, NoReview):
        return f"no review: {found.why}"
    return f"{found.mood}, {found.stars} stars: {', '.join(found.reasons)}"


print(run(mood, "The tea was warm and the staff was kind."))
