"""Log prompts and answers with keys and personal data masked, for async workflows and sync ones."""

import logging
import re
import sys
from collections.abc import Awaitable, Callable

from flowlet import LLM, Completion, ModelCall, run, step, workflow
from flowlet.pii import mask

log = logging.getLogger("prompts")
KEY = re.compile(r"\b(sk|ghp|xox[bp])[-_][\w-]{8,}")
KINDS = ("email", "card", "iban", "ip", "us_ssn")  # those that need nothing installed; without them: all


def masked(text: str) -> str:
    return mask(KEY.sub("<KEY>", text), KINDS)


async def prompts(call: ModelCall, next: Callable[[ModelCall], Awaitable[Completion]]) -> Completion:
    where = f"{call.run.workflow} {call.step}" if call.run else "outside"
    for message in call.request.messages:
        log.info("%s -> %s: %s", where, message.role, masked(message.content))
    completion = await next(call)
    log.info("%s <- %s: %s", where, completion.model, masked(completion.text))
    return completion


@step
def reply(mail: str, llm: LLM = LLM()) -> str:
    return llm.ask(f"Answer this mail: {mail}")


@workflow(middleware=[prompts])
def answer(mail: str) -> str:
    return reply(mail)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    run(answer, "I am jo@example.org, my card is 4111 1111 1111 1111, my key sk-abcdefgh12345678.")
