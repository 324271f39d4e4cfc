"""What tests of workflows need: models that answer from a script or a recording, at no cost."""

from __future__ import annotations

from ._conformance import check_provider
from ._journals import check_journal
from ._mock_llm import AsyncMockLLM, MockLLM
from ._mock_provider import (
    AsyncMockProvider,
    MockProvider,
    SyncMockProvider,
    UnexpectedCall,
    UnusedAnswers,
)
from ._recording import Mode, Recording, UnusedRecording, recording
from ._stub import AsyncStub, Stub, stub

__all__ = [
    "AsyncMockLLM",
    "AsyncMockProvider",
    "AsyncStub",
    "MockLLM",
    "MockProvider",
    "Mode",
    "Recording",
    "Stub",
    "SyncMockProvider",
    "UnexpectedCall",
    "UnusedAnswers",
    "UnusedRecording",
    "check_journal",
    "check_provider",
    "recording",
    "stub",
]
