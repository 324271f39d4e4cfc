"""The Python blocks of the README and of all pages run, each page's in order and in one namespace.

They run in an empty folder, beside a copy of the examples. A block under ``output`` is what the Python block
before it prints: ``…`` stands for anything, and one run id is as good as another. Two comments at the top of a
page say more: ``<!-- needs: fastapi -->`` names packages of the docs group, without which it is only compiled, and
``<!-- cells -->`` sends the blocks to a kernel, as cells of a notebook.
"""

import gc
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import flowlet

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("**/*.md"))]
CELLS = "<!-- cells -->"
PLAIN = [page for page in PAGES if CELLS not in page.read_text(encoding="utf-8")]
NOTEBOOKS = [page for page in PAGES if page not in PLAIN]
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n+```output\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"<!-- needs: (.*?) -->")
RUN_ID = re.compile(r"\b[0-9a-f]{16}\b")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[tuple[int, str, str | None]]:
    """The line, the code and the promised output of each block."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        yield text.count("\n", 0, found.start(1)), found[1], found[2]


def assert_prints(printed: str, promised: str | None) -> None:
    if promised is None:
        return
    printed, promised = RUN_ID.sub("<id>", printed.strip()), RUN_ID.sub("<id>", promised.strip())
    pattern = ".*".join(re.escape(part) for part in promised.split("…"))
    assert re.fullmatch(pattern, printed, re.DOTALL), f"promised:\n{promised}\nprinted:\n{printed}"


@pytest.fixture
def collector() -> Iterator[None]:
    """What a page sets of the garbage collector goes with it."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("page", PLAIN, ids=name_of)
def test_blocks_run_offline(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a reader copies works and prints what the page says; for illustration only is another fence."""
    monkeypatch.setenv("FLOWLET_MODEL", "offline")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    module = ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    needed = NEEDS.search(page.read_text(encoding="utf-8"))
    missing = [] if needed is None else [n for n in needed[1].split(", ") if find_spec(n) is None]
    for line, code, promised in blocks(page):
        compiled = compile("\n" * line + code, str(page), "exec", dont_inherit=True)
        if not missing:
            exec(compiled, vars(module))
            assert_prints(capsys.readouterr().out, promised)
    if missing:
        pytest.skip(f"not installed, so only compiled: {', '.join(missing)}")


def test_the_tutorial_works_in_a_terminal(tmp_path: Path) -> None:
    """The file of its first blocks runs with the command that it tells, to the result that it tells."""
    page = DOCS / "tutorial.md"
    (_, steps, _), _, (_, workflow, _), *_ = blocks(page)
    (tmp_path / "talk.py").write_text(steps + workflow, encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    told = re.search(r"^\.venv/bin/flowlet (.*)$", text, re.MULTILINE)
    result = re.search(r"^```text\n(\[.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert told is not None
    assert result is not None
    command = [sys.executable, "-m", "flowlet", *told[1].split()]
    environment = {**os.environ, "FLOWLET_MODEL": "offline", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=True
    )
    assert ran.stdout == result[1]


@pytest.mark.parametrize("page", NOTEBOOKS, ids=name_of)
def test_blocks_run_as_cells(page: Path) -> None:
    """What a reader copies into a notebook works there and prints what the page says."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    found = list(blocks(page))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for _, code, _ in found])
    nbclient.NotebookClient(notebook, timeout=60).execute()
    for cell, (_, _, promised) in zip(notebook.cells, found, strict=True):
        assert_prints("".join(o.text for o in cell.outputs if o.get("name") == "stdout"), promised)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links of a page name files that exist."""
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_can_be_found() -> None:
    """The navigation and the index for language models name all pages."""
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.glob("**/*.md")}
    links = LINK.findall((DOCS / "llms.txt").read_text(encoding="utf-8"))
    assert {re.sub("/$", ".md", link) for link in links} == pages
    assert set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)) == pages


def test_the_reference_has_every_public_name() -> None:
    """What ``flowlet`` exports is defined in a module that a page of the reference shows."""
    pages = [page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md")]
    shown = {name for text in pages for name in re.findall(r"^::: (\S+)", text, re.MULTILINE)}
    homes = {f"flowlet.{flowlet._HOME_OF[name]}" for name in flowlet.__all__}
    assert homes - shown == set()
