"""The shape of the package: imports point down, in no circle, and what is heavy stays in its place.

All imports count, those inside functions and those for type checkers only too.
"""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import flowlet

ROOT = Path(flowlet.__file__).parent
DRAWING = """\
root         __init__
entry        __main__ cli/ display/ pytest_plugin
assembly     declarative/ testing/ _target resuming _rewound
authoring    steps workflows prompts llm plugins concurrency totals _functions _conversation
parts        providers/ | observers/ | journals/
engine       _engine/
ambient      settings _plugins _catalogue _inputs _settings_rules _settings_sources _settings_pages _figures context _scope _forks _live_calls
pure         _entry_points _outside _signature _arguments _fingerprint _doors _bytecode _constants _codec _schema _samples _data/ _fence _template _fits _suggest _source _yaml _sections _section_schema _rules _placed _graph pricing redaction _tracebacks _raised pii/
vocabulary   _value errors metrics messages entries specs events protocols
"""
LAYERS = [line.replace("|", "").split()[1:] for line in DRAWING.splitlines()]

AT_HOME = {
    "asyncio": "_engine/_loops.py",
    "cyclopts": "cli/_app.py",
    "genai_prices": "pricing.py",
    "greenlet": "_engine/_bridge.py",
    "httpx2": "providers/*openai*.py",
    "loguru": "observers/logs.py",
    "openai": "providers/*openai*.py",
    "rich": "display/*.py",
    "ruamel": "_yaml.py",
    "stamina": "_engine/_retry.py",
    "trio": "_engine/_loops.py",
}
LAZY = {
    "openai",
    "pydantic",
    "httpx2",
    "genai_prices",
    "ruamel",
    "rich",
    "cattrs",
    "cyclopts",
    "loguru",
    "stamina",
    "trio",
}


def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package; the package itself is ``__init__``."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"] = path
    return found


MODULES = modules()


def layer_of(module: str) -> int:
    """The line of the drawing that *module* is on, counted from the top."""
    top = module.partition(".")[0]
    name = f"{top}/" if (ROOT / top).is_dir() else top
    layers = [index for index, names in enumerate(LAYERS) if name in names]
    assert len(layers) == 1, f"put {name} on one line of the drawing, here and in docs/architecture.md"
    return layers[0]


@cache
def imports_of(module: str) -> tuple[list[str], list[str]]:
    """What *module* imports: modules of ours, and top-level names of others."""
    ours: list[str] = []
    others: list[str] = []
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            ours += targets(module, node)
        elif isinstance(node, ast.ImportFrom):
            others.append((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            others += [alias.name.partition(".")[0] for alias in node.names]
    return ours, others


def targets(module: str, node: ast.ImportFrom) -> Iterator[str]:
    """The modules that a relative import asks for; names out of the package root are ``__init__``."""
    parts = MODULES[module].relative_to(ROOT).parts[: -node.level]
    package = ".".join((*parts, *(node.module or "").split("."))).strip(".")
    for alias in node.names:
        inner = f"{package}.{alias.name}".strip(".")
        yield inner if inner in MODULES else package or "__init__"


def test_every_module_is_on_one_line_of_the_drawing() -> None:
    """A new module is put where it belongs."""
    for module in MODULES:
        layer_of(module)


def test_the_architecture_page_has_this_drawing() -> None:
    """The page and the test tell the same."""
    page = ROOT.parent / "docs" / "architecture.md"
    assert DRAWING in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """A module imports its own layer and those below it."""
    upwards = [other for other in imports_of(module)[0] if layer_of(other) < layer_of(module)]
    assert not upwards


@pytest.mark.parametrize("module", MODULES)
def test_imports_are_relative_and_never_of_the_package_root(module: str) -> None:
    """The habit from which most import circles come does not start here."""
    ours, others = imports_of(module)
    assert "flowlet" not in others
    assert "__init__" not in ours


def test_no_import_circles() -> None:
    """Not even through a lazy or a type-only import."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module in MODULES and module not in done:
            for other in imports_of(module)[0]:
                visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_parts_do_not_meet() -> None:
    """Providers, journals, middleware and observers know nothing of one another."""
    parts = next(names for names in LAYERS if "providers/" in names)
    for module in MODULES:
        top = module.partition(".")[0]
        if f"{top}/" in parts:
            met = {other.partition(".")[0] for other in imports_of(module)[0]} - {top}
            assert not {f"{other}/" for other in met} & set(parts)


@pytest.mark.parametrize("package", AT_HOME)
def test_a_package_is_known_in_one_place(package: str) -> None:
    """What may be replaced one day is imported where it belongs, and nowhere else."""
    strangers = [
        module
        for module, path in MODULES.items()
        if package in imports_of(module)[1] and not path.relative_to(ROOT).match(AT_HOME[package])
    ]
    assert not strangers


def test_the_vocabulary_needs_attrs_alone() -> None:
    """Everything stands on the bottom layer, so it stands on nothing but attrs."""
    for module in LAYERS[-1]:
        foreign = set(imports_of(module)[1]) - sys.stdlib_module_names
        assert foreign <= {"attrs", "typing_extensions"}


@pytest.mark.parametrize("module", MODULES)
def test_names_in_all_exist(module: str) -> None:
    """``__all__`` promises nothing that the module lacks, and nothing twice."""
    name = "flowlet" if module == "__init__" else f"flowlet.{module}"
    found = importlib.import_module(name)
    names = list(getattr(found, "__all__", ()))
    assert [n for n in names if not hasattr(found, n)] == []
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", flowlet.__all__)
def test_public_names_have_docstrings(name: str) -> None:
    """The first line is a sentence of its own, not one inherited."""
    doc = vars(getattr(flowlet, name)).get("__doc__") or getattr(flowlet, name).__doc__
    assert doc
    assert inspect.cleandoc(doc).splitlines()[0].endswith((".", ":"))


def test_import_loads_nothing_heavy() -> None:
    """Importing all public names is quick: what costs is loaded when it is used first."""
    code = f"import sys; from flowlet import *; print(*(n for n in {LAZY!r} if n in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_names_are_loaded_from_where_type_checkers_see_them() -> None:
    """The package root tells the same to both, about every public name."""
    tree = ast.parse(MODULES["__init__"].read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert seen == vars(flowlet)["_HOME_OF"]
    assert set(seen) == set(flowlet.__all__)
    assert set(flowlet.__all__) <= set(dir(flowlet))
