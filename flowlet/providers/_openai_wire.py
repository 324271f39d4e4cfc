"""The shapes of chat completions: a request as JSON, an answer or a stream as our own values. Pure."""

from __future__ import annotations

import io
import json
import re
from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping
from typing import Any, cast

from attrs import evolve

from .._schema import is_strict
from ..errors import ProviderError
from ..messages import Completion, Delta, FinishReason, OutputFormat, Request
from ..metrics import UNKNOWN, TokenUsage
from ._openai_faults import garbage, of_error_body, one_line, too_large

__all__ = ["AnswerReader", "EventParser", "Reader", "StreamReader", "completion_of", "encode", "usage_of"]

_FINISH: Mapping[object, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "refusal",
    "refusal": "refusal",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_TOKENS = 2**53
_LIGHT = 2**18  # characters of JSON that can't take much memory
_HEAVIEST = 24 * 2**20  # bytes
_OF_A_GROUP, _OF_A_VALUE = 240, 40  # bytes, as CPython 3.11 takes for {"": 0} and for a float in a list


def encode(request: Request, *, official: bool, stream: bool) -> bytes:
    """Write *request* as the JSON body of a call; *official* is OpenAI itself."""
    body = {**_fields(request, official=official), **request.parameters.extra}
    body.pop("stream", None)
    if stream:
        body["stream"] = True
        body.setdefault("stream_options", {"include_usage": True})
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, default=_plain)
    return text.encode("utf-8", "replace")  # a lone surrogate in a prompt becomes "?"


def completion_of(data: bytes, request_id: str | None, model: str) -> Completion:
    """Read an answer. *model* is what was asked for, in case the answer doesn't say.

    Raises:
        ProviderError: it is not the JSON of a chat completion, or it is an error.
    """
    answer = _answer(data.decode("utf-8-sig", "replace"), request_id)
    try:
        return _completion(answer, request_id, model)
    except ProviderError as exc:
        fault = evolve(exc, usage=usage_of(answer.get("usage")))  # no answer, but perhaps paid for
    raise fault


def _completion(answer: Mapping[str, Any], request_id: str | None, model: str) -> Completion:
    choice = _choice(answer)
    message = _object(choice.get("message"), "choices[0].message")
    refusal = _text(message, "refusal") or None
    return Completion(
        _text(message, "content"),
        usage_of(answer.get("usage")),
        one_line(answer.get("model"), 200) or model,
        "refusal" if refusal else _FINISH.get(_text(choice, "finish_reason"), "other"),
        request_id or one_line(answer.get("id"), 200) or None,
        refusal,
    )


def usage_of(usage: object) -> TokenUsage:
    """Read the tokens that a server reports; unknown, where the numbers are missing or no counts."""
    if not isinstance(usage, dict):
        return UNKNOWN
    told = cast("dict[str, Any]", usage)
    prompt, completion = _count(told.get("prompt_tokens")), _count(told.get("completion_tokens"))
    if prompt is None or completion is None:
        return UNKNOWN
    total = prompt + completion if told.get("total_tokens") is None else _count(told["total_tokens"])
    if total is None:
        return UNKNOWN
    cached = _detail(told, "prompt_tokens_details", "cached_tokens")
    reasoning = _detail(told, "completion_tokens_details", "reasoning_tokens")
    return TokenUsage(prompt, completion, total, cached, reasoning)


