"""Every example runs as a user would run it, without a model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowlet import configure, runs

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


STEPS = """\
name = prompt("Name a {thing}.")
why = prompt("Why {choice}?")
short = prompt("Shorten: {text}")


@workflow
"""
PLAIN = f"""\
from flowlet import prompt, run, workflow

{STEPS}def talk(thing: str) -> str:
    return short(why(name(thing)))


print(run(talk, "tea"))
"""
ASYNC = f"""\
import asyncio

from flowlet import arun, prompt, workflow

{STEPS}async def talk(thing: str) -> str:
    return short(why(name(thing)))


print(asyncio.run(arun(talk, "tea")))
"""


@pytest.mark.parametrize(("program", "bound"), [(PLAIN, 10), (ASYNC, 15)], ids=["plain", "async"])
def test_a_workflow_of_three_calls_is_short(program: str, bound: int) -> None:
    """With its imports and its call, in lines of code as ruff would write them."""
    assert len([line for line in program.splitlines() if line]) < bound
    configure(model="offline")
    exec(program, {"__name__": "short"})
    metrics = runs()[0].metrics
    assert [step.state for step in metrics.steps] == ["completed"] * 3
    assert metrics.usage.calls == 3


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_offline(example: Path) -> None:
    """It ends well, says something, and warns of nothing."""
    environment = {**os.environ, "FLOWLET_MODEL": "offline", "PYTHONUTF8": "1"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", example],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr
    assert ran.stdout.strip()


def test_the_tests_of_an_example_pass() -> None:
    """Those of the example of testing, as a user would run them: without model, key or network."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", FOLDER / "testing"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert re.search(r"^flowlet: .* \$0\), 9 replayed$", ran.stdout, re.MULTILINE), ran.stdout


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_offline(notebook: Path) -> None:
    """Every cell runs in a kernel; the file itself has no outputs."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = nbformat.read(notebook, as_version=4)
    assert [cell.id for cell in cells.cells if cell.get("outputs") or cell.get("execution_count")] == []
    nbclient.NotebookClient(cells, timeout=60).execute()
    assert any(cell.get("outputs") for cell in cells.cells)
