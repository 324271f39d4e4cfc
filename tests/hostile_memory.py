"""A process that makes the large cases' calls, and tells what each took: ``python hostile_memory.py URL``.

One JSON object a line. *grown* is how far the peak of memory rose above what there was before, in bytes.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from pathlib import Path

import anyio

from flowlet import LLM, AsyncLLM, ProviderError, register_provider, usage
from flowlet.providers.openai import OpenAIProvider
from hostile import LARGE, LARGE_STREAMED, Case
from server import KEY


def whole(case: Case) -> None:
    LLM("hostile:m", attempts=1, timeout=case.timeout).ask(case.name)


def streamed(case: Case) -> None:
    with LLM("hostile:m", attempts=1, timeout=case.timeout).stream(case.name) as pieces:
        for _ in pieces:
            pass


async def awhole(case: Case) -> None:
    await AsyncLLM("hostile:m", attempts=1, timeout=case.timeout).ask(case.name)


async def astreamed(case: Case) -> None:
    async with AsyncLLM("hostile:m", attempts=1, timeout=case.timeout).stream(case.name) as pieces:
        async for _ in pieces:
            pass


def of_memory(name: str) -> int:
    """A figure of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def call(way: str, stream: bool, case: Case) -> dict[str, object]:
    """Make one call, and tell how it ended."""
    end: dict[str, object] = {"kind": None, "retryable": None}
    try:
        if way == "sync":
            (streamed if stream else whole)(case)
        else:
            anyio.run(astreamed if stream else awhole, case, backend=way)
    except ProviderError as error:
        end = {"kind": error.kind, "retryable": error.retryable}
    return end


def measure(way: str, stream: bool, case: Case) -> dict[str, object]:
    """Make one call, and tell what it took."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is kept free would hide the growth
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began, calls = of_memory("VmRSS"), time.monotonic(), usage().calls
    end = call(way, stream, case)
    grown, seconds = of_memory("VmHWM") - before, time.monotonic() - began
    about = {"name": case.name, "stream": stream, "way": way, "calls": usage().calls - calls}
    return about | end | {"grown": grown, "seconds": seconds}


def main(url: str) -> None:
    """Make each call in every way, after a first one that takes what the first always does."""
    register_provider("hostile", OpenAIProvider(KEY, url))
    for way in ("sync", "asyncio", "trio"):
        for stream, cases in ((False, LARGE), (True, LARGE + LARGE_STREAMED)):
            call(way, stream, Case("small", None, "tea"))  # type: ignore[arg-type]
            gc.freeze()  # so that the collections before the measurements are quick
            for case in cases:
                print(json.dumps(measure(way, stream, case)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
