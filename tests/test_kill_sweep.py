"""Journalled runs are killed at their writes, within them and at random moments, and resumed in other processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).parent.parent / "benchmarks" / "kill_sweep.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are made by fork")
def test_nothing_is_lost_and_nothing_done_twice() -> None:
    """A sample in CI; ``python benchmarks/kill_sweep.py --random 700`` is the whole, of more than 2,000."""
    command = [sys.executable, SWEEP, "--points", "110", "--random", "20", "--races", "14"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "; 0 faults" in found.stdout
    killed = {way: int(count) for count, way in re.findall(r"(\d+) ([a-z ]+?)(?= ?[,\n(])", found.stdout)}
    assert killed["at statements"] + killed["within writes"] >= 100, found.stdout
    assert killed["at random"] == 20
    assert killed["to be resumed twice"] == 14
