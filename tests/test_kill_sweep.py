"""Journalled runs are stopped at their writes, within them and at random moments, and resumed in other processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).parent.parent / "benchmarks" / "kill_sweep.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are made by fork")
def test_nothing_is_lost_and_nothing_done_twice() -> None:
    """A sample in CI; ``python benchmarks/kill_sweep.py --random 700`` is the whole, with more than 2,000 kills."""
    size = ["--points", "110", "--random", "20", "--races", "14", "--faults", "56"]
    found = subprocess.run([sys.executable, SWEEP, *size], capture_output=True, text=True, timeout=180)
    assert found.returncode == 0, found.stdout + found.stderr
    stopped = {way: int(count) for count, way in re.findall(r"(\d+) ((?:killed|suspended) .+)", found.stdout)}
    at_writes = stopped["killed at statements"] + stopped["killed within writes"]
    assert at_writes >= 100, found.stdout
    assert stopped["killed at random"] == 20
    assert stopped["killed and resumed twice"] == 14
    for fault in ("EIO once", "EIO sticky", "ENOSPC once", "ENOSPC sticky"):
        assert stopped[f"suspended by {fault}"] >= 10, found.stdout
