"""What comes from outside goes on through plugins: Ctrl-C, signals, the end of a coroutine."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable

import anyio
import pytest

from flowlet import (
    LLM,
    PluginError,
    ProviderError,
    arun,
    get_step,
    register_provider,
    register_step,
    run,
    workflow,
)
from flowlet._outside import from_outside
from flowlet.events import PluginFailed
from rig import Heard


def press() -> None:
    """Press Ctrl-C."""
    signal.raise_signal(signal.SIGINT)
    for _ in range(10):  # it is heard between two instructions
        pass


def caught_of(fn: Callable[[], object]) -> BaseException:
    try:
        fn()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def own(exc: BaseException) -> Callable[[], object]:
    def raises() -> None:
        raise exc

    return raises


def again() -> None:
    try:
        press()
    except KeyboardInterrupt:
        raise KeyboardInterrupt("mine") from None


def test_a_ctrl_c_is_told_from_one_that_is_raised() -> None:
    """Also when it is passed on, or raised anew."""
    assert from_outside(caught_of(press))
    assert from_outside(caught_of(again))
    assert not from_outside(caught_of(own(KeyboardInterrupt())))
    assert not from_outside(caught_of(own(ValueError())))
    assert not from_outside(caught_of(own(GeneratorExit())))
    assert not from_outside(caught_of(own(SystemExit(3))))
    assert not from_outside(KeyboardInterrupt())  # never raised


def test_what_a_signal_handler_raises_comes_from_outside() -> None:
    """Whatever it is."""

    def handler(number: int, frame: object) -> None:
        sys.exit(7)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert from_outside(caught_of(lambda: signal.raise_signal(signal.SIGUSR1)))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_end_of_a_coroutine_comes_from_outside() -> None:
    """Its GeneratorExit is at no raise."""
    seen: list[bool] = []

    def generator():
        try:
            yield
        except GeneratorExit as exc:
            seen.append(from_outside(exc))
            raise

    started = generator()
    next(started)
    started.close()
    assert seen == [True]


def test_ctrl_c_goes_through_a_step_plugin(heard: Heard) -> None:
    """It ends the run, and is no failure of the plugin."""
    register_step("pressed", press)
    with pytest.raises(KeyboardInterrupt):
        run(workflow(lambda: get_step("pressed")()))
    assert heard.of(PluginFailed) == []


def test_ctrl_c_goes_through_a_provider(heard: Heard) -> None:
    """Which is called in the caller's thread."""

    class Pressed:
        live = False
        keeps_time = True

        def complete(self, request: object) -> None:
            press()

    register_provider("pressed", Pressed())
    with pytest.raises(KeyboardInterrupt):
        run(workflow(lambda: LLM("pressed:m").ask("x")))
    assert heard.of(PluginFailed) == []


def test_ctrl_c_goes_through_an_async_step_plugin(backend: str, heard: Heard) -> None:
    """On an event loop of the caller's."""

    async def pressed() -> None:
        press()
        await anyio.sleep(5)

    register_step("pressed", pressed)
    with pytest.raises(KeyboardInterrupt):
        anyio.run(arun, get_step("pressed"), backend=backend)
    assert heard.of(PluginFailed) == []


def test_in_other_threads_a_keyboard_interrupt_is_the_plugins(background: str) -> None:
    """No Ctrl-C comes there."""
    register_step("presses", own(KeyboardInterrupt()))
    with pytest.raises(PluginError):
        run(workflow(lambda: get_step("presses")()))

    class Presses:
        live = False

        def complete(self, request: object) -> None:
            raise KeyboardInterrupt

    register_provider("presses", Presses())
    with pytest.raises(ProviderError):
        run(workflow(lambda: LLM("presses:m").ask("x")))


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM there")
def test_a_signal_handler_ends_a_process_that_is_inside_a_plugin() -> None:
    """Its SystemExit is not kept; what the plugin holds is closed."""
    code = """
    import os, signal, sys, time
    from flowlet import get_step, register_step, run
    class Kettle:
        def open(self): print("open", flush=True)
        def __call__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        def close(self): print("close", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    register_step("kettle", Kettle)
    run(get_step("kettle"))
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=20, check=False
    )
    assert (ran.returncode, ran.stdout.split()) == (7, ["open", "close"]), ran.stderr
