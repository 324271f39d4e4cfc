"""What goes to a model and what comes back, whoever provides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import field, frozen

from ._value import Value
from .metrics import UNKNOWN, TokenUsage

__all__ = [
    "Completion",
    "Delta",
    "FinishReason",
    "JsonValue",
    "Message",
    "OutputFormat",
    "Parameters",
    "Request",
    "Role",
]

JsonValue = None | bool | int | float | str | Sequence[Any] | Mapping[str, Any]
Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "refusal", "other"]


@frozen(eq=False, repr=False)
class Message(Value):
    """One message of a conversation."""

    role: Role
    content: str


@frozen(eq=False, repr=False)
class Parameters(Value):
    """Sampling settings. What is None is not sent, so the provider's own default holds.

    Attributes:
        temperature: how freely the next token is chosen.
        max_tokens: the most tokens of an answer.
        top_p: the share of likely tokens that is chosen from.
        seed: the same one asks for the same answer again.
        stop: texts that end an answer.
        extra: goes into the request as it is, for what only one provider knows (``reasoning_effort``).
    """

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    extra: Mapping[str, JsonValue] = field(factory=dict[str, JsonValue])


@frozen(eq=False, repr=False)
class OutputFormat(Value):
    """The JSON that an answer must be: a JSON Schema (draft 2020-12) under a name.

    *mode* is how the provider is asked for it, the strictest way that it offers first.
    """

    name: str
    schema: Mapping[str, Any]
    mode: Literal["json_schema", "json_object", "prompt"] = "json_schema"


@frozen(eq=False, repr=False)
class Request(Value):
    """One question to one model. *timeout* bounds the whole answer, in seconds."""

    model: str
    messages: tuple[Message, ...]
    parameters: Parameters = Parameters()
    output: OutputFormat | None = None
    timeout: float = 600.0


@frozen(eq=False, repr=False)
class Completion(Value):
    """A model's answer. *refusal* is what it said instead, where it declined."""

    text: str
    usage: TokenUsage = UNKNOWN
    model: str = ""
    finish_reason: FinishReason = "stop"
    request_id: str | None = None
    refusal: str | None = None
    replayed: bool = False


@frozen(eq=False, repr=False)
class Delta(Value):
    """A piece of a streamed answer. The last one brings *usage* and *finish_reason*, where known."""

    text: str = ""
    usage: TokenUsage | None = None
    finish_reason: FinishReason | None = None
    model: str | None = None
    request_id: str | None = None
    refusal: str | None = None
    replayed: bool = False
