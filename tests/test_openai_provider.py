"""The OpenAI provider over real HTTP: both colours, both backends, friendly and hostile servers."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import attrs
import pytest

from flowlet.errors import ConfigError, ProviderError
from flowlet.messages import Completion, Delta, Message, OutputFormat, Parameters, Request
from flowlet.metrics import UNKNOWN, TokenUsage
from flowlet.protocols import AsyncStreamingProvider, LLMProvider, SyncStreamingProvider
from flowlet.providers import _openai_call, _openai_clients, _openai_faults, _openai_wire
from flowlet.providers._openai_account import Account
from flowlet.providers.openai import OpenAIProvider
from server import (
    Answer,
    Body,
    Drop,
    GzipBomb,
    Quota,
    RateLimit,
    Raw,
    Redirect,
    Server,
    SlowBody,
    SlowHeader,
    Status,
    Stream,
)

WAYS = ("sync", "asyncio", "trio")
REQUEST = Request("m-1", (Message("system", "be brief"), Message("user", "say tea")))
HASTY = attrs.evolve(REQUEST, timeout=0.15)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OPENAI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    OpenAIProvider().load()


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[Server, OpenAIProvider]]]:
    """Start servers with their providers; all are closed after the test."""
    opened: list[tuple[Server, OpenAIProvider]] = []

    def start(*script: Any, **options: Any) -> tuple[Server, OpenAIProvider]:
        server = Server(list(script)).__enter__()
        opened.append((server, OpenAIProvider(server.key, server.url, **options)))
        return opened[-1]

    yield start
    for server, provider in opened:
        provider.close()
        server.__exit__()


class Caller:
    """Calls a provider in one of the three ways."""

    def __init__(self, way: str) -> None:
        self.way = way

    def ask(self, provider: OpenAIProvider, request: Request = REQUEST) -> Completion:
        if self.way == "sync":
            return provider.complete(request)
        return anyio.run(provider.acomplete, request, backend=self.way)

    def listen(
        self, provider: OpenAIProvider, request: Request = REQUEST, heard: list[Delta] | None = None
    ) -> list[Delta]:
        heard = [] if heard is None else heard

        async def main() -> None:
            async with provider.astream(request) as deltas:
                async for delta in deltas:
                    heard.append(delta)

        if self.way == "sync":
            with provider.stream(request) as deltas:
                for delta in deltas:
                    heard.append(delta)
        else:
            anyio.run(main, backend=self.way)
        return heard

    def fail(self, provider: OpenAIProvider, request: Request = REQUEST) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            self.ask(provider, request)
        return checked(caught.value, provider)

    def fail_listening(self, provider: OpenAIProvider, request: Request = REQUEST) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            self.listen(provider, request)
        return checked(caught.value, provider)


def checked(error: ProviderError, provider: OpenAIProvider) -> ProviderError:
    """Assert what holds for every error: no key anywhere, nothing hanging on it, one that can be pickled."""
    assert error.provider == "openai"
    assert error.__context__ is None
    assert error.__cause__ is None
    frames = traceback.walk_tb(error.__traceback__)
    locals_ = [repr(f.f_locals) for f, _ in frames if "flowlet" in Path(f.f_code.co_filename).parts]
    shown = "\n".join([str(error), repr(error), *traceback.format_exception(error), *locals_])
    assert provider.api_key is not None
    assert provider.api_key[:12] not in shown
    assert attrs.astuple(pickle.loads(pickle.dumps(error))) == attrs.astuple(error)
    return error


@pytest.fixture(params=WAYS)
def caller(request: pytest.FixtureRequest) -> Caller:
    """One of the ways to call."""
    return Caller(request.param)


def completion(**changes: Any) -> bytes:
    """A good answer's body, with parts replaced."""
    message = {"role": "assistant", "content": "tea"} | changes.pop("message", {})
    choice = {"index": 0, "message": message, "finish_reason": "stop"} | changes.pop("choice", {})
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    return json.dumps({"id": "c-1", "model": "m-1", "choices": [choice], "usage": usage} | changes).encode()


# -- answers ---------------------------------------------------------------------------------------


def test_answer_has_text_tokens_and_facts(serve, caller):
    """A plain answer comes with its text, tokens, model, finish reason and request id."""
    server, provider = serve()
    assert caller.ask(provider) == Completion(
        "echo: say tea", TokenUsage(4, 3, 7), "m-1", "stop", server.requests[0].request_id
    )
    assert server.total_tokens == 7


def test_request_carries_only_what_was_set(serve, caller):
    """Parameters that are None are not sent."""
    server, provider = serve()
    caller.ask(provider)
    assert server.requests[0].json == {
        "model": "m-1",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "say tea"},
        ],
    }
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.requests[0].headers["authorization"] == f"Bearer {server.key}"


