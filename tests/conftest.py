"""Every test starts in a fresh process state, and an async one runs on both backends."""

import os
from collections.abc import Iterator

import pytest

from flowlet.settings import process


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The backend of an async test (``@pytest.mark.anyio``)."""
    return str(request.param)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """The backend of background runs, for sync tests that have one."""
    return str(request.param)


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget settings and totals, and hide the machine's own keys and settings."""
    for name in list(os.environ):
        if name.startswith(("FLOWLET_", "OPENAI_")):
            monkeypatch.delenv(name)
    process.reset()
    yield
    process.reset()
