"""Every test starts in a fresh process state, and an async one runs on both backends."""

import os
from collections.abc import Iterator

import pytest
import stamina

from flowlet import configure
from flowlet._engine._runtimes import Runtimes
from flowlet.settings import process
from left_out import ENGINE, LEFT_OUT
from rig import Heard, Trap

REPLAY = bool(os.environ.pop("FLOWLET_TEST_REPLAY", None))  # which is no setting
"""Whether every run is stopped and resumed at every step: see ``replay.py``."""

if REPLAY:
    import replay

    replay.install()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the tests of the engine, without those that can't be told from the last of several times."""
    if REPLAY:
        left = {
            item
            for item in items
            if item.path.stem.removeprefix("test_") not in ENGINE or item.originalname in LEFT_OUT  # type: ignore[attr-defined]
        }
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=list(left))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where the mode has stopped nothing, since then it has tested nothing."""
    if REPLAY and not replay.counts["stops"]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what went through a journal."""
    if REPLAY:
        told = ", ".join(f"{number:,} {what}" for what, number in replay.counts.most_common())
        terminalreporter.write_line(f"always replay: {told}")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The backend of an async test (``@pytest.mark.anyio``)."""
    return str(request.param)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """The backend of background runs, for sync tests that have one."""
    return str(request.param)


@pytest.fixture
def background(backend: str) -> str:
    """The backend of background runs, already configured."""
    configure(backend=backend)
    return backend


@pytest.fixture
def no_waits() -> Iterator[None]:
    """Let retries follow each other at once."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget settings and totals, and hide the machine's own keys and settings."""
    for name in list(os.environ):
        if name.startswith(("FLOWLET_", "OPENAI_")):
            monkeypatch.delenv(name)
    process.reset()
    yield
    runtimes = process.existing(Runtimes)
    for runtime in list(runtimes._by_backend.values()) if runtimes else []:
        runtime.stop()
    process.reset()


@pytest.fixture
def trap() -> Iterator[Trap]:
    """Where steps get stuck until the test is over."""
    trap = Trap()
    yield trap
    trap.open.set()


@pytest.fixture
def heard() -> Heard:
    """The events of this test."""
    heard = Heard()
    configure(observers=[heard])
    return heard