def test_parameters_and_extra_are_sent(serve, caller):
    """Every parameter has its field, and extra ones go in as they are."""
    server, provider = serve()
    parameters = Parameters(0.5, 9, 0.9, 7, ("END",), {"reasoning_effort": "low"})
    caller.ask(provider, attrs.evolve(REQUEST, parameters=parameters))
    sent = server.requests[0].json
    del sent["messages"], sent["model"]
    assert sent == {
        "temperature": 0.5,
        "max_tokens": 9,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["END"],
        "reasoning_effort": "low",
    }


def test_openai_itself_gets_max_completion_tokens():
    """OpenAI's newer models refuse max_tokens; other servers know nothing else."""
    request = attrs.evolve(REQUEST, parameters=Parameters(max_tokens=9))
    assert json.loads(_openai_wire.encode(request, official=True, stream=False))["max_completion_tokens"] == 9
    assert Account.of("k").official
    assert Account.of("k", "https://eu.api.openai.com/v1").official
    assert not Account.of("k", "https://api.openai.com.evil.example/v1").official


@pytest.mark.parametrize(
    ("mode", "sent"),
    [
        (
            "json_schema",
            {"type": "json_schema", "json_schema": {"name": "list_A_", "schema": SCHEMA, "strict": True}},
        ),
        ("json_object", {"type": "json_object"}),
        ("prompt", None),
    ],
)
def test_output_modes(serve, mode, sent):
    """Each way to ask for JSON has its response_format; names are made fit."""
    server, provider = serve()
    provider.complete(attrs.evolve(REQUEST, output=OutputFormat("list[A]", SCHEMA, mode)))
    assert server.requests[0].json.get("response_format") == sent


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "refusal"),
        ("refusal", "refusal"),
        ("tool_calls", "other"),
        (None, "other"),
    ],
)
def test_finish_reasons(serve, reason, expected):
    """Finish reasons have four neutral names, streamed or not."""
    _, provider = serve(Answer("x", finish_reason=reason), Stream(["x"], finish_reason=reason))
    assert provider.complete(REQUEST).finish_reason == expected
    assert Caller("sync").listen(provider)[-1].finish_reason == (expected if reason else None)


def test_refusal_is_told(serve, caller):
    """What the model says instead of an answer is the refusal."""
    _, provider = serve(Answer(None, refusal="I can't"), Stream(["I ", "can't"], refusal=True))
    answer = caller.ask(provider)
    assert (answer.text, answer.refusal, answer.finish_reason) == ("", "I can't", "refusal")
    deltas = caller.listen(provider)
    assert [d.refusal for d in deltas] == ["I ", "can't", None]
    assert deltas[-1].finish_reason == "refusal"


