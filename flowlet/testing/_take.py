"""What one recorded call brings, added up while its caller reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Self

from attrs import evolve

from ..errors import ProviderError
from ..messages import Completion, Delta

__all__ = ["Heard", "Take"]


class Take:
    """What one call has brought so far. A stream is *opened* when its caller has it; *error* broke it off."""

    def __init__(self, model: str, *, ended: bool) -> None:
        self.completion = Completion("", model=model)
        self.ended = ended
        self.opened = False
        self.error: BaseException | None = None

    def hear(self, deltas: Iterator[Delta]) -> Iterator[Delta]:
        """Pass *deltas* on, and add them up."""
        try:
            for delta in deltas:
                self.add(delta)
                yield delta
        except ProviderError as exc:
            self.error = exc
            raise
        self.ended = True

    def add(self, delta: Delta) -> None:
        """Add *delta* to the answer."""
        names = ("usage", "finish_reason", "model", "request_id", "refusal")
        known = {name: value for name in names if (value := getattr(delta, name)) is not None}
        self.completion = evolve(self.completion, text=self.completion.text + delta.text, **known)
        self.ended = self.ended or delta.finish_reason is not None


class Heard:
    """Async deltas, added up as they pass. No generator, so that nothing is left to finalise on trio."""

    def __init__(self, deltas: AsyncIterator[Delta], take: Take) -> None:
        self._deltas = deltas
        self._take = take

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        try:
            delta = await anext(self._deltas)
        except StopAsyncIteration:
            self._take.ended = True
            raise
        except ProviderError as exc:
            self._take.error = exc
            raise
        self._take.add(delta)
        return delta
