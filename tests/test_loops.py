"""The ways into event loops: what is half imported, and wake-ups that are broken off."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import anyio
import pytest

from flowlet import arun, run, runs
from flowlet._engine._loops import current_port, running_loop
from rig import PATIENCE, adouble, double


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


@pytest.mark.anyio
@pytest.mark.parametrize("times", [1, 2])
async def test_ctrl_c_in_a_wake_up_does_not_silence_the_loop(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever found the wake-up under way is heard: at once, or with the next one when it is pressed twice."""
    port = current_port()
    soon, left = port._soon, [KeyboardInterrupt] * times
    came, later = anyio.Event(), anyio.Event()

    def pressed(fn: Callable[[], None]) -> None:
        if left:
            port.call(came.set)  # of another thread, at this moment
            raise left.pop()
        soon(fn)

    monkeypatch.setattr(port, "_soon", pressed)
    with pytest.raises(KeyboardInterrupt):
        port.call(lambda: None)
    with anyio.fail_after(PATIENCE):
        if times == 2:
            port.call(later.set)
            await later.wait()
        await came.wait()