def test_usage_details(serve):
    """Cached and reasoning tokens are read from the details."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    _, provider = serve(Answer("x", usage=usage))
    assert provider.complete(REQUEST).usage == TokenUsage(10, 5, 15, 8, 3, "provider")


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "lots",
        [],
        {},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": "5", "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": 2**70, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": -2},
    ],
)
def test_bad_usage_is_unknown_not_a_failure(serve, usage):
    """An answer without believable tokens is an answer, its tokens unknown."""
    _, provider = serve(Body(completion(usage=usage)), Stream(["x"], usage=usage))
    assert provider.complete(REQUEST).usage == UNKNOWN
    assert Caller("sync").listen(provider)[-1].usage == UNKNOWN


def test_missing_total_and_bad_details_are_mended():
    """The total is the sum, and details that are none count nothing."""
    told = {"prompt_tokens": 2, "completion_tokens": 3, "prompt_tokens_details": "x"}
    told["completion_tokens_details"] = {"reasoning_tokens": -1}
    assert _openai_wire.usage_of(told) == TokenUsage(2, 3, 5)


# -- streams ---------------------------------------------------------------------------------------


def test_stream_gives_pieces_then_tokens(serve, caller):
    """Pieces come as they are sent; tokens and finish reason come once, with the last delta."""
    server, provider = serve(Stream(["te", "a ☕"]))
    deltas = caller.listen(provider)
    assert [d.text for d in deltas] == ["te", "a ☕", ""]
    assert [d.usage for d in deltas] == [None, None, TokenUsage(4, 2, 6)]
    assert deltas[-1].finish_reason == "stop"
    assert {(d.model, d.request_id) for d in deltas} == {("m-1", server.requests[0].request_id)}
    assert server.requests[0].json["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    "script",
    [
        Stream(["te", "a"], usage_twice=True),
        Stream(["te", "a"], newline="\r\n"),
        Stream(["te", "a"], newline="\r"),
        Stream(["te", "a"], done=False),
        Stream(["te", "a"], finish_reason=None),
        Answer("tea"),
        Body(completion(usage={"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5})),
    ],
    ids=["usage twice", "crlf", "cr", "no [DONE]", "no finish", "answer", "not streamed"],
)
def test_odd_streams_are_understood(serve, caller, script):
    """What servers do differently changes nothing: the text is whole, tokens count once."""
    _, provider = serve(script)
    deltas = caller.listen(provider)
    assert "".join(d.text for d in deltas) == "tea"
    assert [d.usage for d in deltas if d.usage] == [TokenUsage(4, 1, 5)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_over_any_chunks(size):
    """Events are the same however the bytes are cut: comments, multi-line data, CRLF, split characters."""
    text = (
        "\ufeff: hi\r\ndata: a☕\r\n\r\nevent: x\ndata:b\ndata:  c\n\n\n: keep-alive\n\ndata: d\r\rdata: last"
    )
    data, parser = text.encode(), _openai_wire.EventParser(10**7)
    events = [e for i in range(0, len(data), size) for e in parser.feed(data[i : i + size])]
    assert [*events, *parser.feed(b"", final=True)] == ["a☕", "b\n c", "d", "last"]


def test_long_line_in_small_chunks_is_linear():
    """A line of megabytes that comes in small pieces is read in a moment."""
    parser, start = _openai_wire.EventParser(10**7), time.perf_counter()
    for _ in range(20_000):
        assert not list(parser.feed(b"x" * 200))
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("script", "kind", "retryable"),
    [
        (Stream(["a"], done=False, finish_reason=None), "bad_response", True),
        (Stream(["a"], cut=True), "connection", True),
        (Stream(["a"], error={"message": "overloaded", "type": "server_error"}), "server", True),
        (Stream(["a"], error={"message": "no", "code": "insufficient_quota"}), "quota", False),
        (Stream(["a"], error={"message": "wait", "code": 429}), "rate_limit", True),
        (Body(b"", "text/event-stream"), "bad_response", True),
        (Body(b"data: {cut", "text/event-stream"), "bad_response", True),
        (Body(b"<html>hi</html>", "text/html"), "bad_response", True),
        (Body(b"data: {nope\n\n", "text/event-stream"), "bad_response", True),
        (Body(b"data: [1]\n\n", "text/event-stream"), "bad_response", True),
        (Body(b'data: {"choices": 5}\n\n', "text/event-stream"), "bad_response", True),
        (
            Body(b'data: {"choices": [{"delta": {"content": 5}}]}\n\n', "text/event-stream"),
            "bad_response",
            True,
        ),
        (Body(b"data: " + b"[" * 100_000 + b"\n\n", "text/event-stream"), "bad_response", True),
        (Body(b'{"error": {"message": "no", "type": "server_error"}}'), "server", True),
        (RateLimit(3), "rate_limit", True),
        (Drop("headers"), "connection", True),
    ],
)
def test_broken_streams(serve, caller, script, kind, retryable):
    """A stream that breaks is one typed error."""
    _, provider = serve(script)
    error = caller.fail_listening(provider)
    assert (error.kind, error.retryable) == (kind, retryable)


def test_pieces_before_a_break_are_given(serve, caller):
    """What came before the connection broke has been handed out."""
    _, provider = serve(Stream(["a", "b"], cut=True))
    heard: list[Delta] = []
    with pytest.raises(ProviderError):
        caller.listen(provider, heard=heard)
    assert [delta.text for delta in heard] == ["a", "b"]


def test_stream_cut_after_its_end_is_whole():
    """An unreadable rest after the finish reason costs the tokens, not the answer."""
    reader = _openai_wire.StreamReader(None, "m", 10**6)
    chunk = {"choices": [{"delta": {"content": "tea"}, "finish_reason": "stop"}]}
    deltas = reader.feed(f'data: {json.dumps(chunk)}\n\ndata: {{"usa'.encode()) + reader.end()
    assert [(d.text, d.usage) for d in deltas] == [("tea", None), ("", UNKNOWN)]


def test_end_needs_no_newline():
    """The last line of a stream counts, ended or not."""
    reader = _openai_wire.StreamReader(None, "m", 10**6)
    reader.feed(b'data: {"choices": [{"delta": {"content": "tea"}}]}\n\ndata: [DONE]')
    assert reader.end()[-1].usage == UNKNOWN


def test_other_choices_and_keep_alives_are_skipped():
    """Only the first choice is the answer, and chunks that say nothing give nothing."""
    reader = _openai_wire.StreamReader("r", "m", 10**6)
    assert not reader.feed(b'data: {}\n\ndata: {"choices": null}\n\ndata: {"choices": [{"delta": null}]}\n\n')
    assert not reader.feed(b'data: {"choices": [{"index": 1, "delta": {"content": "x"}}]}\n\n')
    assert reader.feed(b"data: [DONE]\n\ndata: {nonsense\n\n")[-1].usage == UNKNOWN


def test_leaving_a_stream_closes_the_connection(serve, caller):
    """A stream left early does not go on behind the caller's back."""
    server, provider = serve(Stream(["x"] * 1000, pace=0.005))

    async def main() -> None:
        async with provider.astream(REQUEST) as deltas:
            async for _ in deltas:
                break
        assert await anyio.to_thread.run_sync(server.wait_open_connections, 0)

    if caller.way == "sync":
        with provider.stream(REQUEST) as deltas:
            next(deltas)
        assert server.wait_open_connections(0)
    else:
        anyio.run(main, backend=caller.way)


