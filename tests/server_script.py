"""What the server of ``server.py`` can do to a client: steps of a script, from a plain answer to a gzip bomb."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from attrs import define, field, frozen


@frozen
class Received:
    """A request as it came. *at* is monotonic, *connection* counts the TCP connections from 1."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    connection: int
    number: int

    @property
    def json(self) -> dict[str, Any]:
        """The body, which must be JSON."""
        return json.loads(self.body)

    @property
    def request_id(self) -> str:
        """The id that the answer carries."""
        return f"req-{self.number}"


class Closed(Exception):
    """The connection is over, by whichever side."""


@define
class Wire:
    """A connection, as the steps use it."""

    sock: socket.socket
    number: int
    stopping: threading.Event
    lock: threading.Lock
    sent_usage: list[Any]

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            raise Closed from None

    def respond(
        self, status: int, body: bytes, received: Received, headers: Mapping[str, str] | None = None
    ) -> None:
        fields = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "x-request-id": received.request_id,
        } | dict(headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)

    def begin(self, received: Received) -> None:
        self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
            b"x-request-id: " + received.request_id.encode() + b"\r\n\r\n"
        )

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def wait(self, seconds: float) -> None:
        if seconds and self.stopping.wait(seconds):
            raise Closed

    @contextmanager
    def booking(self, usage: Any) -> Iterator[None]:
        """Record *usage* as sent, before the client can see it, unless sending it fails."""
        if usage is not None:
            with self.lock:
                self.sent_usage.append(usage)
        try:
            yield
        except (Closed, GeneratorExit):
            with self.lock:
                self.sent_usage.remove(usage)
            raise

    def close(self) -> None:
        raise Closed


class Step(Protocol):
    """One scripted behaviour."""

    def play(self, received: Received, wire: Wire) -> None:
        """Answer *received*; return with the connection usable, or close it."""
        ...


def default_text(asked: Mapping[str, Any]) -> str:
    """The text of an answer that no script fixes: it depends on the last message only."""
    messages = asked.get("messages") or [{"content": ""}]
    return f"echo: {messages[-1]['content']}"


