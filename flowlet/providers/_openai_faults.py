"""What went wrong, as facts: statuses, error bodies and Retry-After read into a ProviderError. Pure."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, cast
from urllib.parse import urlsplit

from attrs import evolve, frozen

from ..errors import ProviderError, ProviderErrorKind

__all__ = ["garbage", "of_error_body", "of_status", "one_line", "redacted", "retry_after_of", "too_large"]

_BY_STATUS: Mapping[int, ProviderErrorKind] = {
    401: "authentication",
    402: "quota",
    403: "permission",
    404: "not_found",
    408: "timeout",
    409: "other",
    429: "rate_limit",
}
_BY_WORD: Mapping[str, ProviderErrorKind] = {
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "billing_not_active": "quota",
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "invalid_api_key": "authentication",
    "authentication_error": "authentication",
    "permission_error": "permission",
    "model_not_found": "not_found",
    "not_found_error": "not_found",
    "context_length_exceeded": "bad_request",
    "invalid_request_error": "bad_request",
    "server_error": "server",
    "internal_error": "server",
    "internal_server_error": "server",
    "overloaded_error": "server",
    "timeout": "timeout",
}
_RETRYABLE = ("rate_limit", "server", "timeout")


@frozen
class _Told:
    """What a server said about its error: its message, code, and the labels (code and type) it bears."""

    message: str = ""
    code: str | None = None
    labels: tuple[str, ...] = ()
    param: str = ""

    def kind(self) -> ProviderErrorKind | None:
        """The kind that the labels stand for, where they are known ones."""
        return next((_BY_WORD[label] for label in self.labels if label in _BY_WORD), None)

    def names(self, *words: str) -> bool:
        """Whether the error speaks of one of *words*, in whatever field."""
        said = " ".join((self.message, self.param, *self.labels)).lower()
        return any(word in said for word in words)


def garbage(message: str) -> ProviderError:
    """An answer that is none; another try may bring a better one."""
    return ProviderError("bad_response", message, retryable=True)


def too_large(limit: int) -> ProviderError:
    """An answer of more than *limit* bytes, of which the rest is not read."""
    return ProviderError("bad_response", f"the answer is larger than {limit} bytes, the most that is read")


def of_status(
    status: int, headers: Mapping[str, str], body: bytes, *, model: str, place: str
) -> ProviderError:
    """Read an HTTP status that is no success, with what the server said about it."""
    told = _read(body)
    kind = _kind(status, told)
    return ProviderError(
        kind,
        _sentence(status, told, headers, model, place),
        retryable=kind != "quota" and (status in (408, 409, 429) or status >= 500),
        status=status,
        code=told.code,
        request_id=one_line(headers.get("x-request-id"), 200) or None,
        retry_after=retry_after_of(headers),
    )


def of_error_body(error: object, request_id: str | None = None) -> ProviderError:
    """Read an error object that came under a status of 200, or within a stream."""
    told = _told(error)
    if told.code is not None and re.fullmatch("[3-5][0-9][0-9]", told.code):
        kind = _kind(int(told.code), told)
    else:
        kind = told.kind() or "bad_response"
    message = told.message or "the server sent an error without a message"
    return ProviderError(kind, message, kind in _RETRYABLE, code=told.code, request_id=request_id)


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds the server asks to wait: ``retry-after-ms``, seconds, or an HTTP date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        return seconds if isfinite(seconds) and seconds >= 0 else None
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
        return max(date.timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError, OSError):
        return None


def redacted(error: ProviderError, key: str | None) -> ProviderError:
    """Take out the API key, and what looks like one or like a part of this one; servers echo them.

    What is shorter than eight characters is a word for a server that needs no key, no secret.
    """
    patterns = [r"\bsk-[\w*.\-]{4,}", r"[\w\-]*\*{3,}[\w\-]*"]
    if key and len(key) >= 12:
        patterns.insert(0, re.escape(key[:8]) + r"[\w*.\-]*")
    if key and len(key) >= 8:
        patterns.insert(0, re.escape(key))
    hide = re.compile("|".join(patterns))

    def clean(text: str | None) -> str | None:
        return text and hide.sub("[key]", text)

    return evolve(
        error,
        message=clean(error.message) or "",
        code=clean(error.code),
        request_id=clean(error.request_id),
    )


def one_line(value: object, limit: int = 500) -> str:
    """Make foreign text fit for a message: printable, one line, not too long. No text gives ``""``."""
    if not isinstance(value, str):
        return ""
    text = "".join(char if char.isprintable() else " " for char in value[: 4 * limit])
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _kind(status: int, told: _Told) -> ProviderErrorKind:
    if status in (402, 403, 429) and told.kind() == "quota":
        return "quota"
    if status in (400, 422) and told.names("response_format", "json_schema"):
        return "unsupported"
    if status == 500 and told.names("response_format"):  # llama.cpp's Python server says it so
        return "unsupported"
    if status >= 500:
        return "server"
    return _BY_STATUS.get(status, "bad_request" if status >= 400 else "bad_response")


def _sentence(status: int, told: _Told, headers: Mapping[str, str], model: str, place: str) -> str:
    said = told.message or f"the server answered with HTTP {status} and no message"
    if 300 <= status < 400:
        return (
            f"{place} redirects to {_where(headers)}; redirects are not followed, so that the key goes nowhere else: "
            "set base_url to the final address"
        )
    if status == 404:
        return f"{said} (asked {place} for model {model!r}: check the model's name and base_url)"
    if status == 401:
        return f"{said} (asked {place}: check OPENAI_API_KEY or api_key)"
    return said


def _where(headers: Mapping[str, str]) -> str:
    """Say where a redirect leads, without user, password and query."""
    try:
        target = urlsplit(one_line(headers.get("location"), 200))
    except ValueError:
        return "an address that is none"
    return target.netloc.rpartition("@")[2] + target.path


def _read(body: bytes) -> _Told:
    text = body.decode("utf-8", "replace")
    try:
        data: object = json.loads(text)
    except (ValueError, RecursionError):
        return _Told(
            "the server answered with an HTML page" if "<html" in text[:500].lower() else one_line(text)
        )
    if isinstance(data, dict):
        data = cast("dict[str, Any]", data)
        data = data.get("error") or data.get("detail") or data
    return _told(data)


def _told(error: object) -> _Told:
    if isinstance(error, list) and error:  # FastAPI lists its faults, others wrap the one they have
        return _told(cast("list[object]", error)[0])
    if not isinstance(error, dict):
        return _Told(one_line(error if isinstance(error, str) else None))
    facts = cast("dict[str, Any]", error)
    if isinstance(facts.get("error"), dict):
        return _told(facts["error"])
    code = facts.get("code")
    name = one_line(str(code) if isinstance(code, int) else code, 100)
    labels = tuple(label.lower() for label in (name, one_line(facts.get("type"), 100)) if label)
    message = one_line(facts.get("message") or facts.get("msg"))
    return _Told(message, name or None, labels, one_line(facts.get("param"), 100))
