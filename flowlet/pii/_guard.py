"""The guard around model calls: what goes out is masked, refused, or told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from attrs import evolve, field, frozen

from .._value import Shown
from ..errors import PIIRefused
from ..messages import Completion, Request
from ..protocols import ModelCall
from ._extra import require
from ._match import Match, PIIDetector

if TYPE_CHECKING:
    from ._masking import Masking, Refill

__all__ = ["Action", "Guard", "Guarded"]

Action = Literal["mask", "refuse", "warn"]


@frozen(repr=False)
class Guarded(Shown):
    """A *request* as it may leave; what *kinds* were in it, and the *masking* that puts them back."""

    request: Request
    kinds: tuple[str, ...] = ()
    masking: Masking | None = None

    def restored(self, completion: Completion) -> Completion:
        """Put the values back into an answer."""
        if self.masking is None:
            return completion
        refusal = None if completion.refusal is None else self.masking.restore(completion.refusal)
        return evolve(completion, text=self.masking.restore(completion.text), refusal=refusal)

    def refill(self) -> Refill | None:
        """What puts the values back into a stream; None where there are none."""
        if self.masking is None:
            return None
        from ._masking import Refill

        return Refill(self.masking)


def _names(given: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    return tuple(given.replace(",", " ").split()) if isinstance(given, str) else tuple(given)


def _all(given: Iterable[PIIDetector]) -> tuple[PIIDetector, ...]:
    return tuple(given)


@frozen(repr=False)
class Guard(Shown):
    """What becomes of personal data in model calls: of prompts, system prompts and all other messages.

    As a setting it holds for every call of the process, ``configure(pii=Guard("mask"))``; in a list of middleware
    for the calls of these runs. It acts after all other middleware, on what is sent.

    Attributes:
        action: ``mask`` sends placeholders, ``refuse`` raises before anything is sent, ``warn`` only tells;
            without one nothing is looked for.
        restore: whether the answer has the values again in place of the placeholders.
        kinds: which kinds to look for, such as ``email, card``; all where nothing is said.
        detectors: further ones, beside those of flowlet.

    Raises:
        ConfigError: a kind needs the extra ``pii``, which is not installed.
    """

    action: Action | None = None
    restore: bool = True
    kinds: tuple[str, ...] | None = field(default=None, converter=_names)
    detectors: tuple[PIIDetector, ...] = field(default=(), converter=_all)

    def __attrs_post_init__(self) -> None:
        if self.action is not None:
            require(self.kinds)

    def __call__(self, call: ModelCall, next: Callable[[ModelCall], Completion]) -> Completion:
        """Guard one call, as a middleware; flowlet itself asks :meth:`guarded`, streams too.

        Raises:
            PIIRefused: something was found, and the guard is to refuse it.
        """
        guarded = self.guarded(call.request)
        return guarded.restored(next(evolve(call, request=guarded.request)))

    def guarded(self, request: Request) -> Guarded:
        """Give *request* as it may leave.

        Raises:
            PIIRefused: something was found, and the guard is to refuse it.
        """
        if self.action is None:
            return Guarded(request)
        from ._finding import find
        from ._masking import Masking

        texts = [message.content for message in request.messages]
        found = [find(text, self.kinds, detectors=self.detectors) for text in texts]
        kinds = tuple(sorted({match.kind for matches in found for match in matches}))
        if not kinds or self.action == "warn":
            return Guarded(request, kinds)
        if self.action == "refuse":
            raise PIIRefused(kinds, tuple(_places(request, found)))
        masking = Masking(texts)
        messages = tuple(
            evolve(message, content=masking.mask(message.content, matches)) if matches else message
            for message, matches in zip(request.messages, found, strict=True)
        )
        return Guarded(evolve(request, messages=messages), kinds, masking if self.restore else None)


def _places(request: Request, found: Iterable[Iterable[Match]]) -> Iterable[str]:
    for number, (message, matches) in enumerate(zip(request.messages, found, strict=True), 1):
        for match in matches:
            yield f"message {number} ({message.role}), characters {match.start} to {match.end}: {match.kind}"
