"""One deadline over the look-up, connects, reads and writes of sync HTTP, whose own timeouts begin anew with each."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, Self

import httpcore2

from .._engine._threads import Latch, started

__all__ = ["Deadline", "PunctualBackend"]

_LONGEST = 10.0**6
_PIECE = 64 * 1024
_SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class Deadline(float):
    """A timeout in seconds that is also a point in time.

    It travels as the timeout of a request, down to the network stream, which asks what is left of it.
    """

    at: float

    def __new__(cls, seconds: float) -> Self:
        self = super().__new__(cls, min(seconds, _LONGEST))
        self.at = time.monotonic() + self
        return self

    def left(self) -> float:
        """Tell the seconds that remain, 0 when it has passed."""
        return max(self.at - time.monotonic(), 0.0)

    def check(self) -> None:
        """Go on while it has not passed.

        Raises:
            TimeoutError: it has.
        """
        if not self.left():
            raise TimeoutError("the deadline has passed")

    def hurry(self, seconds: float) -> None:
        """Let it end in *seconds* at the latest."""
        self.at = min(self.at, time.monotonic() + seconds)


class PunctualBackend(httpcore2.NetworkBackend):
    """Connects like *backend*, with streams that keep a :class:`Deadline`."""

    def __init__(self, backend: httpcore2.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> httpcore2.NetworkStream:
        """Open a connection to the first of the host's addresses that takes one; each gets a part of the time."""
        addresses = _addresses(host, port, timeout) if isinstance(timeout, Deadline) else [host]
        error: httpcore2.NetworkError | httpcore2.TimeoutException | None = None
        for tries in range(len(addresses), 0, -1):
            left = _left(timeout, httpcore2.ConnectTimeout)
            part = None if left is None else left / tries
            try:
                made = self._backend.connect_tcp(addresses[-tries], port, part, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                error = exc
            else:
                return _PunctualStream(made)
        raise error or httpcore2.ConnectError("the host has no address")

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[_SocketOption] | None = None
    ) -> httpcore2.NetworkStream:
        """Open a connection to a socket in the file system."""
        return _PunctualStream(self._backend.connect_unix_socket(path, timeout, socket_options))

    def sleep(self, seconds: float) -> None:
        """Wait between attempts to connect (there is only one)."""
        self._backend.sleep(seconds)


class _PunctualStream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE):
            self._stream.write(buffer[start : start + _PIECE], _left(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = _left(timeout, httpcore2.ConnectTimeout)
        return _PunctualStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(timeout: float | None, late: type[httpcore2.TimeoutException]) -> float | None:
    if not isinstance(timeout, Deadline):
        return timeout
    left = timeout.left()
    if left <= 0:  # 0 would mean "don't wait", and another error
        raise late("the deadline has passed")
    return left


def _addresses(host: str, port: int, deadline: Deadline) -> list[str]:
    """Look *host* up in a thread of its own, which is left behind when it takes too long: it can't be stopped."""
    if _is_address(host):
        return [host]
    found: list[str] = []
    faults: list[Exception] = []
    done = Latch()

    def look_up() -> None:
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(info[4][0]) for info in infos))
        except Exception as exc:  # noqa: BLE001 -- raised in the thread that waits
            faults.append(exc)
        done.set()

    started(look_up, "flowlet look-up")
    if not done.wait(deadline.left()):
        raise httpcore2.ConnectTimeout("the host's name was not looked up in time")
    if faults:
        raise httpcore2.ConnectError(str(faults[0]))
    return found


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False
