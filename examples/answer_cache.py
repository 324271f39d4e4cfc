"""A cache: who asks the same model the same again within an hour gets the answer that came before."""

import time
from collections.abc import Callable

from flowlet import LLM, Completion, ModelCall, last_run, run, step, workflow


class AnswerCache:
    """Remembers whole answers. What was refused or cut short is asked for again."""

    def __init__(self, seconds: float = 3600) -> None:
        self.seconds = seconds
        self._known: dict[tuple[str, str], tuple[float, Completion]] = {}

    def __call__(self, call: ModelCall, next: Callable[[ModelCall], Completion]) -> Completion:
        key = call.provider, repr(call.request)  # model, messages, parameters and the type asked for
        at, completion = self._known.get(key, (0.0, None))
        if completion is not None and time.monotonic() - at < self.seconds:
            return completion  # nothing is sent, so nothing is booked
        completion = next(call)
        if completion.finish_reason == "stop":
            self._known[key] = time.monotonic(), completion
        return completion


@step
def ask(question: str, llm: LLM = LLM(temperature=0)) -> str:
    return llm.ask(question)


@workflow(middleware=[AnswerCache()])
def answer(question: str) -> str:
    return ask(question)


if __name__ == "__main__":
    for question in ("What is tea?", "What is tea?", "What is coffee?"):
        run(answer, question)
        print(question, last_run().metrics.usage.calls, "calls")
