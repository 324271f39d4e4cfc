"""Deadlines and cancellation: what was done until then is not lost.

A thread that sleeps can't be stopped; flowlet leaves it behind and says so on the error stream.
"""

import time

from flowlet import LLM, RunCancelled, WorkflowTimeout, run, start, step, with_options, workflow


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    return llm.ask(question)


@step
def think(seconds: float) -> None:
    time.sleep(seconds)


@workflow
def slow(question: str) -> str:
    answer = ask(question)
    think(30)
    return answer


try:
    run(with_options(slow, timeout=0.5), "What is tea?")
except WorkflowTimeout as exc:
    print(exc)
    for found in exc.metrics.steps:
        print(" ", found.name, found.state)

handle = start(slow, "What is coffee?")
while handle.state != "failed" and len(handle.metrics.steps) < 2:
    time.sleep(0.01)
handle.cancel()
try:
    handle.result()
except RunCancelled as exc:
    print(exc)
print(handle.state, handle.metrics.usage.total_tokens, "tokens")
