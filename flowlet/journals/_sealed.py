"""Rows that can't change unnoticed: JSON, and a digest over it and what it stands on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, TypeGuard, cast

__all__ = ["data", "facts", "listed", "packed", "proven", "seal", "text"]

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def data(text: str) -> bytes:
    """Encode any text there is, lone surrogates and NUL included."""
    return text.encode("utf-8", "surrogatepass")


def text(data: bytes) -> str:
    """Decode what :func:`data` encoded."""
    return data.decode("utf-8", "surrogatepass")


def packed(facts: Mapping[str, object]) -> bytes:
    """Write *facts* as the body of a row."""
    return data(_ENCODER.encode(facts))


def facts(body: bytes) -> dict[str, Any]:
    """Read the body of a row back."""
    return cast("dict[str, Any]", json.loads(text(body)))


def listed(body: bytes) -> list[Any]:
    """Read the body of a row of plain values back."""
    return cast("list[Any]", json.loads(text(body)))


def seal(ground: bytes, body: bytes) -> bytes:
    """Tell the 16 bytes that prove *body*, and that it stands on *ground* (64 bytes at most)."""
    return blake2b(body, digest_size=16, key=ground).digest()


def proven(body: object, ground: bytes, found: object) -> TypeGuard[bytes]:
    """Whether *body* is what was sealed as *found*. Damage may make either a value of any type."""
    return isinstance(body, bytes) and found == seal(ground, body)
