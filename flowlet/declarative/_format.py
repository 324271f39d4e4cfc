"""The format of workflows in YAML, as data: what may be written where, and what it does.

``python -m flowlet.declarative._format`` writes ``workflow.schema.json``, which editors read.
"""

from __future__ import annotations

import json
import keyword
import re
from pathlib import Path
from typing import Any, cast

from attrs import frozen

from .. import _rules as rules
from .._section_schema import schema_of
from .._sections import Rule, Section, Table
from .._source import LIMIT

__all__ = ["ITEM", "SAMPLING", "SCHEMA", "STEP", "TEXTS", "TOGETHER", "WORKFLOW", "schema"]

ITEM = "item"
"""What the item of a ``for_each`` is called."""
SCHEMA = Path(__file__).with_name("workflow.schema.json")
_RESERVED = sorted({*keyword.kwlist, "null", "true", "false", ITEM})
_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
_HINT = 'a type such as str, list[str], int | None, Literal["a", "b"] or module:Class'


def _text(expected: str, most: int = LIMIT) -> Rule:
    def accepts(value: object) -> bool:
        return isinstance(value, str) and 0 < len(value.strip()) <= most

    longest = {"maxLength": most} if most < LIMIT else {}
    return Rule(expected, accepts, {"type": "string", "pattern": r"\S", **longest})


def _anything(expected: str, **schema: object) -> Rule:
    return Rule(expected, lambda value: value is not None, schema)


def _list_of_texts(expected: str) -> Rule:
    def accepts(value: object) -> bool:
        items = cast("list[object]", value if isinstance(value, list) else [value])
        return bool(items) and all(isinstance(item, str) and item.strip() for item in items)

    text = {"type": "string", "pattern": r"\S"}
    return Rule(expected, accepts, {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]})


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(_NAME, value) is not None and value not in _RESERVED


def _is_condition(value: object) -> bool:
    return isinstance(value, bool | dict) or (isinstance(value, str) and 0 < len(value.strip()) <= 2000)


# These classes are never made: they say which keys are required, and what each key does.


@frozen
class InputFormat:
    """An input of a workflow; its type alone may stand in its place.

    Attributes:
        type: the type of the value, as hints are written in Python.
        default: the value where none is given; an input without one must be given.
        untrusted: whether it is text from outside, which prompts fence as data that gives no instructions.
        description: what the input is, for people.
    """

    type: str


@frozen
class StepFormat:
    """A step: a prompt for a model, or a function.

    Attributes:
        prompt: the text that the model is asked, with `{name}` for an input or the result of a step.
        use: the function that is called, as `module:function`, or the name of a registered step.
        with: the arguments of the function, by name.
        returns: the type of the model's answer (default: `str`).
        system: the system prompt, with `{name}` as in `prompt`.
        model: the model, as `provider:name` (default: that of the workflow, or of the settings).
        temperature: the temperature of the sampling.
        max_tokens: the most tokens that the answer may have.
        top_p: the share of the most likely tokens that the answer is taken from.
        seed: the seed of the sampling.
        stop: a text, or several, at which the answer ends.
        when: a condition, such as `score > 3 and kind in ["a", "b"]`; the step is skipped where it does not hold.
        else: the result where the step is skipped (default: null).
        for_each: a list; the step is done for each `{item}` of it, and its result is the list of the results.
        max_concurrency: how many items are worked on at once (default: 32).
        needs: steps that must be done first, where no reference says so.
        attempts: how often the step is tried when it fails, the first time included (default: 1).
        timeout: seconds that each attempt may take.
        description: what the step is for, for people.
    """


@frozen
class WorkflowFormat:
    """A workflow.

    Attributes:
        name: its name in records and errors (default: that of the file).
        description: what it does, for people.
        inputs: its inputs, each with its type, or with `type`, `default` and `description`.
        steps: its steps by their names; references say in what order they are done, independent ones at once.
        output: its result, a value with references (default: the result of the last step).
        model: the model where a step names none, as `provider:name`.
        timeout: seconds that a run may take.
    """

    steps: object


