"""Three steps and a workflow: ask a model for the points of a talk."""

from flowlet import LLM, run, step, workflow


@step
def outline(topic: str) -> str:
    return f"List three points for a talk about {topic}, one a line."


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    return llm.ask(question)


@step
def points(answer: str) -> list[str]:
    return [line.strip("-• ") for line in answer.splitlines() if line.strip()]


@workflow
def talk(topic: str) -> list[str]:
    return points(ask(outline(topic)))


if __name__ == "__main__":
    print(run(talk, "tea"))