def test_stream_never_read_closes_the_connection(serve, caller):
    """A stream that nobody iterates is closed too."""
    server, provider = serve(Stream(["x"] * 1000, pace=0.005))

    async def main() -> None:
        async with provider.astream(REQUEST):
            pass
        assert await anyio.to_thread.run_sync(server.wait_open_connections, 0)

    if caller.way == "sync":
        with provider.stream(REQUEST):
            pass
        assert server.wait_open_connections(0)
    else:
        anyio.run(main, backend=caller.way)


def test_callers_error_in_a_stream_passes_unchanged(serve, caller):
    """An error of the caller's own leaves the stream as it is, and closes it."""
    server, provider = serve(Stream(["x"] * 1000, pace=0.005))

    async def main() -> None:
        async with provider.astream(REQUEST) as deltas:
            async for _ in deltas:
                raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        if caller.way == "sync":
            with provider.stream(REQUEST) as deltas:
                for _ in deltas:
                    raise LookupError("mine")
        else:
            anyio.run(main, backend=caller.way)
    assert server.wait_open_connections(0)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "kind", "retryable"),
    [
        (Status(400), "bad_request", False),
        (Status(400, "Invalid schema for response_format 'x'"), "unsupported", False),
        (Status(400, "no", param="response_format"), "unsupported", False),
        (Status(422, "json_schema is not supported"), "unsupported", False),
        (Status(401), "authentication", False),
        (Status(402), "quota", False),
        (Status(403), "permission", False),
        (Status(404), "not_found", False),
        (Status(408), "timeout", True),
        (Status(409), "other", True),
        (Status(413), "bad_request", False),
        (Status(422), "bad_request", False),
        (RateLimit(), "rate_limit", True),
        (Quota(), "quota", False),
        (Status(500), "server", True),
        (Status(503, headers={"Retry-After": "2"}), "server", True),
        (Status(529), "server", True),
        (Drop("before"), "connection", True),
        (Drop("headers"), "connection", True),
        (Drop("body"), "connection", True),
        (Raw(b"SSH-2.0-OpenSSH_9\r\n\r\n"), "connection", True),
        (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), "connection", True),
        (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{}"), "connection", True),
        (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}"), "bad_response", False),
        (Raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000), "connection", True),
        (GzipBomb(64 * 2**20), "bad_response", False),
        (Body(b"not gzip", headers={"Content-Encoding": "gzip"}), "bad_response", True),
        (Body(gzip.compress(completion())[:-20], headers={"Content-Encoding": "gzip"}), "bad_response", True),
        (Body(b"x", headers={"Content-Encoding": "br"}), "bad_response", True),
        (Body(b""), "bad_response", True),
        (Body(b"", status=204), "bad_response", True),
        (Body(b"<html>hi</html>", "text/html"), "bad_response", True),
        (Body(b"null"), "bad_response", True),
        (Body(b"[]"), "bad_response", True),
        (Body(b"{}"), "bad_response", True),
        (Body(b'{"choices": []}'), "bad_response", True),
        (Body(b'{"choices": null}'), "bad_response", True),
        (Body(b'{"choices": {}}'), "bad_response", True),
        (Body(b'{"choices": [null]}'), "bad_response", True),
        (Body(b'{"choices": [{"message": null}]}'), "bad_response", True),
        (Body(completion(message={"content": 5})), "bad_response", True),
        (Body(completion(message={"content": ["x"]})), "bad_response", True),
        (Body(completion(choice={"finish_reason": 5})), "bad_response", True),
        (Body(completion()[:-10]), "bad_response", True),
        (Body(b'{"a":' * 100_000), "bad_response", True),
        (Body(b"[" * 100_000), "bad_response", True),
        (Body(b"9" * 10_000), "bad_response", True),
        (Body(b'{"error": {"message": "no", "code": "invalid_api_key"}}'), "authentication", False),
        (Body(b'{"error": {"message": "no", "code": 503}}'), "server", True),
        (Body(b'{"error": {"message": "no", "type": "overloaded_error"}}'), "server", True),
        (Body(b'{"error": "no"}'), "bad_response", False),
        (Body(b'{"error": ["no"]}'), "bad_response", False),
        (Body(b'{"object": "error", "message": "no", "code": 400}'), "bad_request", False),
        (Redirect("http://127.0.0.1:1/v1"), "bad_response", False),
        (Status(500, body=b"[" * 100_000), "server", True),
        (Status(500, body=b"<html>oops</html>"), "server", True),
        (Status(400, body=b'{"detail": [{"msg": "bad", "type": "x"}]}'), "bad_request", False),
        (Status(400, body=b'[{"error": {"message": "bad"}}]'), "bad_request", False),
        (
            Status(400, body=b'{"error": {"message": 5, "code": [1], "type": {}, "param": 1}}'),
            "bad_request",
            False,
        ),
        (Status(400, body=b"\xff\xfe\x00"), "bad_request", False),
        (Status(401, body=b"x" * 10 * 2**20), "authentication", False),
    ],
)
def test_every_failure_is_one_typed_error(serve, caller, script, kind, retryable):
    """Whatever a server does, the caller gets one ProviderError that says whether to try again."""
    _, provider = serve(script)
    error = caller.fail(provider)
    assert (error.kind, error.retryable) == (kind, retryable), error


