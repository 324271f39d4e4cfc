"""``prompt`` makes a step of a template, ``chain`` a workflow of a sequence."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, TypeVar, overload

from attrs import evolve

from ._fingerprint import CODE_ATTRIBUTE
from ._fits import fits, told
from ._functions import decorated
from ._signature import Parameter, signature_of
from ._suggest import nearest
from ._template import Template, check_names
from .errors import DefinitionError
from .llm import LLM, AsyncLLM
from .workflows import arun

if TYPE_CHECKING:
    from typing_extensions import TypeForm

__all__ = ["chain", "prompt"]

T = TypeVar("T")
Link = Callable[..., Any] | str


@overload
def prompt(
    template: str,
    *,
    inputs: Mapping[str, Any] | None = None,
    name: str = "prompt",
    llm: LLM = ...,
) -> Callable[..., str]: ...
@overload
def prompt(
    template: str,
    returns: TypeForm[T],
    *,
    inputs: Mapping[str, Any] | None = None,
    name: str = "prompt",
    llm: LLM = ...,
) -> Callable[..., T]: ...
def prompt(
    template: str,
    returns: Any = str,
    *,
    inputs: Mapping[str, Any] | None = None,
    name: str = "prompt",
    llm: LLM = LLM(),
) -> Callable[..., Any]:
    """Make a sync step of a template.

    ``translate = prompt("Translate into {language}: {text}")``.

    Its arguments are the names in the template, in their order or by keyword, and ``llm``. Only
    ``{name}`` is substituted, once; ``{{name}}`` is the text ``{name}``, other braces stay.

    Args:
        template: the text of the prompt.
        returns: the type of the answer.
        inputs: the hint of each name, where they are to be told; then it names them all.
        name: the step's name.
        llm: the model to ask.

    Raises:
        DefinitionError: the template is no text, a name is a word of Python, or *inputs* has a name that
            it lacks, or the other way round.
    """
    parsed, hints = _parsed(template, inputs, f"prompt {name!r}")

    def ask(*args: Any, **kwargs: Any) -> Any:
        values = _bound(f"prompt {name!r}", signature, args, kwargs)
        model: LLM = values.pop("llm", llm)
        return model.ask(parsed.render(values), returns)

    signature = _looks(ask, name, {n: hints[n] for n in parsed.names}, returns, template)
    own = inspect.Parameter("llm", inspect.Parameter.KEYWORD_ONLY, default=llm, annotation=LLM)
    signature = signature.replace(parameters=[*signature.parameters.values(), own])
    ask.__signature__ = signature  # type: ignore[attr-defined]
    ask.__annotations__["llm"] = LLM
    ask.__doc__ = template
    return decorated("step", ask, {})


def _parsed(
    template: object, inputs: Mapping[str, Any] | None, what: str
) -> tuple[Template, Mapping[str, Any]]:
    """Read *template*, and give the hint of each name in it."""
    if not isinstance(template, str):
        raise DefinitionError(f"{what} takes a text such as 'Shorten: {{text}}', not {template!r}")
    parsed = Template.parse(template)
    hints = dict.fromkeys(parsed.names, Any) if inputs is None else dict(inputs)
    check_names(parsed, hints, what)
    if "llm" in hints:
        raise DefinitionError(f"{what} can't have {{llm}}: that is the argument for the model")
    return parsed, hints


def _bound(
    what: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a call of *what* by their names.

    Raises:
        TypeError: naming those that it does not take, with the nearest that it does.
    """
    try:
        return signature.bind(*args, **kwargs).arguments
    except TypeError as exc:
        names = list(signature.parameters)
        unknown = [n + _meant(n, names) for n in kwargs if n not in names]
        told = f", not {', '.join(unknown)}" if unknown else f": {exc}"
        raise TypeError(f"{what} takes {', '.join(names)}{told}") from None


def _meant(name: str, names: Sequence[str]) -> str:
    found = nearest(name, names)
    return f" (did you mean {found}?)" if found else ""


