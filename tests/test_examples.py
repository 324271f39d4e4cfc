"""Every example runs as a user would run it, without a model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


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


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_offline(notebook: Path) -> None:
    """Every cell runs in a kernel; the file itself has no outputs."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = nbformat.read(notebook, as_version=4)
    assert [cell.id for cell in cells.cells if cell.get("outputs") or cell.get("execution_count")] == []
    nbclient.NotebookClient(cells, timeout=60).execute()
    assert any(cell.get("outputs") for cell in cells.cells)
