"""A small OpenAI-compatible HTTP server for tests: scripted answers, real sockets, exact records.

::

    with Server([Answer("tea"), RateLimit(retry_after=0.05), Drop(), Stream(["a", "b"])]) as server:
        ...  # base_url=server.url, api_key=server.key
        assert server.requests[0].json["model"] == "m"
        assert server.sent_usage == [...]

The script is a list, played in order whatever connection asks, or a function of the request; when the
list is used up, every request gets ``Answer()``, whose text and tokens follow from the request.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Self

from server_script import (
    Answer,
    Body,
    Closed,
    Drop,
    GzipBomb,
    Quota,
    RateLimit,
    Raw,
    Received,
    Redirect,
    SlowBody,
    SlowHeader,
    Status,
    Step,
    Stream,
    Wire,
    default_text,
    default_usage,
)

__all__ = [
    "KEY",
    "Answer",
    "Body",
    "Drop",
    "GzipBomb",
    "Quota",
    "RateLimit",
    "Raw",
    "Received",
    "Redirect",
    "Server",
    "SlowBody",
    "SlowHeader",
    "Status",
    "Step",
    "Stream",
    "default_text",
    "default_usage",
]

KEY = "sk-test-canary-0123456789abcdef"
Script = Iterable[Step] | Callable[[Received], Step]


class Server:
    """The server; use it as a context manager. Its records may be read at any time."""

    def __init__(
        self,
        script: Script = (),
        *,
        keys: Iterable[str] | None = (KEY,),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[Received] = []
        self.sent_usage: list[Any] = []
        self.connections = 0
        self.open_connections = 0
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.key = KEY
        self._keys = None if keys is None else {f"Bearer {key}" for key in keys}
        self._script = script if callable(script) else iter(script)
        self._tls = tls
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._socks: set[socket.socket] = set()

    @property
    def url(self) -> str:
        """The base URL, as a provider takes it."""
        host, port = self._listener.getsockname()
        return f"{'https' if self._tls else 'http'}://{host}:{port}/v1"

    @property
    def total_tokens(self) -> int:
        """The sum of the tokens that answers reported."""
        with self.lock:
            return sum(usage["total_tokens"] for usage in self.sent_usage)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._spawn(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self.lock:
            socks, threads = list(self._socks), list(self._threads)
        for sock in socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)

    def wait_open_connections(self, number: int, timeout: float = 2.0) -> bool:
        """Wait until that many connections are open, and tell whether it came to that."""
        with self._changed:
            return self._changed.wait_for(lambda: self.open_connections == number, timeout)

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        with self.lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._spawn(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with self._changed:
            self.connections += 1
            self.open_connections += 1
            wire = Wire(sock, self.connections, self.stopping, self.lock, self.sent_usage)
            self._changed.notify_all()
        with self.lock:
            self._socks.add(sock)
        try:
            with suppress(Closed, OSError), self._secured(wire) as secured, secured.makefile("rb") as reader:
                while not self.stopping.is_set():
                    self._exchange(reader, wire)
        finally:
            with self.lock:
                self._socks.discard(sock)
            with self._changed:
                self.open_connections -= 1
                self._changed.notify_all()

    def _secured(self, wire: Wire) -> socket.socket:
        if self._tls is not None:
            wire.sock = self._tls.wrap_socket(wire.sock, server_side=True)
        return wire.sock

    def _exchange(self, reader: Any, wire: Wire) -> None:
        line = reader.readline()
        if not line:
            raise Closed
        method, path, _ = line.decode("latin-1").split()
        headers: dict[str, str] = {}
        while (line := reader.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        body = reader.read(length)
        if len(body) < length:  # the client left while it was sending
            raise Closed
        with self.lock:
            received = Received(
                method, path, headers, body, time.monotonic(), wire.number, len(self.requests) + 1
            )
            self.requests.append(received)
            step = self._next(received)
        step.play(received, wire)

    def _next(self, received: Received) -> Step:
        if self._keys is not None and received.headers.get("authorization") not in self._keys:
            told = received.headers.get("authorization", "").removeprefix("Bearer ")
            shown = f"{told[:8]}{'*' * 12}{told[-4:]}"
            message = f"Incorrect API key provided: {shown}. You can find your API key at the usual place."
            return Status(401, message, "invalid_api_key", "invalid_request_error")
        if callable(self._script):
            return self._script(received)
        return next(self._script, None) or Answer()