def _looks(
    fn: Callable[..., Any], name: str, hints: Mapping[str, Any], returns: Any, *code: object
) -> inspect.Signature:
    """Give *fn* a name and a signature of positional parameters; *code* is what it is made of."""
    if words := [n for n in hints if iskeyword(n)]:
        said = ", ".join(f"{{{word}}} is a word of Python: write {{{word}_}}" for word in words)
        raise DefinitionError(f"prompt {name!r}: {said}, or {{{{{words[0]}}}}} for the text {{{words[0]}}}")
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(n, kind, annotation=hint) for n, hint in hints.items()]
    signature = inspect.Signature(parameters, return_annotation=returns)
    fn.__name__ = fn.__qualname__ = name
    fn.__annotations__ = {**hints, "return": returns}
    fn.__signature__ = signature  # type: ignore[attr-defined]
    setattr(fn, CODE_ATTRIBUTE, repr((*code, returns)))
    return signature


def chain(
    *links: Link,
    name: str = "chain",
    llm: AsyncLLM = AsyncLLM(),
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Make an async workflow of a sequence: ``chain(outline, "Write a title for: {text}", parse)``.

    The output of one link is the only input of the next. A link is a step or function of either
    colour, or a prompt with one ``{name}``. Run it with ``run``, ``arun`` or ``start``.

    Raises:
        DefinitionError: hints of neighbours do not fit, a prompt has no or several names, or a link
            does not take a single input; all faults are named.
    """
    if not links:
        raise DefinitionError("chain() needs at least one step")
    if faults := [fault for link in links if (fault := _link_fault(link)) is not None]:
        raise DefinitionError(f"chain {name!r}: " + "; ".join(faults))
    steps = [_link(link, llm) for link in links]
    inputs = _checked(steps, name)

    async def run_chain(*args: Any, **kwargs: Any) -> Any:
        (value,) = _bound(f"chain {name!r}", signature, args, kwargs).values()
        for step in steps:
            value = await arun(step, value)
        return value

    returns, names = signature_of(steps[-1]).returns, [signature_of(step).name for step in steps]
    signature = _looks(run_chain, name, {inputs[0].name: inputs[0].hint}, returns, names)
    run_chain.__doc__ = " → ".join(names)
    return decorated("workflow", run_chain, {})


def _link(link: Link, llm: AsyncLLM) -> Callable[..., Any]:
    if not isinstance(link, str):
        return link
    return asking("prompt", Template.parse(link), str, llm)


def asking(
    name: str, template: Template, returns: Any, llm: AsyncLLM, system: Template | None = None
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Make an async step that asks *llm*; its arguments are the names in the templates."""

    async def ask(*args: Any, **kwargs: Any) -> Any:
        values = _bound(f"prompt {name!r}", signature, args, kwargs)
        model = llm if system is None else evolve(llm, system=system.render(values))
        return await model.ask(template.render(values), returns)

    names = dict.fromkeys((*template.names, *(system.names if system else ())), Any)
    signature = _looks(ask, name, names, returns, template, system, llm)
    return decorated("step", ask, {})


def _link_fault(link: Link) -> str | None:
    """What keeps *link* from taking the one output before it."""
    if isinstance(link, str):
        names = len(Template.parse(link).names)
        return (
            None
            if names == 1
            else f"the prompt {link!r} needs one {{name}} for the output before it, and has {names}"
        )
    if not callable(link):
        return f"{link!r} is neither a step nor a prompt"
    signature = signature_of(link)
    required = [p for p in signature.parameters if p.required]
    if not signature.positional or len(required) > 1:
        return f"{signature} does not take a single input"
    return None


def _checked(steps: Sequence[Callable[..., Any]], name: str) -> list[Parameter]:
    """The one input of each step; all neighbours that do not fit are told at once."""
    signatures = [signature_of(step) for step in steps]
    inputs = [signature.positional[0] for signature in signatures]
    faults = [
        f"{gives.name} gives {told(gives.returns)}, but {takes.name} takes {told(taken.hint)}"
        for gives, takes, taken in zip(signatures, signatures[1:], inputs[1:], strict=False)
        if not fits(gives.returns, taken.hint)
    ]
    if faults:
        raise DefinitionError(f"chain {name!r}: " + "; ".join(faults))
    return inputs
