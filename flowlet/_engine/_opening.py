"""Calls of plugins that are to be open: who comes first opens, others wait, in the mode of the caller."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from ..context import Frame, here, innermost
from ..errors import BridgeError, PluginError
from ..settings import process
from ..specs import is_async
from ._crossing import SETTLE, in_thread, on_loop, park, port_at
from ._failures import awaited
from ._lifetimes import Held, Lifetimes, Owner, Recipe, aclose_all, close_all
from ._loops import Port, current_port, running_loop
from ._runtimes import Runtimes
from ._threads import Latch


def use(recipe: Recipe, /, *args: Any, **kwargs: Any) -> Any:
    """Call the plugin, a sync one, which is opened first where it is not."""
    frame = _here()
    owner, passing = _owner(recipe, frame)
    try:
        return _opened(owner.holding(recipe), frame)(*args, **kwargs)
    finally:
        if passing and (came := owner.close(frame.scope)) is not None:
            raise came


async def ause(recipe: Recipe, /, *args: Any, **kwargs: Any) -> Any:
    """Call the plugin, an async one, which is opened first where it is not."""
    frame = _here()
    owner, passing = _owner(recipe, frame)
    try:
        held = owner.holding(recipe)
        value = await _aopened(held, frame)
        return await _at(held.port, frame, value, args, kwargs)
    finally:
        if passing and (came := await owner.aclose(frame.scope)) is not None:
            raise came


def open_provider(name: str, provider: Any) -> None:
    """Open *provider*, which has ``open`` and ``close``, if it is not open in this process."""
    lifetimes = process.of(Lifetimes)
    _opened(lifetimes.process.holding(lifetimes.of_provider(name, provider)), here())


async def aopen_provider(name: str, provider: Any) -> None:
    """Open *provider*, which has ``open`` and ``close``, if it is not open in this process."""
    lifetimes = process.of(Lifetimes)
    await _aopened(lifetimes.process.holding(lifetimes.of_provider(name, provider)), here())


def _here() -> Frame:
    """The frame of this place.

    Raises:
        RunStopped: its run is over.
    """
    frame = here()
    if not frame.outside:
        frame.scope.check()
    return frame


def _owner(recipe: Recipe, frame: Frame) -> tuple[Owner, bool]:
    """Who holds the plugin at *frame*, and whether for this call only."""
    if recipe.lifetime == "process":
        return process.of(Lifetimes).process, False
    if frame.run is None:
        return Owner(), True
    return process.of(Lifetimes).of(frame.run), False


def _opened(held: Held, frame: Frame) -> Any:
    latch = Latch()
    while (ready := held.ready(latch.set)) is None:
        park(latch, frame.scope)
        frame.scope.check()
        latch = Latch()
    if not ready:
        _open(held, frame)
        _here()
    return held.value


def _open(held: Held, frame: Frame, port: Port | None = None) -> None:
    """Open it in this thread, on the loop of *port* where it needs one; close it at once when its owner has ended.

    Raises:
        BridgeError: it needs one, and this thread has one itself.
    """
    with held.opening():
        held.value = value = _made(held)
        if _any_async(value):
            if running_loop() is not None:
                raise BridgeError(
                    f"{held.recipe.plugin} needs an event loop; this call would block the one here"
                )
            port = held.port = port or _home(held, frame)
        if port is not None and is_async(value.open):
            place = innermost(frame)
            on_loop(place.below(place.scope), port, value.open)
        else:
            awaited(value.open(), f"open() of {held.recipe.plugin}")
    close_all(held.late(), SETTLE)


async def _aopened(held: Held, frame: Frame) -> Any:
    waiter = current_port().waiter()
    while (ready := held.ready(waiter.wake)) is None:
        await waiter.wait()
        waiter = current_port().waiter()
    if not ready:
        await _aopen(held, frame)
        _here()
    return held.value


async def _aopen(held: Held, frame: Frame) -> None:
    """Open it on its loop, or on a worker thread, which may be left behind and then ends this by itself."""
    port = current_port() if held.recipe.lifetime == "run" else _home(held, frame)
    if not held.recipe.opens_async:
        job = await in_thread(frame.below(frame.scope), _open, (held, frame, port), {})
        job.outcome()
        return
    with held.opening():
        held.port = port
        held.value = value = _made(held)
        await _at(port, frame, value.open, (), {})
    await aclose_all(held.late(), SETTLE)


def _made(held: Held) -> Any:
    value: Any = held.recipe.make()
    if not all(callable(getattr(value, name, None)) for name in ("open", "close")):
        raise PluginError(f"{held.recipe.plugin}: expected open() and close(), found {type(value).__name__}")
    return value


def _any_async(value: Any) -> bool:
    return is_async(value.open) or is_async(value.close) or is_async(value)


def _home(held: Held, frame: Frame) -> Port:
    """The loop that a plugin lives on: the run's, or the background loop for one that outlives the run."""
    if held.recipe.lifetime == "process":
        return process.of(Runtimes).port(process.settings.backend)
    return port_at(frame)


async def _at(
    port: Port | None,
    frame: Frame,
    fn: Callable[..., Coroutine[Any, Any, Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Await *fn* on the loop of *port*, which may be another one."""
    if port is None or port is current_port():
        return await fn(*args, **kwargs)

    def there() -> Any:
        place = innermost(frame)
        return on_loop(place.below(place.scope), port, fn, args, kwargs)

    job = await in_thread(frame.below(frame.scope), there, (), {})
    return job.outcome()
