"""Workflows written in YAML, as data: read, checked as a whole, and made the same workflows as those of Python."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from os import PathLike
from typing import Any

__all__ = ["load_workflow"]


def load_workflow(path: str | PathLike[str]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Make the workflow that the YAML file *path* describes: ``run(load_workflow("brief.yaml"), topic="tea")``.

    It is an async workflow, for ``run``, ``arun``, ``start`` and ``with_options``. Its inputs are those of the
    file, by name or in their order. Modules that it names are looked for in the directory of the file, too,
    and in the working directory.

    Raises:
        DefinitionError: naming everything that is wrong in the file, each with its line.
    """
    from ._loading import plan_in
    from ._running import workflow_of

    return workflow_of(plan_in(path))
