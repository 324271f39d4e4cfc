"""``flowlet init``: a small project that works, offline, from its first minute."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..messages import JsonValue
from . import _codes
from ._shown import write_json

_FLOWS = '''\
"""A workflow of two steps."""

from flowlet import LLM, step, workflow


@step
def outline(topic: str, llm: LLM = LLM()) -> list[str]:
    """Ask for the points of a talk."""
    return llm.ask(f"List three points for a talk about {topic}, one a line.").splitlines()


@step
def title(points: list[str], llm: LLM = LLM()) -> str:
    """Ask for a title that covers the points."""
    return llm.ask("Give a title to a talk with these points:\\n" + "\\n".join(points))


@workflow
def talk(topic: str) -> str:
    """Prepare a talk: its title and its points."""
    points = outline(topic)
    return "\\n".join([title(points), *points])
'''
_SETTINGS = """\
# Settings of flowlet; "flowlet check" tells whether they can be used. Keys do not belong here:
# they come from the environment (OPENAI_API_KEY).

# Answers are made up, nothing is sent. With a key, write openai:gpt-5-mini.
model: offline
"""
_TEST = '''\
"""Steps are tested as the functions they are; workflows with answers from a script."""

from flowlet import configure, run
from flowlet.testing import MockLLM, MockProvider
from flows import outline, talk


def test_an_outline_has_one_point_a_line() -> None:
    """A step takes a model that answers from a script."""
    assert outline("tea", llm=MockLLM(["leaves\\nwater\\ntime"])) == ["leaves", "water", "time"]


def test_a_talk_begins_with_its_title() -> None:
    """A workflow asks the provider that the settings name."""
    configure(model="mock:any", providers={"mock": MockProvider(["leaves\\nwater", "All about tea"])})
    assert run(talk, "tea") == "All about tea\\nleaves\\nwater"
'''
_FILES = {"flows.py": _FLOWS, "flowlet.yaml": _SETTINGS, "test_flows.py": _TEST}


def make_project(directory: Path, as_json: bool) -> int:
    """Write the files of the project into *directory*.

    Raises:
        InputError: one of them is there already, or can't be written; then nothing is.
    """
    there = [name for name in _FILES if (directory / name).exists()]
    if there:
        raise InputError(
            f"nothing was written: {directory} has {', '.join(there)} already; name another directory:",
            ("flowlet init my-flows",),
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in _FILES.items():
            with (directory / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as exc:
        raise InputError(f"{exc.filename}: {exc.strerror}") from None
    if as_json:
        files: list[JsonValue] = [str(directory / name) for name in _FILES]
        write_json({"directory": str(directory), "files": files})
    else:
        _tell(directory)
    return _codes.OK


def _tell(directory: Path) -> None:
    print(f"made {', '.join(str(directory / name) for name in _FILES)}; next:\n")
    if directory != Path():
        print(f"  cd {directory}")
    print("  flowlet run flows.py:talk topic=tea\n  python -m pytest")