class EventParser:
    """Server-sent events: bytes in, the data of whole events out.

    State: the unfinished line and event, of at most *limit* bytes, changed by :meth:`feed` only.
    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._text = io.IncrementalNewlineDecoder(
            getincrementaldecoder("utf-8-sig")("replace"), translate=True
        )
        self._line: list[str] = []
        self._data: list[str] = []

    def feed(self, data: bytes, *, final: bool = False) -> Iterator[str]:
        """Give the data of every event that *data* completes; *final* ends the last one.

        Raises:
            ProviderError: an event is too large.
        """
        if self._size > self._limit:
            raise too_large(self._limit)
        self._size += len(data)
        self._line.append(self._text.decode(data, final=final) + ("\n\n" if final else ""))
        if "\n" not in self._line[-1]:
            return
        *lines, rest = "".join(self._line).split("\n")
        self._line = [rest]
        for line in lines:
            if line:
                self._field(line)
                continue
            self._size = len(rest)
            if self._data:
                yield "\n".join(self._data)
                self._data.clear()

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))


class StreamReader:
    """A streamed answer: bytes in, deltas out; tokens and finish reason come once, with the last delta.

    State: what the stream has said so far, a text of at most *limit* bytes; changed by its methods only.
    """

    def __init__(self, request_id: str | None, model: str, limit: int) -> None:
        self.ended = False
        self._limit = limit
        self._size = 0
        self._events = EventParser(limit)
        self._request_id = request_id
        self._model = model
        self._finish: FinishReason | None = None
        self._usage: TokenUsage | None = None
        self._refused = False

    def feed(self, data: bytes) -> list[Delta]:
        """Read a piece of the body.

        Raises:
            ProviderError: it is not a stream of chat completions, or it tells of an error.
        """
        return [delta for event in self._events.feed(data) for delta in self._event(event)]

    def end(self) -> list[Delta]:
        """Read the end of the body.

        Raises:
            ProviderError: the answer did not end properly.
        """
        deltas: list[Delta] = []
        for event in self._events.feed(b"", final=True):
            try:
                deltas += self._event(event)
            except ProviderError:
                if self._finish is None:  # else: cut off after the answer itself, whose tokens stay unknown
                    raise
        if self.ended:
            return deltas
        if self._finish is None:
            raise _garbage("the stream ended before the answer did (neither finish_reason nor [DONE])")
        return [*deltas, self._last()]

    def broken(self, error: ProviderError) -> list[Delta]:
        """Give the last delta of a stream that broke off after its answer.

        Raises:
            ProviderError: it broke off before; the error, with the tokens that were told by then.
        """
        if self._finish is not None and error.kind in ("connection", "timeout"):
            return [self._last()]
        raise evolve(error, usage=self._usage)

    def _event(self, event: str) -> list[Delta]:
        if self.ended:
            return []
        if event.strip() == "[DONE]":
            return [self._last()]
        chunk = _answer(event, self._request_id)
        self._request_id = self._request_id or one_line(chunk.get("id"), 200) or None
        self._model = one_line(chunk.get("model"), 200) or self._model
        if chunk.get("usage") is not None:
            self._usage = usage_of(chunk["usage"])
        choices = _list(chunk.get("choices") or [], "choices")
        if not choices and self._finish is not None and chunk.get("usage") is not None:
            return [self._last()]  # nothing but [DONE] is to come
        return [delta for choice in choices for delta in self._choice(_object(choice, "choices[]"))]

    def _choice(self, choice: Mapping[str, Any]) -> list[Delta]:
        if choice.get("index", 0) != 0:
            return []
        delta = _object(choice.get("delta") or {}, "choices[].delta")
        text, refusal = _text(delta, "content"), _text(delta, "refusal") or None
        self._refused |= refusal is not None
        self._size += len(text) + len(refusal or "")
        if self._size > self._limit:
            raise too_large(self._limit)
        if reason := _text(choice, "finish_reason"):
            self._finish = _FINISH.get(reason, "other")
        return [self._delta(text=text, refusal=refusal)] if text or refusal else []

    def _last(self) -> Delta:
        self.ended = True
        return self._delta(
            usage=self._usage or UNKNOWN, finish_reason="refusal" if self._refused else self._finish
        )

    def _delta(self, **facts: Any) -> Delta:
        return Delta(**facts, model=self._model, request_id=self._request_id)


class AnswerReader:
    """A whole answer where a stream was asked for, as one delta; some servers do not stream.

    State: the body so far.
    """

    def __init__(self, request_id: str | None, model: str) -> None:
        self.ended = False
        self._request_id = request_id
        self._model = model
        self._body: list[bytes] = []

    def feed(self, data: bytes) -> list[Delta]:
        """Keep a piece of the body."""
        self._body.append(data)
        return []

    def end(self) -> list[Delta]:
        """Read the body.

        Raises:
            ProviderError: it is not the JSON of a chat completion, or it is an error.
        """
        answer = completion_of(b"".join(self._body), self._request_id, self._model)
        facts = (
            answer.text,
            answer.usage,
            answer.finish_reason,
            answer.model,
            answer.request_id,
            answer.refusal,
        )
        self.ended = True
        return [Delta(*facts)]

    def broken(self, error: ProviderError) -> list[Delta]:
        """Give nothing: an answer that is not whole is none.

        Raises:
            ProviderError: *error*.
        """
        raise error


Reader = StreamReader | AnswerReader


def _fields(request: Request, *, official: bool) -> dict[str, Any]:
    parameters = request.parameters
    fields: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "temperature": parameters.temperature,
        "max_completion_tokens" if official else "max_tokens": parameters.max_tokens,
        "top_p": parameters.top_p,
        "seed": parameters.seed,
        "stop": parameters.stop or None,
        "response_format": None if request.output is None else _response_format(request.output),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _response_format(output: OutputFormat) -> dict[str, Any] | None:
    if output.mode == "json_schema":
        name = re.sub(r"[^a-zA-Z0-9_-]", "_", output.name)[:64] or "answer"
        return {
            "type": "json_schema",
            "json_schema": {"name": name, "schema": output.schema, "strict": is_strict(output.schema)},
        }
    return {"type": "json_object"} if output.mode == "json_object" else None


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    raise TypeError(f"a request can't carry a {type(value).__name__}; expected what JSON knows")


def _answer(text: str, request_id: str | None) -> Mapping[str, Any]:
    answer = _object(_parsed(text), "the answer")
    error = answer.get("error") or (answer if answer.get("object") == "error" else None)
    if error:
        raise of_error_body(error, request_id)
    return answer


def _parsed(text: str) -> object:
    if len(text) > _LIGHT and _weight(text) > _HEAVIEST:
        raise ProviderError("bad_response", "the answer has too many lists, objects and values to be one")
    try:
        return json.loads(text)
    except RecursionError:
        fault = "is nested too deeply"
    except ValueError as exc:
        fault = (
            f"is not JSON ({one_line(str(exc), 100)}): {one_line(text, 80)}" if text.strip() else "is empty"
        )
    raise _garbage(f"the answer {fault}")


def _weight(text: str) -> int:
    """The most bytes that the values of a JSON text take as objects: two letters may become a hundred bytes."""
    return _OF_A_GROUP * (text.count("[") + text.count("{")) + _OF_A_VALUE * text.count(",")


def _garbage(message: str) -> ProviderError:
    return garbage(f"{message}; expected the JSON of a chat completion")


def _choice(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = _list(answer.get("choices"), "choices")
    if not choices:
        raise _garbage("the answer has no choices")
    return _object(choices[0], "choices[0]")


def _object(value: object, what: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    raise _garbage(f"{what} is a {type(value).__name__}, not an object")


def _list(value: object, what: str) -> list[object]:
    if isinstance(value, list):
        return cast("list[object]", value)
    raise _garbage(f"{what} is a {type(value).__name__}, not a list")


def _text(owner: Mapping[str, Any], name: str) -> str:
    value = owner.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _garbage(f"{name} is a {type(value).__name__}, not text")
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < _MOST_TOKENS else None


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int:
    details = usage.get(group)
    return (_count(cast("dict[str, Any]", details).get(name)) or 0) if isinstance(details, dict) else 0
