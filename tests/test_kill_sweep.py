"""Journalled runs are killed at their writes and at random moments, and resumed in other processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).parent.parent / "benchmarks" / "kill_sweep.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are made by fork")
def test_nothing_is_lost_and_nothing_done_twice() -> None:
    """A sample in CI; ``python benchmarks/kill_sweep.py --random 1000`` is the whole."""
    command = [sys.executable, SWEEP, "--points", "110", "--random", "30"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "140 runs killed and resumed" in found.stdout
    assert " 0 faults" in found.stdout
