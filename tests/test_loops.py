"""The ways into event loops: what is half imported, and wake-ups that are broken off."""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from flowlet import arun, run, runs
from flowlet._engine._loops import running_loop
from rig import adouble, double


@pytest.fixture(params=["asyncio", "asyncio.events", "trio", "IPython"])
def half_imported(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that another thread has just begun to import: it is there, and empty."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, request.param, ModuleType(request.param))
        yield request.param


def test_a_sync_run_does_not_mind_what_another_thread_imports(half_imported: str) -> None:
    """It needs no backend, not even to tell how it has ended."""

    def fails() -> None:
        raise ValueError(double(1))

    assert run(lambda: double(21)) == 42
    with pytest.raises(ValueError, match="2"):
        run(fails)
    assert runs()[0].state == "failed"


@pytest.mark.anyio
async def test_an_async_run_does_not_mind_what_another_thread_imports(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that runs here is found beside the other backend."""

    async def body() -> int:
        return double(await adouble(10)) + 2

    other = "asyncio.events" if anyio_backend == "trio" else "trio"
    loop = running_loop()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, other, ModuleType(other))
        found, result = running_loop(), await arun(body)
    assert (found, result) == (loop, 42)
