"""The same talk in async code: async steps are awaited, sync steps are called as ever."""

import asyncio

from flowlet import AsyncLLM, agather, arun, start, step, workflow


@step
def outline(topic: str) -> str:
    return f"List three points for a talk about {topic}, one a line."


@step
async def ask(question: str, llm: AsyncLLM = AsyncLLM()) -> str:
    return await llm.ask(question)


@workflow
async def talk(topic: str) -> str:
    return await ask(outline(topic))  # outline() runs on a worker thread: the loop goes on


async def main() -> None:
    print(await arun(talk, "tea"))
    tea, coffee = await agather(talk("tea"), talk("coffee"))
    print(len(tea), len(coffee), "characters")
    handle = start(talk, "cocoa")  # a run in the background
    print(handle.id, (await handle).splitlines()[-1], handle.state)


asyncio.run(main())