_SAMPLING = {
    "temperature": rules.TEMPERATURE,
    "max_tokens": rules.whole(1),
    "top_p": rules.SHARE,
    "seed": rules.WHOLE,
    "stop": _list_of_texts("a text, or a list of texts"),
}
SAMPLING = tuple(_SAMPLING)
"""Keys of a step that say how its model is asked."""
_PROMPT = {"returns": _text(_HINT, most=500), "system": _text("a text"), **_SAMPLING}
_COMMON = {
    "model": rules.MODEL,
    "when": Rule(
        'a condition such as score > 3 and kind in ["a", "b"]',
        _is_condition,
        {"type": ["string", "boolean", "object"], "maxLength": 2000},
    ),
    "else": _anything("a value"),
    "for_each": _anything("a list, or a reference to one such as {points}"),
    "max_concurrency": rules.whole(1),
    "needs": _list_of_texts("the name of a step, or a list of names"),
    "attempts": rules.whole(1),
    "timeout": rules.SOME_SECONDS,
    "description": _text("a text"),
}
TEXTS = ("prompt", "system", "with", "else", "for_each")
"""Keys of a step in whose texts ``{name}`` is a reference."""
TOGETHER = {"with": "use", "else": "when", "max_concurrency": "for_each", **dict.fromkeys(_PROMPT, "prompt")}
"""Keys of a step, each with another one that it needs."""
_OTHERS = {
    "prompt": "template text message",
    "use": "uses function call run action",
    "with": "args arguments params parameters inputs",
    "returns": "output_type response_format response_model schema",
    "system": "instructions system_prompt",
    "when": "if condition",
    "for_each": "foreach map loop each",
    "max_concurrency": "concurrency parallelism max_parallel",
    "needs": "depends_on dependencies after requires",
    "attempts": "retries retry max_attempts",
}
"""What other languages of workflows call the keys of a step."""
NAME = Rule(
    "a name of letters a to z, digits and _, at most 64, that does not begin with a digit and is no word of Python",
    _is_name,
    {"type": "string", "pattern": f"^{_NAME}$", "not": {"enum": _RESERVED}},
)
_INPUT = Section(
    InputFormat,
    {
        "type": _text(_HINT, most=500),
        "default": Rule("a value", lambda _: True, {}),
        "untrusted": rules.TRUTH,
        "description": _text("a text"),
    },
    short="type",
)
STEP = Section(
    StepFormat,
    {
        "prompt": _text("the text of a prompt"),
        "use": _text("module:function, or the name of a registered step"),
        "with": Rule(
            'the arguments, as lines of "name: value" indented below',
            lambda value: isinstance(value, dict),
            {"type": "object"},
        ),
        **_PROMPT,
        **_COMMON,
    },
    meant={other: ours for ours, others in _OTHERS.items() for other in others.split()},
)
WORKFLOW = Section(
    WorkflowFormat,
    {
        "name": rules.LABEL,
        "description": _text("a text"),
        "model": rules.MODEL,
        "timeout": rules.SOME_SECONDS,
        "inputs": Table(NAME, _INPUT, "an input"),
        "steps": Table(NAME, STEP, "a step", 1),
        "output": _anything("a value, such as {summary}"),
    },
)


def schema() -> dict[str, Any]:
    """The JSON Schema of the format."""
    found = schema_of(WORKFLOW)
    step = found["properties"]["steps"]["additionalProperties"]
    step["type"] = "object"
    step["oneOf"] = [{"required": ["prompt"]}, {"required": ["use"]}]
    step["dependentRequired"] = {name: [other] for name, other in TOGETHER.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A workflow of flowlet",
        **found,
    }


def _written() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(_written(), encoding="utf-8")
