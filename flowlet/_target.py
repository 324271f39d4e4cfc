"""From ``module:name`` or ``path/file.py:name`` to the function that it names."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from ._suggest import nearest
from .errors import InputError
from .specs import spec_of

Function = Callable[..., Any]


class Unloadable(Exception):
    """The module of a target exists and can't be imported; ``__cause__`` says why."""


def find(target: str) -> Function:
    """Import the function that *target* names.

    Raises:
        InputError: it names nothing that can run; the message says what does.
        Unloadable: its module can't be imported.
    """
    place, _, name = target.rpartition(":")
    if not (place and name) or name.endswith(".py"):
        module = load(target.strip(":"))
        raise InputError(f"{target!r} does not say what to run; write {_choice(target.strip(':'), module)}")
    return function_in(load(place), place, name)


def function_in(module: ModuleType, place: str, name: str) -> Function:
    """The function *name* of *module*, which was found at *place*.

    Raises:
        InputError: there is none; the message says what there is.
    """
    found = getattr(module, name, None)
    if found is None:
        hint = nearest(name, runnable(module))
        meant = f"; did you mean {place}:{hint}?" if hint else ""
        raise InputError(f"there is no {name!r} in {place}{meant}", (_names(module),))
    if not _is_function(found):
        raise InputError(f"{place}:{name} is no function but {_kind(found)}", (_names(module),))
    return found  # type: ignore[no-any-return]


def load(place: str) -> ModuleType:
    """Import a module by its dotted name or the path of its file.

    Raises:
        InputError: there is no such module.
        Unloadable: it can't be imported.
    """
    by_path = place.endswith(".py")
    root, name = _of_path(Path(place)) if by_path else (Path.cwd(), place)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    module = _of_file(Path(place), name) if by_path else imported(name, place)
    if by_path and Path(getattr(module, "__file__", None) or "").resolve() != Path(place).resolve():
        taken = getattr(module, "__file__", None) or "built into Python"
        raise InputError(f"{place} can't be imported: the name {name!r} is taken by {taken}; rename the file")
    return module


def _of_file(path: Path, name: str) -> ModuleType:
    """Import the file at *path* as *name*, or, where no import statement can say that, as it stands."""
    odd = name == "__main__" or "." in path.stem
    name = f"{path.resolve().parent.name}.{name}" if odd else name
    if odd and name not in sys.modules:
        spec = spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as exc:
            del sys.modules[name]
            raise Unloadable(str(path)) from exc
    return imported(name, str(path))


def imported(name: str, place: str = "") -> ModuleType:
    """Import a module by its dotted name, from where Python looks; errors call it *place*.

    Raises:
        InputError: there is no such module.
        Unloadable: it can't be imported.
    """
    try:
        return import_module(name)
    except (Exception, SystemExit) as exc:
        if isinstance(exc, ModuleNotFoundError) and exc.name and f"{name}.".startswith(f"{exc.name}."):
            raise _no_module(name, exc.name) from None
        raise Unloadable(place or name) from exc


def runnable(module: ModuleType) -> dict[str, Function]:
    """The workflows and steps in *module* and the functions that it defines, workflows first."""
    order = {"workflow": 0, "step": 1}
    names = [n for n, value in vars(module).items() if not n.startswith("_") and _offered(module, value)]
    return {n: vars(module)[n] for n in sorted(names, key=lambda n: order.get(kind_of(vars(module)[n]), 2))}


def kind_of(fn: Function) -> str:
    """Whether *fn* is a ``workflow``, a ``step`` or a plain ``function``."""
    spec = spec_of(fn)
    return "function" if spec is None else spec.kind


def _offered(module: ModuleType, value: object) -> bool:
    if not inspect.isfunction(value):
        return False
    return spec_of(value) is not None or value.__module__ == module.__name__


def _is_function(value: object) -> bool:
    return inspect.isfunction(value) or inspect.ismethod(value)


def _kind(value: object) -> str:
    return "a class" if isinstance(value, type) else f"a value of type {type(value).__name__}"


def _names(module: ModuleType) -> str:
    names = ", ".join(runnable(module))
    return f"it has: {names}" if names else "it has no workflow, step or function"


def _choice(place: str, module: ModuleType) -> str:
    found = runnable(module)
    workflows = [name for name, fn in found.items() if kind_of(fn) == "workflow"]
    return " or ".join(f"{place}:{name}" for name in workflows or found) or f"{place}:name"


def _of_path(path: Path) -> tuple[Path, str]:
    """The directory that has to be importable, and the module's name there; packages keep theirs."""
    if not path.is_file():
        hint = nearest(path.name, (p.name for p in path.parent.glob("*.py")))
        meant = f"; did you mean {path.with_name(hint)}?" if hint else ""
        raise InputError(f"there is no file {path}{meant}")
    path = path.resolve()
    root, names = path.parent, [path.stem]
    while (root / "__init__.py").exists():
        names.insert(0, root.name)
        root = root.parent
    return root, ".".join(names)


def _no_module(name: str, missing: str) -> InputError:
    here = Path.cwd()
    files = [p.name if "." in p.stem else p.stem for p in here.glob("*.py")] + [
        p.parent.name for p in here.glob("*/__init__.py")
    ]
    hint = nearest(name, files)
    if hint:
        return InputError(f"there is no module {name!r}; did you mean {hint}?")
    part = "" if missing == name else f" ({missing!r} is missing)"
    return InputError(
        f"there is no module {name!r}{part}; looked in {here} and where Python finds packages.\n"
        "  A file may be given by its path: path/file.py:name"
    )