def test_connection_is_fine_after_failures(serve):
    """A refusal leaves the client usable, and the connection where it was answered in full."""
    server, provider = serve(Status(500), Status(429), Drop(), Answer("tea"))
    for _ in range(3):
        Caller("sync").fail(provider)
    assert provider.complete(REQUEST).text == "tea"
    assert server.connections <= 4


@pytest.mark.parametrize(
    "body",
    [
        completion(message={"content": None}),
        completion(message={"content": None}, choice={"finish_reason": "length"}),
        completion(message={"content": ""}),
        completion(error=None),
        b"\xef\xbb\xbf" + completion(message={"content": ""}),
    ],
)
def test_null_content_is_an_empty_answer(serve, body):
    """An answer without content was paid for: its tokens are kept, its text is empty."""
    _, provider = serve(Body(body))
    answer = provider.complete(REQUEST)
    assert answer.text == ("tea" if b'"error"' in body else "")
    assert answer.usage == TokenUsage(5, 1, 6)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (rb'"a\ud800b"', "a\ufffdb"),
        (b'"a\xffb"', "a\ufffdb"),
        (rb'"\ud83d\ude00"', "😀"),
        (rb'"\u0000"', "\0"),
    ],
)
def test_text_can_always_be_encoded(serve, content, text):
    """Lone surrogates and invalid UTF-8 become replacement characters."""
    body = completion().replace(b'"tea"', content)
    _, provider = serve(
        Body(body), Body(b"data: " + body.replace(b"message", b"delta") + b"\n\n", "text/event-stream")
    )
    answer = provider.complete(REQUEST).text
    assert answer == text
    assert answer.encode()
    assert Caller("sync").listen(provider)[0].text == text


def test_schemas_may_be_any_mapping():
    """A read-only schema is sent like any other."""
    request = attrs.evolve(REQUEST, output=OutputFormat("a", MappingProxyType(SCHEMA)))
    sent = json.loads(_openai_wire.encode(request, official=True, stream=False))
    assert sent["response_format"]["json_schema"]["schema"] == SCHEMA


def test_lone_surrogates_in_a_prompt_are_sent_replaced(serve, caller):
    """A prompt that UTF-8 can't carry does not stop a call."""
    server, provider = serve()
    caller.ask(provider, attrs.evolve(REQUEST, messages=(Message("user", "a\ud800b"),)))
    assert server.requests[0].json["messages"][0]["content"] == "a?b"


def test_what_json_cannot_carry_is_a_provider_error(serve, caller):
    """A request that can't be written is an error of the same type, nothing is sent."""
    server, provider = serve()
    for extra in ({"x": {1, 2}}, {"x": float("nan")}):
        request = attrs.evolve(REQUEST, parameters=Parameters(extra=extra))
        assert not caller.fail(provider, request).retryable
    assert not server.requests


def test_facts_of_an_error(serve, caller):
    """Status, code, request id and Retry-After are told."""
    server, provider = serve(RateLimit(retry_after=1.5))
    error = caller.fail(provider)
    assert (error.status, error.code, error.retry_after) == (429, "rate_limit_exceeded", 1.5)
    assert error.request_id == server.requests[0].request_id
    assert error.message == "Rate limit reached"


def test_unknown_model_names_model_and_address(serve, caller):
    """A 404 says which model was asked for, and where."""
    server, provider = serve(Status(404, "The model does not exist", "model_not_found"))
    error = caller.fail(provider)
    assert "'m-1'" in str(error)
    assert server.url in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "Fri, 01 Jan 1999 00:00:00 GMT"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 99 Jan 99999999 00:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers, seconds):
    """Retry-After is a number, a date, or in milliseconds; nonsense is as if it were not there."""
    assert _openai_faults.retry_after_of(headers) == seconds


def test_retry_after_date_counts_from_now():
    """A date in the future is the seconds until then."""
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    assert 95 < (_openai_faults.retry_after_of({"retry-after": date}) or 0) <= 100


