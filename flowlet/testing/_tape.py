"""The file of a recording: what it holds, how a request is told from others, how it is read and written.

A request is the same as another when what the model sees is: provider, model, messages, output format and
sampling settings, with secrets redacted and fences around untrusted text numbered. Keys, addresses and timeouts have
no part in it. The file holds no digests: they are made from the requests in it, so that it may be edited by hand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

from attrs import Attribute, asdict, evolve, fields, frozen

from .._codec import from_json
from .._fence import without_codes
from ..errors import InputError, ProviderError, ProviderErrorKind, RecordingError
from ..messages import Completion, FinishReason, JsonValue, Parameters, Request, Role
from ..metrics import UNKNOWN, TokenUsage
from ..settings import process

__all__ = [
    "Answer",
    "Asked",
    "Fault",
    "Interaction",
    "asked",
    "digest",
    "joined",
    "key",
    "read",
    "rendered",
    "write",
]

FORMAT = 1

Text = str | list[str]
"""A text; one of several lines is a list of them in the file, which reads well in a diff."""


@frozen
class Said:
    """A message as it is recorded."""

    role: Role
    content: Text


@frozen
class Asked:
    """A request, as far as its answer depends on it."""

    provider: str
    model: str
    messages: list[Said]
    parameters: dict[str, Any] | None = None
    output: dict[str, Any] | None = None


@frozen
class Answer:
    """An answer as it is recorded. *partial* is one that the caller did not read to its end."""

    text: Text = ""
    usage: TokenUsage = UNKNOWN
    model: str = ""
    finish_reason: FinishReason = "stop"
    request_id: str | None = None
    refusal: str | None = None
    partial: bool = False

    @classmethod
    def of(cls, completion: Completion, partial: bool = False) -> Answer:
        """Take down *completion*."""
        known = {a.name: getattr(completion, a.name) for a in fields(cls) if a.name != "partial"}
        return cls(**known, partial=partial)

    def completion(self) -> Completion:
        """Give the answer again, marked as replayed."""
        known: dict[str, Any] = {a.name: getattr(self, a.name) for a in fields(type(self))}
        del known["partial"]
        known["text"] = joined(self.text)
        return Completion(**known, replayed=True)


@frozen
class Fault:
    """A :class:`ProviderError` as it is recorded."""

    kind: ProviderErrorKind
    message: str
    retryable: bool = False
    status: int | None = None
    code: str | None = None
    request_id: str | None = None
    retry_after: float | None = None
    provider: str | None = None
    usage: TokenUsage | None = None

    @classmethod
    def of(cls, error: ProviderError) -> Fault:
        """Take down *error*."""
        return cls(**{a.name: getattr(error, a.name) for a in fields(cls)})

    def error(self) -> ProviderError:
        """Give the error again; a wait that the server asked for is not replayed."""
        known: dict[str, Any] = {a.name: getattr(self, a.name) for a in fields(type(self))}
        if self.retryable:
            known["retry_after"] = 0.0
        return ProviderError(**known)


@frozen
class Interaction:
    """One request and what came back: an answer, an error, or for a stream that broke off both."""

    request: Asked
    answer: Answer | None = None
    error: Fault | None = None


@frozen
class _File:
    flowlet_recording: Literal[1]
    structured_output: dict[str, Literal["json_schema", "json_object", "prompt"]]
    interactions: list[Interaction]


# --- which request it is -------------------------------------------------------------------------


def asked(provider: str, request: Request) -> Asked:
    """Reduce *request* to what its answer depends on, with secrets redacted."""
    parameters = request.parameters
    names = [a.name for a in fields(Parameters)]
    given = {n: v for n in names if (v := getattr(parameters, n)) != getattr(Parameters(), n)}
    for name in ("temperature", "top_p"):
        if name in given:
            given[name] = float(given[name])
    output = request.output
    formats = None if output is None else {"name": output.name, "mode": output.mode, "schema": output.schema}
    messages = [Said(message.role, without_codes(_redacted(message.content))) for message in request.messages]
    return Asked(provider, request.model, messages, _redacted(given) or None, _redacted(formats))


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return process.redactor.redact(_valid(value))
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value).items()
        return {name: _redacted(inner) for name, inner in pairs}
    if isinstance(value, list | tuple):
        return [_redacted(inner) for inner in cast("Sequence[Any]", value)]
    return value


def _valid(text: str) -> str:
    """Replace halves of surrogate pairs, where a model broke off: no file can hold them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def key(request: Asked) -> str:
    """Tell *request* from others: a digest of its canonical JSON."""
    whole = asdict(evolve(request, messages=[evolve(m, content=joined(m.content)) for m in request.messages]))
    return digest(json.dumps(whole, sort_keys=True))


