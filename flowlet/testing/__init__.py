"""What tests of workflows need: models that answer from a script, at no cost."""

from __future__ import annotations

from ._mock_llm import AsyncMockLLM, MockLLM
from ._mock_provider import (
    AsyncMockProvider,
    MockProvider,
    SyncMockProvider,
    UnexpectedCall,
    UnusedAnswers,
)

__all__ = [
    "AsyncMockLLM",
    "AsyncMockProvider",
    "MockLLM",
    "MockProvider",
    "SyncMockProvider",
    "UnexpectedCall",
    "UnusedAnswers",
]