SDK_KINDS = {
    "APIStatusError": ("server", True),
    "BadRequestError": ("bad_request", False),
    "AuthenticationError": ("authentication", False),
    "OAuthError": ("authentication", False),
    "PermissionDeniedError": ("permission", False),
    "NotFoundError": ("not_found", False),
    "ConflictError": ("other", True),
    "UnprocessableEntityError": ("bad_request", False),
    "RateLimitError": ("rate_limit", True),
    "InternalServerError": ("server", True),
    "APITimeoutError": ("timeout", True),
    "APIConnectionError": ("connection", True),
    "APIResponseValidationError": ("bad_response", True),
    "TimeoutException": ("timeout", True),
    "ConnectTimeout": ("timeout", True),
    "ReadTimeout": ("timeout", True),
    "WriteTimeout": ("timeout", True),
    "PoolTimeout": ("timeout", True),
    "TransportError": ("connection", True),
    "NetworkError": ("connection", True),
    "ConnectError": ("connection", True),
    "ReadError": ("connection", True),
    "WriteError": ("connection", True),
    "CloseError": ("connection", True),
    "ProxyError": ("connection", True),
    "ProtocolError": ("connection", True),
    "RemoteProtocolError": ("connection", True),
    "LocalProtocolError": ("bad_request", False),
    "UnsupportedProtocol": ("bad_request", False),
    "DecodingError": ("bad_response", True),
    "SSEError": ("connection", True),
}


def test_every_sdk_error_is_mapped():
    """Every exception class of openai and httpx2 becomes facts, and none shows the key."""
    import httpx2
    import openai

    key = "sk-canary-0123456789"
    account = Account.of(key, "http://x/v1")
    request = httpx2.Request("POST", "http://x/v1", headers={"Authorization": f"Bearer {key}"})
    seen = {"TooManyRedirects", "HTTPStatusError"}
    for cls in [*_family(openai.OpenAIError), *_family(httpx2.HTTPError)]:
        status = getattr(cls, "status_code", None)
        response = httpx2.Response(status if isinstance(status, int) else 500, request=request)
        error = _openai_call.fault_of(_made(cls, request, response), account, REQUEST)
        assert (error.kind, error.retryable) == SDK_KINDS.get(cls.__name__, ("other", False)), cls
        assert key not in str(error)
        seen.add(cls.__name__)
    assert set(SDK_KINDS) <= seen


def _family(cls: type[Any]) -> list[type[Any]]:
    return [cls, *(found for sub in cls.__subclasses__() for found in _family(sub))]


def _made(cls: type[Any], request: Any, response: Any) -> Exception:
    """An instance of an SDK error, whose constructors differ."""
    error = cls.__new__(cls)
    Exception.__init__(error, "it broke for sk-canary-0123456789")
    vars(error).update(response=response, body={"message": "no"}, status_code=response.status_code)
    return error


# -- secrets ---------------------------------------------------------------------------------------


def test_partial_key_that_the_server_echoes_is_redacted(serve, caller):
    """A 401 echoes the key with stars; the message does not."""
    server, provider = serve()
    other = attrs.evolve(provider, api_key="sk-wrong-canary-key-9876543210")
    error = caller.fail(other)
    assert error.kind == "authentication"
    assert "[key]" in error.message
    assert "3210" not in str(error)
    assert "OPENAI_API_KEY" in str(error)
    assert server.requests[0].headers["authorization"].endswith("3210")
    other.close()


@pytest.mark.parametrize("key", ["canary-KEY-0123456789-xyz", "shortkey", "sk-proj-abcdefgh_ijkl-mnop"])
def test_redaction(key):
    """The key goes, whole or in part, wherever a server puts it."""
    error = ProviderError("other", f"bad {key} and {key[:8]}****wxyz", code=key, request_id=f"r-{key}")
    clean = _openai_faults.redacted(error, key)
    assert key not in str(clean)
    assert "wxyz" not in str(clean)
    assert clean.message.replace("[redacted]", "[key]").startswith("bad [key] and")


def test_repr_never_shows_the_key(serve):
    """A provider can be logged."""
    _, provider = serve()
    assert provider.api_key not in repr(provider)
    assert provider.api_key not in repr(Account.of(provider.api_key))


def test_redirects_do_not_forward_the_key(serve, caller):
    """A redirect is an error; the other server never hears of the request."""
    target, _ = serve()
    server, provider = serve(Redirect(f"{target.url}/chat/completions?token=t"))
    error = caller.fail(provider)
    assert "token" not in error.message
    assert "base_url" in error.message
    assert not target.requests
    assert len(server.requests) == 1


def test_control_characters_of_a_server_do_not_reach_messages(serve):
    """Messages are one printable line of limited length."""
    _, provider = serve(Status(500, "a\x1b[31m\r\nb" + "x" * 10_000))
    error = Caller("sync").fail(provider)
    assert error.message.startswith("a [31m b")
    assert len(error.message) <= 500


# -- configuration ---------------------------------------------------------------------------------


def test_environment_is_used(serve, monkeypatch):
    """Key, address, organisation and project come from the environment at the time of the call."""
    server, _ = serve()
    provider = OpenAIProvider()
    monkeypatch.setenv("OPENAI_API_KEY", f" {server.key}\n")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj")
    provider.complete(REQUEST)
    headers = server.requests[0].headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org", "proj")
    assert headers["authorization"] == f"Bearer {server.key}"
    provider.close()


