"""The template package under examples/ works as its readers would install it."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parent.parent / "examples" / "plugin"


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a process in which the template is installed, as far as its metadata tell."""
    project = tomllib.loads((TEMPLATE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    needs = [f"Requires-Dist: {need}" for need in project["dependencies"]]
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *needs]
    (info / "METADATA").write_text("\n".join(metadata) + "\n", encoding="utf-8")
    points = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
    here = Path(__file__).parent.parent
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, TEMPLATE, here)))}


def test_its_own_tests_pass(installed: dict[str, str]) -> None:
    """With the conformance kit, and nothing of flowlet's source touched."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        command, cwd=TEMPLATE, env=installed, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout


def test_the_command_lists_it(installed: dict[str, str], tmp_path: Path) -> None:
    """Both, with their distribution."""
    command = [sys.executable, "-m", "flowlet", "plugins", "--json"]
    ran = subprocess.run(
        command, cwd=tmp_path, env=installed, capture_output=True, text=True, timeout=60, check=True
    )
    found = {(p["kind"], p["name"]): p for p in json.loads(ran.stdout)["plugins"]}
    for key in (("provider", "proverbs"), ("step", "glossary")):
        assert (found[key]["from"], found[key]["ok"]) == ("flowlet-example 0.1.0", True)
