"""What a hostile server does to a client, case by case, and what has to become of it.

A case answers a request as a whole or as a stream, as it was asked. Its outcome is a text, or the kind of the one
error; *usage* is what has to be booked.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
from typing import Any

from attrs import frozen

from flowlet.metrics import UNKNOWN, TokenUsage
from flowlet.providers.openai import OpenAIProvider
from server import (
    Body,
    Drop,
    GzipBomb,
    RateLimit,
    Raw,
    Received,
    Redirect,
    SlowBody,
    SlowHeader,
    Step,
    Stream,
)
from server_script import Wire

MIB = 2**20
LARGEST = OpenAIProvider().max_bytes
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
TOLD = TokenUsage(5, 2, 7)
NOTHING = TokenUsage()
SSE = "text/event-stream"
SSE_HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: {SSE}\r\n"


@frozen
class Case:
    """A behaviour of the server and its outcome: the text of an answer, or the kind of an error and whether to retry."""

    name: str
    step: Step
    outcome: str
    retryable: bool | None = None
    usage: TokenUsage = UNKNOWN
    timeout: float = 5.0


@frozen
class Odd:
    """A well-formed answer or stream whose parts are odd. What is given replaces the part, as JSON text."""

    content: str = '"tea"'
    usage: str | None = json.dumps(USAGE)
    finish: str = '"stop"'

    def play(self, received: Received, wire: Wire) -> None:
        usage = "" if self.usage is None else f', "usage": {self.usage}'
        stream = received.json.get("stream", False)
        end = f'"finish_reason": {self.finish}}}]'
        if not stream:
            body = f'{{"choices": [{{"index": 0, "message": {{"content": {self.content}}}, {end}{usage}}}'
            Body(body.encode("utf-8", "surrogatepass")).play(received, wire)
            return
        events = (
            f'{{"choices": [{{"delta": {{"content": {self.content}}}}}]}}',
            f'{{"choices": [{{"delta": {{}}, {end}}}',
            f'{{"choices": []{usage}}}',
            "[DONE]",
        )
        sse = "".join(f"data: {event}\n\n" for event in events)
        Body(sse.encode("utf-8", "surrogatepass"), SSE).play(received, wire)


@frozen(init=False)
class Events:
    """Server-sent events; then the end of the body, or of the connection, or silence."""

    events: tuple[str, ...]
    cut: bool
    keep: bool

    def __init__(self, *events: str, cut: bool = False, keep: bool = False) -> None:
        self.__attrs_init__(events, cut, keep)

    def play(self, received: Received, wire: Wire) -> None:
        wire.begin(received)
        for event in self.events:
            wire.chunk(f"data: {event}\n\n".encode())
        if self.cut:
            wire.close()
        if not self.keep:
            wire.chunk(b"")


@frozen
class Endless:
    """A header, *begin*, and then the same again and again: 100 MB, or until nobody wants more."""

    piece: bytes
    head: str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    begin: bytes = b"\r\n"
    length: bool = False
    pace: float = 0.0

    def play(self, received: Received, wire: Wire) -> None:
        wire.send(self.head.encode() + b"Content-Length: 104857600\r\n" * self.length + self.begin)
        piece = self.piece if self.pace else self.piece * (MIB // 4 // len(self.piece))
        for _ in range(100 * MIB // len(piece)):
            wire.send(piece)
            wire.wait(self.pace)
        wire.close()


@frozen
class Large:
    """A body that is as large as may be: *begin*, *piece* again and again, *end*."""

    begin: bytes
    piece: bytes
    end: bytes = b""
    content_type: str = "application/json"

    def play(self, received: Received, wire: Wire) -> None:
        times = (LARGEST - len(self.begin) - len(self.end)) // len(self.piece)
        Body(self.begin + self.piece * times + self.end, self.content_type).play(received, wire)


@frozen
class Reset:
    """Send *data*, then reset the connection."""

    data: bytes = b""

    def play(self, received: Received, wire: Wire) -> None:
        wire.send(self.data)
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.close()


def head(**fields: str) -> bytes:
    """The header of a 200."""
    lines = {"Content-Type": "application/json"} | {n.replace("_", "-"): v for n, v in fields.items()}
    return ("HTTP/1.1 200 OK\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines.items()) + "\r\n").encode()


def nested(depth: int) -> bytes:
    """Lists in lists."""
    return b"[" * depth + b"]" * depth


def answer(**changes: Any) -> bytes:
    """A good answer's body, with parts replaced."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "tea"}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": USAGE} | changes).encode()


