"""What is checked, and how: ``nox`` for all that must pass, ``nox -s bench`` for the rest.

Every session also runs as ``nox --no-venv``, with the packages of the Python that runs nox.
"""

import sys
from pathlib import Path

import nox

nox.needs_version = ">=2026.4"
nox.options.sessions = ["lint", "typing", "tests"]

PYTHONS = ["3.11", "3.12", "3.13"]
GROUPS = nox.project.dependency_groups
PROJECT = nox.project.load_toml(Path(__file__).with_name("pyproject.toml"))


def python(session: nox.Session, group: str) -> str:
    """Install flowlet and what *group* names, and say which Python has them."""
    if session.venv_backend == "none":
        return sys.executable
    session.install("-e", ".", *GROUPS(PROJECT, group))
    return "python"


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff."""
    with_ruff = python(session, "lint")
    session.run(with_ruff, "-m", "ruff", "check", ".")
    session.run(with_ruff, "-m", "ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the package, and its API as users see it, with mypy and pyright, both strict."""
    checker = python(session, "lint")
    path = sys.executable if checker == sys.executable else session.virtualenv.bin + "/python"
    session.run(checker, "-m", "mypy")
    session.run(checker, "-m", "pyright", "--pythonpath", path)


@nox.session(python=PYTHONS)
@nox.parametrize("backend", ["asyncio", "trio"])
def tests(session: nox.Session, backend: str) -> None:
    """Run the tests, those with an event loop on one backend."""
    other = {"asyncio": "trio", "trio": "asyncio"}[backend]
    session.run(python(session, "test"), "-m", "pytest", "-k", f"not {other}", *session.posargs)


@nox.session
def replay(session: nox.Session) -> None:
    """Run the tests of the engine with every run stopped and resumed at each step."""
    with_tests = python(session, "test")
    session.run(with_tests, "-m", "pytest", "-q", *session.posargs, env={"FLOWLET_TEST_REPLAY": "1"})


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests on both backends and tell which lines and branches they miss."""
    with_tests = python(session, "test")
    session.run(with_tests, "-m", "coverage", "run", "-m", "pytest", *session.posargs)
    session.run(with_tests, "-m", "coverage", "report", "--show-missing", "--skip-covered")


@nox.session
def docs(session: nox.Session) -> None:
    """Run the Python blocks of the README and the pages and the notebook, and build the site into ``site/``."""
    with_docs = python(session, "docs")
    session.run(with_docs, "-m", "pytest", "tests/test_docs.py", "tests/test_examples.py")
    session.run(with_docs, ".ci/site.py")


@nox.session
def examples(session: nox.Session) -> None:
    """Run every example without a model."""
    session.run(python(session, "test"), "-m", "pytest", "tests/test_examples.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what flowlet costs, as ratios (``-- --quick`` for a first look)."""
    session.run(python(session, "test"), "benchmarks/speed.py", *session.posargs)
    session.run(python(session, "test"), "benchmarks/pii.py")
