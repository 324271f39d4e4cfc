"""What a target names: the workflow of a file of YAML, or a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _target


def is_yaml(target: str) -> bool:
    """Whether *target* names a file of YAML."""
    return target.lower().endswith((".yaml", ".yml"))


def find(target: str) -> Callable[..., Any]:
    """The workflow of a file of YAML, or the function that *target* names.

    Raises:
        FlowletError: there is none, or it is wrong.
        Unloadable: its module can't be imported.
    """
    if not is_yaml(target):
        return _target.find(target)
    from ..declarative import load_workflow  # not with this module, which every run loads

    return load_workflow(target)