def delta(text: str, **more: Any) -> str:
    """A chunk of a stream."""
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]} | more)


def end(**more: Any) -> str:
    """The chunk that ends the answer of a stream."""
    return json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]} | more)


TOKENS = json.dumps({"choices": [], "usage": USAGE})
DONE = "[DONE]"
ERROR = json.dumps({"error": {"message": "overloaded", "type": "server_error"}})
GZIPPED = {"Content-Encoding": "gzip"}
ABSURD = ("1e9", "-1", "nan", "inf", "9" * 400, "soon", "Fri, 31 Dec 9999 23:59:59 GMT")
AGAIN, NEVER = True, False

ALIKE = [
    # no answer
    Case("empty 200", Body(b""), "bad_response", AGAIN),
    Case("empty stream", Body(b"", SSE), "bad_response", AGAIN),
    Case("204", Body(b"", status=204), "bad_response", AGAIN),
    Case("white space", Body(b" \n" * 500), "bad_response", AGAIN),
    Case("HTML", Body(b"<html><h1>Welcome</h1></html>", "text/html"), "bad_response", AGAIN),
    Case("HTML called JSON", Body(b"<html><h1>Welcome</h1></html>"), "bad_response", AGAIN),
    Case("error under 200", Body(b'{"error": {"message": "no", "type": "server_error"}}'), "server", AGAIN),
    Case("quota under 200", Body(b'{"error": {"code": "insufficient_quota"}}'), "quota", NEVER, NOTHING),
    Case("error text under 200", Body(b'{"error": "no"}'), "bad_response", NEVER),
    Case("no choices", Body(answer(choices=[])), "bad_response", AGAIN, TOLD),
    Case("null choices", Body(answer(choices=None)), "bad_response", AGAIN, TOLD),
    Case("no message", Body(answer(choices=[{}])), "bad_response", AGAIN, TOLD),
    # odd parts
    Case("null content", Odd("null"), "", usage=TOLD),
    Case("missing usage", Odd(usage=None), "tea"),
    Case("null usage", Odd(usage="null"), "tea"),
    Case("negative usage", Odd(usage='{"prompt_tokens": -5, "completion_tokens": 2}'), "tea"),
    Case("string usage", Odd(usage='{"prompt_tokens": "5", "completion_tokens": 2}'), "tea"),
    Case("list of usage", Odd(usage="[5, 2, 7]"), "tea"),
    Case("usage beyond measure", Odd(usage=f'{{"prompt_tokens": {10**30}, "completion_tokens": 2}}'), "tea"),
    Case("infinite usage", Odd(usage='{"prompt_tokens": 1e999, "completion_tokens": 2}'), "tea"),
    Case("lone surrogate", Odd('"te\\ud800a"'), "te\ufffda", usage=TOLD),
    Case("surrogate in UTF-8", Odd('"te\ud800a"'), "te\ufffd\ufffd\ufffda", usage=TOLD),
    Case("control characters", Odd('"\\u0000te\\u001b[31ma\\u202e"'), "\0te\x1b[31ma\u202e", usage=TOLD),
    Case("raw control characters", Odd('"te\x00a"'), "bad_response", AGAIN),
    Case("invalid UTF-8", Body(answer().replace(b"tea", b"te\xff\xfea")), "te\ufffd\ufffda", usage=TOLD),
    Case("UTF-16", Body(answer().decode().encode("utf-16")), "bad_response", AGAIN),
    Case("100k deep", Body(nested(100_000)), "bad_response", AGAIN),
    Case("100k deep within", Body(b'{"x": ' + nested(100_000) + b"}"), "bad_response", AGAIN),
    Case("100k digits", Body(b'{"x": ' + b"9" * 100_000 + b"}"), "bad_response", AGAIN),
    # the transport
    Case("short Content-Length", Body(answer(), headers={"Content-Length": "40"}), "bad_response", AGAIN),
    Case("long Content-Length", Raw(head(Content_Length="4000") + answer()), "connection", AGAIN),
    Case("negative Content-Length", Raw(head(Content_Length="-5")), "connection", AGAIN),
    Case("two Content-Lengths", Raw(head(Content_Length="5, 6") + answer()), "connection", AGAIN),
    Case("broken chunks", Raw(head(Transfer_Encoding="chunked") + b"zz\r\ntea\r\n"), "connection", AGAIN),
    Case("endless chunk size", Raw(head(Transfer_Encoding="chunked") + b"f" * 200_000), "connection", AGAIN),
    Case("no HTTP", Raw(b"SSH-2.0-OpenSSH_9\r\n\r\n"), "connection", AGAIN),
    Case("closed", Drop("before"), "connection", AGAIN),
    Case("closed after the header", Drop("headers"), "connection", AGAIN),
    Case("closed in the body", Drop("body"), "connection", AGAIN),
    Case("reset", Reset(), "connection", AGAIN),
    Case("reset in the header", Reset(b"HTTP/1.1 200 O"), "connection", AGAIN),
    Case("reset after the header", Reset(head(Content_Length="400")), "connection", AGAIN),
    Case("reset in the body", Reset(head(Content_Length="400") + b'{"cho'), "connection", AGAIN),
    Case("another protocol", Raw(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "connection", AGAIN),
    Case("unasked encoding", Body(answer(), headers={"Content-Encoding": "br"}), "bad_response", AGAIN),
    Case("no gzip", Body(answer(), headers=GZIPPED), "bad_response", AGAIN),
    Case("cut gzip", Body(gzip.compress(answer())[:-20], headers=GZIPPED), "bad_response", AGAIN),
    Case("gzip", Body(gzip.compress(answer()), headers=GZIPPED), "tea", usage=TOLD),
    # time
    Case("silence", Raw(b"", keep=True), "timeout", AGAIN, timeout=0.2),
    Case("slow-loris header", SlowHeader(), "timeout", AGAIN, timeout=0.2),
    Case("slow-loris body", SlowBody(), "timeout", AGAIN, timeout=0.2),
    Case("slow-loris error", SlowBody(status=500), "timeout", AGAIN, timeout=0.2),
    Case("100 Continue for ever", Endless(b"HTTP/1.1 100 C\r\n\r\n", "HTTP/1.1 100 C\r\n"), "timeout", AGAIN, timeout=0.2),
    # refusals
    *(Case(f"redirect {status}", Redirect("/v1/elsewhere", status), "bad_response", NEVER) for status in (301, 302, 303, 307, 308)),
    Case("redirect to nonsense", Redirect("http://[::1"), "bad_response", NEVER),
    *(Case(f"Retry-After {after[:20]}", RateLimit(after), "rate_limit", AGAIN, NOTHING) for after in ABSURD),
]  # fmt: skip
"""What ends alike, asked for as a whole or as a stream."""

WHOLE = [
    Case("content is a number", Odd("5"), "bad_response", AGAIN, TOLD),
    Case("finish reason is a list", Odd(finish="[]"), "bad_response", AGAIN, TOLD),
]
"""What a whole answer alone can be."""

STREAMED = [
    Case("content is a number", Odd("5"), "bad_response", AGAIN),
    Case("100k deep event", Events(nested(100_000).decode()), "bad_response", AGAIN),
    Case("no end", Events(delta("tea")), "bad_response", AGAIN),
    Case("no end, with tokens", Events(delta("tea"), TOKENS), "bad_response", AGAIN, TOLD),
    Case("no [DONE]", Events(delta("tea"), end(), TOKENS), "tea", usage=TOLD),
    Case("no finish reason", Events(delta("tea"), TOKENS, DONE), "tea", usage=TOLD),
    Case("cut", Events(delta("tea"), cut=True), "connection", AGAIN),
    Case("cut, with tokens so far", Events(delta("tea", usage=USAGE), cut=True), "connection", AGAIN, TOLD),
    Case("cut after the answer", Events(delta("tea"), end(), cut=True), "tea"),
    Case("cut after the tokens", Events(delta("tea"), end(), TOKENS, cut=True), "tea", usage=TOLD),
    Case("cut after [DONE]", Events(delta("tea"), end(), TOKENS, DONE, cut=True), "tea", usage=TOLD),
    Case("silent after the answer", Events(delta("tea"), end(), keep=True), "tea", timeout=0.2),
    Case("silent after the tokens", Events(delta("tea"), end(), TOKENS, keep=True), "tea", usage=TOLD),
    Case("error within", Events(delta("tea"), ERROR), "server", AGAIN),
    Case("error within, with tokens", Events(delta("tea", usage=USAGE), ERROR), "server", AGAIN, TOLD),
    Case("usage twice", Events(delta("tea", usage=USAGE), end(usage=USAGE), TOKENS, DONE), "tea", usage=TOLD),
    Case("usage after usage", Events(delta("tea"), end(), TOKENS, TOKENS, DONE), "tea", usage=TOLD),
    Case("usage, then none", Events(delta("tea"), end(usage=USAGE), json.dumps({"usage": None}), DONE), "tea", usage=TOLD),
    Case("slow-loris stream", Stream(["x"] * 10_000, pace=0.02), "timeout", AGAIN, timeout=0.2),
    Case("comments for ever", Endless(b": keep-alive\n\n", SSE_HEAD, pace=0.02), "timeout", AGAIN, timeout=0.2),
    Case("packed events", Body(gzip.compress(b"data: {}\n\n" * 10**6), SSE, headers=GZIPPED), "timeout", AGAIN, timeout=0.2),
]  # fmt: skip
"""What a stream alone can be."""

LARGE = [
    Case("100 MB", Endless(b" "), "bad_response", NEVER),
    Case("100 MB, as it says", Endless(b" ", length=True), "bad_response", NEVER),
    Case("100 MB header", Endless(b"x", "HTTP/1.1 200 OK\r\nX: ", b""), "connection", AGAIN),
    Case("100 MB of headers", Endless(b"X: y\r\n", "HTTP/1.1 200 OK\r\n", b""), "connection", AGAIN),
    Case("100 MB of bytes that are no text", Endless(b"\xff"), "bad_response", NEVER),
    Case("error of 100 MB", Endless(b"x", "HTTP/1.1 500 X\r\n"), "server", AGAIN),
    Case("gzip bomb", GzipBomb(100 * MIB), "bad_response", NEVER),
    Case("lists", Large(b'{"x": [', b"[],", b"0]}"), "bad_response", NEVER),
    Case("objects", Large(b'{"x": [', b'{"":0},', b"0]}"), "bad_response", NEVER),
    Case("numbers", Large(b'{"x": [', b"1.5,", b"0]}"), "bad_response", NEVER),
    Case("no text", Large(b'{"x": "', b"\xff"), "bad_response", AGAIN),
    Case("wide text", Large('{"x": "\U0001f375'.encode(), b"a", b'"}'), "bad_response", AGAIN),
]
"""What would fill the memory, whole or streamed."""

LARGE_STREAMED = [
    Case("event of 100 MB", Endless(b"x", SSE_HEAD, begin=b"\r\ndata: "), "bad_response", NEVER),
    Case("100 MB of lines of one event", Endless(b"data:\n", SSE_HEAD), "bad_response", NEVER),
    Case("100 MB of comments", Endless(b": keep-alive" * 10 + b"\n\n", SSE_HEAD), "bad_response", NEVER),
    Case("100 MB of text", Endless(f"data: {delta('tea ' * 1000)}\n\n".encode(), SSE_HEAD), "bad_response", NEVER),
    Case("event of lists", Large(b'data: {"x": [', b"[],", b"0]}\n\n", SSE), "bad_response", NEVER),
]  # fmt: skip
