"""The body of a response: read as it comes, unpacked, and never more of it than allowed."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from ._openai_faults import garbage, too_large

if TYPE_CHECKING:
    import httpx2

__all__ = ["ENCODING", "achunks", "chunks"]

ENCODING = "gzip"  # asked for: what the standard library unpacks piece by piece
_PIECE = 2**18


def chunks(response: httpx2.Response, limit: int) -> Iterator[bytes]:
    """Read the body in pieces, at most *limit* unpacked bytes.

    Raises:
        ProviderError: it is larger, or packed in a way that can't be read.
    """
    unpacker = _Unpacker(response, limit)
    for data in response.iter_raw():
        yield from unpacker.feed(data)


async def achunks(response: httpx2.Response, limit: int) -> AsyncGenerator[bytes]:
    """Read the body in pieces, at most *limit* unpacked bytes; the response is closed with the generator.

    Raises:
        ProviderError: it is larger, or packed in a way that can't be read.
    """
    unpacker, raw = _Unpacker(response, limit), response.aiter_raw()
    try:
        async for data in raw:
            for number, piece in enumerate(unpacker.feed(data)):
                if number:  # a little that is packed may be a lot
                    await checkpoint()
                yield piece
    finally:  # httpx2 forgets its inner generators, which trio reports: run them into the closed connection
        await response.aclose()
        with suppress(Exception):
            async for _ in raw:
                pass


class _Unpacker:
    """Packed bytes in, unpacked ones out. State: the unpacking, and the bytes so far."""

    def __init__(self, response: httpx2.Response, limit: int) -> None:
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
            raise garbage("the answer's Content-Encoding is none that was asked for; expected " + ENCODING)
        self._zip = None if encoding in ("identity", "") else zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._limit = limit
        self._size = 0
        length = response.headers.get("content-length", "")
        if length.isdecimal():
            self._check(int(length[:20]))

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._zip is None:
            yield self._counted(data)
            return
        while piece := self._inflated(data):
            yield self._counted(piece)
            data = self._zip.unconsumed_tail

    def _inflated(self, data: bytes) -> bytes:
        assert self._zip is not None
        with suppress(zlib.error):
            return self._zip.decompress(data, _PIECE)
        raise garbage("the answer's compression is broken")

    def _counted(self, data: bytes) -> bytes:
        self._size += len(data)
        self._check(self._size)
        return data

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise too_large(self._limit)