def test_missing_key_says_what_to_do():
    """Without a key, OpenAI itself can't be asked."""
    with pytest.raises(ConfigError, match="set OPENAI_API_KEY"):
        OpenAIProvider().complete(REQUEST)
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL"), OpenAIProvider().stream(REQUEST):
        pass


def test_compatible_server_needs_no_key():
    """Elsewhere, a call without a key is sent."""
    with Server(keys=None) as server:
        provider = OpenAIProvider(base_url=server.url)
        assert provider.complete(REQUEST).text == "echo: say tea"
        provider.close()


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://x", "http://", "http://x:port", "http://[::1", "nonsense", "http://me:pw@x/v1"],
)
def test_bad_address_is_a_config_error(url):
    """An address that is none is told before anything is sent."""
    with pytest.raises(ConfigError, match="base_url"):
        OpenAIProvider("k", url).complete(REQUEST)


@pytest.mark.parametrize("key", ["sk-ca\nnary", "sk-canäry"])
def test_key_that_no_header_can_carry(key):
    """A key with foreign characters is told without showing it."""
    with pytest.raises(ConfigError, match="api_key") as caught:
        OpenAIProvider(key).complete(REQUEST)
    assert "sk-ca" not in str(caught.value)


def test_refused_connection(caller):
    """Nobody listening is a connection fault."""
    provider = OpenAIProvider("canary-key-0123456789", "http://127.0.0.1:9/v1")
    error = caller.fail(provider)
    assert (error.kind, error.retryable) == ("connection", True)
    assert "127.0.0.1:9" in error.message


def test_provider_fits_the_protocols():
    """The provider is one by the runtime's measure, and says how it can be asked for JSON."""
    provider: LLMProvider = OpenAIProvider()
    sync: SyncStreamingProvider = OpenAIProvider()
    asynchronous: AsyncStreamingProvider = OpenAIProvider()
    assert provider.name == sync.name == asynchronous.name == "openai"
    assert OpenAIProvider().structured_output == "json_schema"


def test_import_is_late():
    """Importing the provider, and making one, imports neither openai nor httpx2."""
    code = (
        "import sys; from flowlet.providers.openai import OpenAIProvider; OpenAIProvider();"
        "assert not {'openai', 'httpx2', 'httpcore2'} & set(sys.modules);"
        "OpenAIProvider().load(); assert 'openai' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [SlowHeader(), SlowBody(), SlowBody(status=500), Answer(delay=30), Raw(b"", keep=True)],
    ids=["header", "body", "error body", "late", "silent"],
)
def test_deadline_bounds_the_whole_answer(serve, caller, script):
    """However slowly bytes drip, the call ends at its deadline."""
    _, provider = serve(script)
    start = time.monotonic()
    error = caller.fail(provider, HASTY)
    assert (error.kind, error.retryable) == ("timeout", True)
    assert 0.1 < time.monotonic() - start < 0.6
    assert "0.15 s" in error.message


@pytest.mark.parametrize("script", [Stream(["x"] * 1000, pace=0.02), Stream(["x"], delay=30), SlowHeader()])
def test_deadline_bounds_streams(serve, caller, script):
    """A stream that goes on and on ends at its deadline."""
    _, provider = serve(script)
    start = time.monotonic()
    assert caller.fail_listening(provider, HASTY).kind == "timeout"
    assert 0.1 < time.monotonic() - start < 0.6


def test_deadline_may_be_infinite(serve, caller):
    """No deadline is a deadline that never comes."""
    _, provider = serve()
    assert caller.ask(provider, attrs.evolve(REQUEST, timeout=float("inf"))).text == "echo: say tea"


def test_body_that_never_ends_after_done_does_not_hang(serve, caller, monkeypatch):
    """After [DONE] the rest is waited for only a moment."""
    monkeypatch.setattr(_openai_call, "_DRAIN", 0.05)
    chunk = b'data: {"choices": [{"delta": {"content": "tea"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100000\r\n\r\n"
    _, provider = serve(Raw(head + chunk, keep=True))
    start = time.monotonic()
    assert [d.text for d in caller.listen(provider)] == ["tea", ""]
    assert time.monotonic() - start < 0.5


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for 127.0.0.1 and its key, as files."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command = [
        "openssl",
        "req",
        "-x509",
        *curve,
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-days",
        "2",
        *names,
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_deadline_and_streams_over_tls(caller, certificate, monkeypatch):
    """Encrypted connections keep the deadline too, and are closed when a stream is left."""
    trusting = ssl.create_default_context(cafile=certificate[0])
    monkeypatch.setattr(_openai_clients, "_tls", lambda: trusting)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    with Server([Answer("tea"), Stream(["te", "a"]), SlowBody()], tls=tls) as server:
        provider = OpenAIProvider(server.key, server.url)
        assert caller.ask(provider).text == "tea"
        assert "".join(delta.text for delta in caller.listen(provider)) == "tea"
        assert caller.fail(provider, HASTY).kind == "timeout"
        provider.close()


