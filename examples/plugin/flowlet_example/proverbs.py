"""The provider ``proverbs``: it answers with a proverb that has a word of the prompt."""

from flowlet import Completion, ProviderError, TokenUsage
from flowlet.messages import Request

PROVERBS = {
    "wise": ("A watched pot never boils.", "Haste makes waste.", "Practice makes perfect."),
    "terse": ("Less is more.", "Time flies."),
}


class Proverbs:
    """Answers in the calling thread; flowlet moves the call where the run is async.

    Raise ``ProviderError`` for whatever goes wrong, outside of the ``except`` block of an SDK's own error.
    """

    live = False  # it asks nobody; leave this out of a provider that does

    def complete(self, request: Request, /) -> Completion:
        if request.model not in PROVERBS:
            names = ", ".join(PROVERBS)
            message = f"there is no model {request.model!r}; there are {names}"
            raise ProviderError("not_found", message, provider="proverbs")
        prompt = request.messages[-1].content
        answer = _best(prompt, PROVERBS[request.model])
        asked, told = len(prompt.split()), len(answer.split())
        return Completion(answer, TokenUsage(asked, told, asked + told), model=request.model)


def _best(prompt: str, proverbs: tuple[str, ...]) -> str:
    """The proverb that shares most words with the prompt."""
    words = set(prompt.lower().split())
    return max(proverbs, key=lambda proverb: len(words & set(proverb.lower().rstrip(".").split())))
