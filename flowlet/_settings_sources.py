"""Where settings come from besides Python: a YAML file and the environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from ._placed import read, read_text, without_secrets
from ._sections import Section, leaves, merged
from ._source import Fault, Place, Source, is_secret_name
from ._suggest import nearest
from ._yaml import parse

__all__ = ["FILE", "from_environment", "from_file"]

FILE = "flowlet.yaml"
_OTHERS = ("FLOWLET_CONFIG", "FLOWLET_DEBUG", "FLOWLET_LIVE_TESTS")
_KUBERNETES = re.compile(r"FLOWLET_(\w+_)?(SERVICE_(HOST|PORT)|PORT)(_\w+)?")  # set for a service of our name


def from_file(
    path: Path | None, section: Section, redact: Callable[[str], str], faults: list[Fault]
) -> dict[str, Any]:
    """Read the YAML file *path*, or ``flowlet.yaml`` where there is one, as nested data of *section*."""
    name = FILE if path is None else str(path)
    try:
        source = Source.read(path or Path(FILE), name)
    except FileNotFoundError:
        faults += _missing(path)
        return {}
    if isinstance(source, Fault):
        faults.append(source)
        return {}
    node = parse(source, faults)
    if node is None:
        return {}
    return cast("dict[str, Any]", read(without_secrets(node, redact, faults), section, faults).plain())


def place_of(path: Path | None, environment: Mapping[str, str], name: str, value: str) -> Place | str | None:
    """Where *value* stands in the list that the setting *name* is: in the file, or the name of the variable."""
    variable = f"FLOWLET_{name.upper()}"
    if value in environment.get(variable, "").replace(",", " ").split():
        return variable
    try:
        source = Source.read(path or Path(FILE), FILE if path is None else str(path))
    except FileNotFoundError:
        return None
    node = None if isinstance(source, Fault) else parse(source, [])
    listed = node.data.get(name) if node is not None and isinstance(node.data, dict) else None
    items = () if listed is None else listed.data if isinstance(listed.data, tuple) else (listed,)
    return next((item.place for item in items if value in (item.text or "").replace(",", " ").split()), None)


def _missing(path: Path | None) -> list[Fault]:
    if path is not None:
        place = Place(Source(str(path), ""))
        return [Fault(place, "there is no such file; create it, or correct or unset FLOWLET_CONFIG")]
    if Path("flowlet.yml").exists():
        return [Fault(Place(Source("flowlet.yml", "")), f"this name is not read; rename the file to {FILE}")]
    return []


def from_environment(environment: Mapping[str, str], section: Section, faults: list[Fault]) -> dict[str, Any]:
    """Read the variables of *environment* as nested data of *section*; an empty one is as good as none."""
    known = {leaf.variable: leaf for leaf in leaves(section) if leaf.variable is not None}
    found: dict[str, Any] = {}
    for variable, text in environment.items():
        if variable in known and text.strip():
            found = merged(found, read_text(known[variable], text, faults))
        elif variable not in (*known, *_OTHERS) and _is_meant_for_us(variable):
            faults.append(Fault(variable, _unknown(variable, (*known, *_OTHERS), section)))
    return found


def _is_meant_for_us(variable: str) -> bool:
    return variable.startswith("FLOWLET_") and not _KUBERNETES.fullmatch(variable)


def _unknown(variable: str, known: tuple[str, ...], section: Section) -> str:
    if is_secret_name(variable):
        return "flowlet reads no such variable; the key of OpenAI goes into OPENAI_API_KEY"
    if within := [name for name in known if name.startswith(f"{variable}_")]:
        return f"flowlet reads no such variable; expected one of: {', '.join(sorted(within))}"
    setting = variable.removeprefix("FLOWLET_").lower()
    if setting in section.in_files:
        return f"flowlet reads no such variable; {setting} can be set in {FILE} only"
    hint = nearest(variable, known)
    return "flowlet reads no such variable; " + (
        f"did you mean {hint}?" if hint else f"expected one of: {', '.join(sorted(known))}"
    )