def digest(text: str) -> str:
    """Shorten *text* to what no other text is shortened to."""
    return sha256(text.encode()).hexdigest()


def joined(text: Text) -> str:
    """The text of a list of lines."""
    return text if isinstance(text, str) else "\n".join(text)


# --- the file ------------------------------------------------------------------------------------


def read(path: Path) -> tuple[list[Interaction], dict[str, Any]]:
    """Read the interactions in the file, and how its providers can be asked for JSON.

    Raises:
        RecordingError: it can't be read, or is no recording; every fault is told.
    """
    try:
        data: JsonValue = json.loads(path.read_text(encoding="utf-8"))
        found = from_json(data, _File)
    except OSError as exc:
        raise RecordingError(f"the recording {path} can't be read: {exc.strerror}") from None
    except InputError as exc:
        faults = "".join(f"\n  {fault}" for fault in exc.faults)
        raise RecordingError(f"{path} is no recording of flowlet:{faults}") from None
    except ValueError as exc:
        raise RecordingError(f"{path} is no recording of flowlet: {exc}") from None
    return found.interactions, dict(found.structured_output)


def write(path: Path, interactions: Iterable[Interaction], formats: Mapping[str, str]) -> None:
    """Write the file whole, or leave it as it was.

    Raises:
        RecordingError: it would hold a registered secret, or can't be written.
    """
    interactions = list(interactions)
    for number, interaction in enumerate(interactions, 1):  # before its texts are split into lines
        if process.redactor.contains_secret(json.dumps(_plain(interaction, lines=False))):
            raise RecordingError(
                f"{path} was not written: the answer of call {number} holds a registered secret\n"
                f"  it was asked: {joined(interaction.request.messages[-1].content)[:200]!r}"
            )
    content = {
        "flowlet_recording": FORMAT,
        "structured_output": dict(sorted(formats.items())),
        "interactions": [_plain(interaction, lines=True) for interaction in interactions],
    }
    try:
        _replace(path, _valid(json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    except OSError as exc:
        raise RecordingError(f"the recording {path} can't be written: {exc.strerror}") from None


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def rendered(request: Asked) -> list[str]:
    """The lines of *request*, as the file has them."""
    plain = asdict(request, filter=_told)
    return json.dumps(_split(plain), indent=2, ensure_ascii=False).splitlines()


def _plain(interaction: Interaction, *, lines: bool) -> dict[str, Any]:
    whole = asdict(interaction, filter=_told)
    return _split(whole) if lines else whole


def _told(attribute: Attribute[Any], value: Any) -> bool:
    """Leave out what has its default."""
    return attribute.name in ("text", "source") or value != attribute.default


def _split(part: dict[str, Any]) -> dict[str, Any]:
    """Make the long texts in *part* lists of lines: messages, and the answer."""
    for name in ("request", "answer"):
        if name in part:
            part[name] = _split(part[name])
    if "messages" in part:
        part["messages"] = [_lines(message, "content") for message in part["messages"]]
    return _lines(part, "text")


def _lines(part: dict[str, Any], name: str) -> dict[str, Any]:
    text = part.get(name)
    return {**part, name: text.split("\n")} if isinstance(text, str) and "\n" in text else part
