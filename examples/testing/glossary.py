"""A workflow, sync and async: what some words mean, in one sentence each. Its tests are beside it."""

from flowlet import LLM, AsyncLLM, apmap, pmap, step, workflow


@step
def define(word: str, llm: LLM = LLM(temperature=0, max_tokens=60)) -> str:
    return llm.ask(f"What is {word}?")


@step
async def adefine(word: str, llm: AsyncLLM = AsyncLLM(temperature=0, max_tokens=60)) -> str:
    return await llm.ask(f"What is {word}?")


@step
def first_sentence(text: str) -> str:
    return text.strip().partition(". ")[0].removesuffix(".") + "."


@workflow
def glossary(words: list[str]) -> dict[str, str]:
    return {word: first_sentence(text) for word, text in zip(words, pmap(define, words), strict=True)}


@workflow
async def aglossary(words: list[str]) -> dict[str, str]:
    texts = await apmap(adefine, words)
    return {word: first_sentence(text) for word, text in zip(words, texts, strict=True)}
