"""From ``name=value``, ``name:=json`` and a file of JSON to the arguments of a call, read by the hints."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from .._codec import from_json, from_text
from .._data.checking import did_you_mean
from .._signature import Parameter, signature_of
from ..errors import InputError
from ._shown import signature

if TYPE_CHECKING:
    from ..messages import JsonValue

_WORD = re.compile(r"(?P<name>\w+)(?P<sign>:?=)(?P<value>.*)", re.DOTALL)
Function = Callable[..., Any]


@define(eq=False, repr=False)
class _Reading:
    """The parameters that take inputs, the values read for them, and what was wrong."""

    takes: Mapping[str, Parameter]
    rest: Parameter | None
    values: dict[str, Any] = field(factory=dict[str, Any])
    faults: list[str] = field(factory=list[str])

    def read(self, name: str, data: Any, read: Callable[[Any, Any], Any]) -> None:
        """Read *data* as what the parameter *name* takes."""
        parameter = self.takes.get(name) or self.rest
        if parameter is None:
            self.faults.append(f"{name}: there is no such input{did_you_mean(name, self.takes)}")
            return
        try:
            self.values[name] = read(data, parameter.hint)
        except InputError as exc:
            self.faults += [name + fault.removeprefix("$") for fault in exc.faults]

    def missing(self) -> Iterator[str]:
        """Tell which required inputs were not given, not even wrongly."""
        told = {re.match(r"\w*", fault)[0] for fault in self.faults}  # type: ignore[index]
        for name, parameter in self.takes.items():
            if parameter.required and name not in self.values and name not in told:
                yield f"{name}: missing; write {name}=…"


def read_inputs(
    fn: Function, words: Sequence[str], file: str | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Read the arguments of a call of *fn*; *words* win over *file* (``-`` is standard input).

    Raises:
        InputError: with every fault and the signature.
    """
    parameters = signature_of(fn).parameters
    takes = {p.name: p for p in parameters if p.kind not in (p.kind.VAR_POSITIONAL, p.kind.VAR_KEYWORD)}
    rest = next((p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD), None)
    reading = _Reading(takes, rest)
    given = _split(words, reading.faults)
    for name, value in ({} if file is None else _from_file(file)).items():
        if name not in given:
            reading.read(name, value, from_json)
    for name, (sign, text) in given.items():
        reading.read(name, text, from_text if sign == "=" else _from_raw)
    faults = (*reading.faults, *reading.missing())
    if faults:
        raise InputError(f"{signature(fn)} can't take these inputs:", faults)
    return _arguments(parameters, reading.values)


def _split(words: Sequence[str], faults: list[str]) -> dict[str, tuple[str, str]]:
    given: dict[str, tuple[str, str]] = {}
    for word in words:
        found = _WORD.fullmatch(word)
        if found is None:
            faults.append(f"{word!r}: expected name=value")
        elif found["name"] in given:
            faults.append(f"{found['name']}: given twice")
        else:
            given[found["name"]] = (found["sign"], found["value"])
    return given


def _from_raw(text: str, hint: Any) -> Any:
    try:
        return from_json(json.loads(text), hint)
    except ValueError as exc:
        if isinstance(exc, InputError):
            raise
        raise InputError("", (f"$: expected JSON after := ({exc}), found {text!r}",)) from None


def _from_file(file: str) -> dict[str, JsonValue]:
    shown = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        data: JsonValue = json.loads(text)
    except OSError as exc:
        raise InputError(f"--input {file}: {exc.strerror}") from None
    except ValueError as exc:
        raise InputError(f"--input: {shown} is no JSON: {exc}") from None
    if not isinstance(data, dict):
        raise InputError(
            f'--input: {shown} has to be a JSON object of inputs, such as {{"topic": "tea"}}, '
            f"found {text.strip()[:40]}"
        )
    return data


def _arguments(
    parameters: Sequence[Parameter], values: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Pass by position what can't be passed by name."""
    only = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    while only and only[-1].name not in values:
        only.pop()
    return tuple(values.pop(p.name, p.default) for p in only), values
