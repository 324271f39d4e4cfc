"""A cost guard: what the model calls of each customer may cost. The customer is the first tag of the run."""

from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from threading import Lock

from flowlet import LLM, BudgetExceeded, Completion, ModelCall, run, step, with_options, workflow


class CostGuard:
    """Refuses calls of who has spent the limit. Attempts that failed are not counted: `Budget` does that, too."""

    def __init__(self, limit: str, dollars_per_million_tokens: str) -> None:
        self.limit = Decimal(limit)
        self.per_token = Decimal(dollars_per_million_tokens) / 1_000_000
        self.spent: defaultdict[str, Decimal] = defaultdict(Decimal)
        self._lock = Lock()  # runs go on at once

    def __call__(self, call: ModelCall, next: Callable[[ModelCall], Completion]) -> Completion:
        customer = call.run.tags[0] if call.run and call.run.tags else "nobody"
        if self.spent[customer] >= self.limit:
            raise BudgetExceeded(f"customer {customer}", f"${self.limit}", f"${self.spent[customer]:f}")
        completion = next(call)
        with self._lock:
            self.spent[customer] += completion.usage.total_tokens * self.per_token
        return completion


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    return llm.ask(question)


guard = CostGuard(limit="0.0001", dollars_per_million_tokens="2")


@workflow(middleware=[guard])
def answer(question: str) -> str:
    return ask(question)


if __name__ == "__main__":
    for customer in ("acme", "acme", "acme", "blue", "acme"):
        try:
            run(with_options(answer, tags=[customer]), "What is tea?")
        except BudgetExceeded as error:
            print(error)
        else:
            print(f"{customer} has spent ${guard.spent[customer]:f}")