@pytest.mark.anyio
async def test_cancelled_call_is_cancelled_not_an_error(serve):
    """Cancellation passes through, and closes the connection."""
    server, provider = serve(Answer(delay=30))
    with anyio.move_on_after(0.1) as scope:
        await provider.acomplete(REQUEST)
    assert scope.cancelled_caught
    server.stopping.set()
    assert await anyio.to_thread.run_sync(server.wait_open_connections, 0)


# -- size ------------------------------------------------------------------------------------------


def test_byte_cap(serve, caller):
    """Answers larger than the limit are refused, streamed or not, and not asked for again."""
    server, provider = serve(Answer("x" * 5000), Stream(["x" * 100] * 100), max_bytes=4000)
    assert caller.fail(provider).kind == "bad_response"
    error = caller.fail_listening(provider)
    assert (error.kind, error.retryable) == ("bad_response", False)
    assert "4000 bytes" in error.message
    assert len(server.requests) == 2


def test_gzip_answer(serve, caller):
    """Compressed answers are read."""
    _, provider = serve(Body(gzip.compress(completion()), headers={"Content-Encoding": "gzip"}))
    assert caller.ask(provider).text == "tea"


# -- clients ---------------------------------------------------------------------------------------


def test_sync_calls_share_a_connection(serve):
    """Calls one after the other, whole or streamed, from any provider and thread, use one connection."""
    server, provider = serve()
    for _ in range(3):
        provider.complete(REQUEST)
        Caller("sync").listen(OpenAIProvider(server.key, server.url))
        thread = threading.Thread(target=provider.complete, args=[REQUEST])
        thread.start()
        thread.join()
    assert len(server.requests) == 9
    assert server.connections == 1


@pytest.mark.anyio
async def test_async_calls_share_a_connection(serve):
    """Calls one after the other, whole or streamed, use one connection and one client of the loop."""
    server, provider = serve()
    for _ in range(3):
        await provider.acomplete(REQUEST)
        async with provider.astream(REQUEST) as deltas:
            assert [d async for d in deltas]
    assert len(server.requests) == 6
    assert server.connections == 1
    account = Account.of(server.key, server.url)
    assert await _openai_clients.async_client(account) is await _openai_clients.async_client(account)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_loops_one_after_the_other(serve, backend):
    """Each loop has a client of its own, closed when the loop ends."""
    server, provider = serve()
    clients = []

    async def main() -> None:
        await provider.acomplete(REQUEST)
        clients.append(await _openai_clients.async_client(Account.of(server.key, server.url)))
        assert not clients[-1].is_closed()

    for number in (1, 2, 3):
        anyio.run(main, backend=backend)
        assert server.wait_open_connections(0)
        assert server.connections == number
    assert len(set(map(id, clients))) == 3
    assert all(client.is_closed() for client in clients)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_background_loop_closes_its_client(serve, backend):
    """A loop in a thread of its own serves many calls with one client, and closes it at the end."""
    server, provider = serve()
    with anyio.from_thread.start_blocking_portal(backend) as portal:
        for _ in range(5):
            assert portal.call(provider.acomplete, REQUEST).text == "echo: say tea"
        assert server.connections == 1
        assert server.open_connections == 1
    assert server.wait_open_connections(0)


def test_100_concurrent_sync_calls(serve):
    """The pool does not limit threads."""
    barrier = threading.Barrier(100)

    def once(number: int) -> int:
        barrier.wait(5)
        request = attrs.evolve(REQUEST, messages=(Message("user", f"n{number}"),))
        answer = provider.complete(request)
        assert answer.text == f"echo: n{number}"
        return answer.usage.total_tokens

    server, provider = serve(*[Answer(delay=0.1)] * 100)
    start = time.monotonic()
    with ThreadPoolExecutor(100) as pool:
        assert sum(pool.map(once, range(100))) == server.total_tokens
    assert time.monotonic() - start < 3


@pytest.mark.anyio
async def test_150_concurrent_async_calls(serve):
    """The pool does not limit tasks: all calls are on their way at once."""
    server, provider = serve(*[Answer(delay=0.1)] * 150)
    tokens = []

    async def once(number: int) -> None:
        request = attrs.evolve(REQUEST, messages=(Message("user", f"n{number}"),))
        answer = await provider.acomplete(request)
        assert answer.text == f"echo: n{number}"
        tokens.append(answer.usage.total_tokens)

    async with anyio.create_task_group() as group:
        for number in range(150):
            group.start_soon(once, number)
    assert sum(tokens) == server.total_tokens
    assert server.connections == 150


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_starts_with_clients_of_its_own(serve):
    """A forked child does not use, nor close, its parent's connections."""
    server, provider = serve()
    provider.complete(REQUEST)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if provider.complete(REQUEST).text == "echo: say tea" else 1)
    assert os.waitpid(pid, 0)[1] == 0
    provider.complete(REQUEST)
    assert [r.connection for r in server.requests] == [1, 2, 1]
