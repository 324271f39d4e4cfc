"""A question to a model until its answer fits, in no colour: formats stepped down, misfits told."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Literal

from attrs import evolve

from ._engine._attempts import Target
from ._engine._streams import check_ending
from .errors import InputError, OutputError, ProviderError
from .messages import Completion, Message, OutputFormat, Request
from .settings import process

_Mode = Literal["json_schema", "json_object", "prompt"]
_MODES: tuple[_Mode, ...] = ("json_schema", "json_object", "prompt")


class Modes:
    """How a model can be asked for JSON, as far as its provider has refused a stricter way."""

    def __init__(self) -> None:
        self._modes: dict[tuple[str, str], _Mode] = {}

    def of(self, target: Target, model: str) -> _Mode:
        """The strictest way that has not been refused."""
        offered: _Mode = getattr(target.provider, "structured_output", "prompt")
        return self._modes.get((target.name, model), offered)

    def lower(self, target: Target, model: str, mode: _Mode) -> None:
        """Remember that nothing stricter than *mode* works."""
        self._modes[target.name, model] = mode


class Conversation:
    """What to ask next (*request*), until it is *over* and there is a *value*."""

    def __init__(self, target: Target, request: Request, returns: Any) -> None:
        self._target = target
        self._returns = returns
        self._plain = request
        self._reasks = process.settings.reasks
        self.over = False
        self.value: Any = None
        self.request = request
        if returns is not str:
            self._format: OutputFormat = _output_format(returns)
            self._use(_modes(target).of(target, request.model))

    def _use(self, mode: _Mode) -> None:
        self._mode = mode
        output = evolve(self._format, mode=mode)
        messages = self._plain.messages
        if mode != "json_schema":
            messages = (*messages[:-1], _with_schema(messages[-1], output))
        self.request = evolve(self._plain, messages=messages, output=output)

    def step_down(self, error: ProviderError) -> None:
        """Ask in a plainer way, when *error* says that the provider can't do this one.

        Raises:
            ProviderError: it says something else.
        """
        if error.kind != "unsupported" or self._returns is str or self._mode == "prompt":
            raise error
        mode = _MODES[_MODES.index(self._mode) + 1]
        _modes(self._target).lower(self._target, self._plain.model, mode)
        self._use(mode)

    def hear(self, completion: Completion) -> None:
        """Take an answer: it ends the conversation, or its faults are asked to be mended.

        Raises:
            Refused, Truncated: it is no answer.
            OutputError: it does not fit, and the model was told before.
        """
        check_ending(completion)
        if self._returns is str:
            self.value, self.over = completion.text, True
            return
        from ._codec import answer_from_json

        try:
            self.value = answer_from_json(completion.text, self._returns)
        except InputError as exc:
            faults = exc.faults
        else:
            self.over = True
            return
        if not self._reasks:
            message = (
                f"the answer of {completion.model or self._plain.model} does not fit the type asked for:"
            )
            raise OutputError(message, faults, completion.text)
        self._reasks -= 1
        self._ask_again(completion.text, faults)

    def _ask_again(self, text: str, faults: tuple[str, ...]) -> None:
        told = "\n".join(("That answer does not fit:", *faults, "Answer again, with the JSON alone."))
        messages = (*self.request.messages, Message("assistant", text), Message("user", told))
        self.request = evolve(self.request, messages=messages)


def _modes(target: Target) -> Modes:
    """What is known of the provider; a recording has knowledge of its own, so that its replay asks alike."""
    own: object = getattr(target.provider, "modes", None)
    return own if isinstance(own, Modes) else process.of(Modes)


def _with_schema(message: Message, output: OutputFormat) -> Message:
    schema = json.dumps(output.schema, ensure_ascii=False)
    text = (
        f"{message.content}\n\nAnswer with JSON alone, no other text, that fits this JSON Schema:\n{schema}"
    )
    return evolve(message, content=text)


def _output_format(returns: Any) -> OutputFormat:
    try:
        hash(returns)
    except TypeError:  # Annotated[..., []]
        return _made_format.__wrapped__(returns)
    return _made_format(returns)


@lru_cache(maxsize=256)
def _made_format(returns: Any) -> OutputFormat:
    from ._schema import output_format  # what reads hints is imported with the first typed question

    return output_format(returns)
