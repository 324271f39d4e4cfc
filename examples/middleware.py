"""Middleware wraps steps, model calls and runs; the annotation of its first parameter says which."""

import time
from collections.abc import Callable

from attrs import evolve

from flowlet import LLM, Completion, ModelCall, StepCall, run, step, workflow


def timed(call: StepCall, next: Callable[[StepCall], object]) -> object:
    started = time.perf_counter()
    try:
        return next(call)
    finally:
        print(f"{call.step}: {(time.perf_counter() - started) * 1000:.1f} ms")


def polite(call: ModelCall, next: Callable[[ModelCall], Completion]) -> Completion:
    *before, last = call.request.messages
    asked = evolve(last, content=f"{last.content}\nPlease answer politely.")
    return next(evolve(call, request=evolve(call.request, messages=(*before, asked))))


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    return llm.ask(question)


@workflow(middleware=[timed, polite])
def answer(question: str) -> str:
    return ask(question)


print(run(answer, "What is tea?"))