def default_usage(asked: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Tokens counted as words."""
    prompt = sum(len(str(m["content"]).split()) for m in asked.get("messages", ()))
    completion = len(text.split())
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@frozen
class Answer:
    """A chat completion; as a stream of words, if the request asks for a stream.

    *usage* replaces the counted tokens (None: none are sent). *patch* is merged into the body's top level.
    """

    text: str | None = None
    usage: Any = "counted"
    finish_reason: str | None = "stop"
    refusal: str | None = None
    delay: float = 0.0
    headers: Mapping[str, str] = field(factory=dict)
    patch: Mapping[str, Any] = field(factory=dict)

    def play(self, received: Received, wire: Wire) -> None:
        asked = received.json
        text = default_text(asked) if self.text is None and self.refusal is None else self.text
        if asked.get("stream"):
            pieces = re.findall(r"\s*\S+\s*?", text or "") or [text or ""]
            Stream(pieces, self.usage, self.finish_reason, delay=self.delay).play(received, wire)
            return
        usage = default_usage(asked, text or "") if self.usage == "counted" else self.usage
        body = _envelope("chat.completion", received) | {
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": self.refusal},
                    "finish_reason": self.finish_reason,
                }
            ],
            **({} if usage is None else {"usage": usage}),
            **self.patch,
        }
        wire.wait(self.delay)
        with wire.booking(body.get("usage")):
            wire.respond(200, json.dumps(body).encode(), received, self.headers)


@frozen
class Stream:
    """Server-sent events: *pieces*, a finish reason, the tokens (if asked for), ``[DONE]``.

    *cut* drops the connection after the pieces, *error* sends an error object there instead of an end.
    *usage_twice* sends tokens with every piece too, as some servers do. *pace* waits between the pieces.
    """

    pieces: Sequence[str]
    usage: Any = "counted"
    finish_reason: str | None = "stop"
    done: bool = True
    cut: bool = False
    error: Mapping[str, Any] | None = None
    usage_twice: bool = False
    delay: float = 0.0
    pace: float = 0.0
    newline: str = "\n"
    refusal: bool = False

    def play(self, received: Received, wire: Wire) -> None:
        wire.wait(self.delay)
        wire.begin(received)
        for event in self._events(received, wire):
            wire.chunk(f"data: {event}{self.newline}{self.newline}".encode())
            wire.wait(self.pace)
        if self.cut:
            wire.close()
        else:
            wire.chunk(b"")

    def _events(self, received: Received, wire: Wire) -> Iterator[str]:
        asked = received.json
        envelope = _envelope("chat.completion.chunk", received)
        usage = default_usage(asked, "".join(self.pieces)) if self.usage == "counted" else self.usage
        for piece in self.pieces:
            told = {"refusal": piece} if self.refusal else {"content": piece}
            early = {"usage": usage} if self.usage_twice else {}
            yield json.dumps(envelope | _choice(told, None) | early)
        if self.error is not None:
            yield json.dumps({"error": self.error})
        if self.error is not None or self.cut:
            return
        if self.finish_reason is not None:
            yield json.dumps(envelope | _choice({}, self.finish_reason))
        if usage is not None and (asked.get("stream_options") or {}).get("include_usage"):
            with wire.booking(usage):
                yield json.dumps(envelope | {"choices": [], "usage": usage})
        if self.done:
            yield "[DONE]"


@frozen
class Status:
    """An HTTP error in OpenAI's shape. *body* replaces the JSON."""

    status: int
    message: str = "something is wrong"
    code: str | None = None
    type: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes | None = None
    delay: float = 0.0

    def play(self, received: Received, wire: Wire) -> None:
        facts = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        wire.wait(self.delay)
        body = json.dumps({"error": facts}).encode() if self.body is None else self.body
        wire.respond(self.status, body, received, self.headers)


def RateLimit(retry_after: float | str | None = None, **facts: Any) -> Status:
    """429, with Retry-After if given."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Status(429, "Rate limit reached", "rate_limit_exceeded", "requests", headers=headers, **facts)


def Quota() -> Status:
    """429, which no retry helps."""
    return Status(429, "You exceeded your current quota", "insufficient_quota", "insufficient_quota")


@frozen
class Drop:
    """Close the connection ``"before"`` the header, after the ``"headers"``, or in the mid ``"body"``."""

    when: str = "before"
    delay: float = 0.0

    def play(self, received: Received, wire: Wire) -> None:
        wire.wait(self.delay)
        if self.when != "before":
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n")
        if self.when == "body":
            wire.send(b'{"id": "x", "choices": [{"mess')
        wire.close()


@frozen
class Body:
    """A well-formed response around any *body*."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)

    def play(self, received: Received, wire: Wire) -> None:
        wire.respond(self.status, self.body, received, {"Content-Type": self.content_type, **self.headers})


@frozen
class Raw:
    """Any bytes, then the end of the connection. With *pace*, one byte at a time."""

    data: bytes
    pace: float | None = None
    keep: bool = False

    def play(self, received: Received, wire: Wire) -> None:
        if self.pace is None:
            wire.send(self.data)
        else:
            for byte in self.data:
                wire.send(bytes([byte]))
                wire.wait(self.pace)
        if not self.keep:
            wire.close()


def SlowHeader(pace: float = 0.02) -> Raw:
    """A header that never ends, byte by byte."""
    return Raw(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000, pace)


def SlowBody(pace: float = 0.02, status: int = 200) -> Raw:
    """A body that hardly comes, byte by byte after a prompt header."""
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n".encode()
    return _Prompt(head + b" " * 10_000, pace, prompt=len(head))


@frozen
class _Prompt(Raw):
    prompt: int = 0

    def play(self, received: Received, wire: Wire) -> None:
        wire.send(self.data[: self.prompt])
        Raw(self.data[self.prompt :], self.pace).play(received, wire)


def Redirect(location: str, status: int = 307) -> Body:
    """A redirect to *location*."""
    return Body(b"", "text/plain", status, {"Location": location})


def GzipBomb(size: int) -> Body:
    """A small body that unpacks to *size* bytes."""
    return Body(gzip.compress(b" " * size), headers={"Content-Encoding": "gzip"})


def _envelope(kind: str, received: Received) -> dict[str, Any]:
    model = received.json.get("model", "")
    return {"id": f"chatcmpl-{received.number}", "object": kind, "created": 0, "model": model}


def _choice(delta: Mapping[str, Any], finish: str | None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
