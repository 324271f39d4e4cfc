"""Prompts that are steps, and chains that are workflows."""

import inspect
from functools import partial
from typing import Any, Literal

import pytest
from attrs import frozen

from flowlet import (
    LLM,
    AsyncLLM,
    DefinitionError,
    InputError,
    arun,
    chain,
    configure,
    failure_of,
    is_step,
    is_workflow,
    last_run,
    pmap,
    prompt,
    register_provider,
    run,
    start,
    step,
    with_options,
    workflow,
)
from flowlet.testing import AsyncMockLLM, MockLLM, MockProvider

pytestmark = pytest.mark.anyio


@frozen
class Title:
    text: str


def asked(llm: Any) -> str:
    """The last message that *llm* got."""
    return llm.requests[-1].messages[-1].content


# --- prompt --------------------------------------------------------------------------------------

translate = prompt("Translate into {language}: {text}", name="translate")


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [(("French", "tea"), {}), (("French",), {"text": "tea"}), ((), {"text": "tea", "language": "French"})],
)
def test_a_prompt_is_called_with_its_names(args: Any, kwargs: Any) -> None:
    """Its arguments are the names of the template, in their order or by keyword."""
    llm = MockLLM(["thé"])
    assert translate(*args, llm=llm, **kwargs) == "thé"
    assert asked(llm) == "Translate into French: tea"


def test_a_prompt_is_made_of_text() -> None:
    """What is none is refused where it is given."""
    with pytest.raises(
        DefinitionError, match=r"prompt 'prompt' takes a text such as 'Shorten: \{text\}', not 3"
    ):
        prompt(3)  # type: ignore[call-overload]


def test_a_prompt_looks_like_a_function() -> None:
    """Name, documentation and signature tell what it takes."""
    assert (translate.__name__, translate.__doc__) == ("translate", "Translate into {language}: {text}")
    assert list(inspect.signature(translate).parameters) == ["language", "text", "llm"]
    assert inspect.signature(translate).return_annotation is str
    assert is_step(translate)


def test_a_prompt_is_a_step_of_a_run(background: str) -> None:
    """In a run it is recorded by its name with its tokens, and fails in its own place."""
    register_provider("mock", MockProvider(["thé", ZeroDivisionError()]))
    configure(model="mock:m")
    assert run(lambda: translate("French", "tea")) == "thé"
    (record,) = last_run().metrics.steps
    assert (record.name, record.usage.calls) == ("translate", 1)
    with pytest.raises(ZeroDivisionError) as caught:
        run(translate, "French", "tea")
    assert failure_of(caught.value).step == "translate"


async def test_a_prompt_in_an_async_body_is_bridged() -> None:
    """A prompt is a ``def`` step, so an async body calls it plainly."""

    async def body() -> str:
        return translate("French", "tea", llm=MockLLM(["thé"]))

    assert await arun(body) == "thé"


@pytest.mark.parametrize(
    ("returns", "answer"),
    [(Title, Title("T")), (list[str], ["a"]), (Literal[1, 2], 2), (Title | None, None)],
)
def test_a_prompt_answers_with_the_type_asked_for(returns: Any, answer: Any) -> None:
    """``returns`` is the type of the answer, as for ``ask``."""
    asks = prompt("Title for {text}", returns)
    assert asks("tea", llm=MockLLM([answer])) == answer
    assert inspect.signature(asks).return_annotation == returns


def test_a_prompt_has_a_model_of_its_own() -> None:
    """``llm`` at definition is the default, in a call the choice."""
    first, second = MockLLM(["first"]), MockLLM(["second"])
    asks = prompt("{text}", llm=first)
    assert (asks("x"), asks("x", llm=second)) == ("first", "second")


def test_values_are_put_in_once_and_never_scanned() -> None:
    """Braces in a value stay, whatever they name; braces of JSON in the template stay too."""
    llm = MockLLM(["ok"])
    asks = prompt('Like {"a": {b}, "c": {{d}}, "e": {x.y}}: {text}', inputs={"b": int, "text": str})
    asks(3, "{b} {text} {0} {b.__class__}", llm=llm)
    assert asked(llm) == 'Like {"a": 3, "c": {d}, "e": {x.y}}: {b} {text} {0} {b.__class__}'


def test_values_that_are_no_text_are_written_as_json() -> None:
    """Lists, classes and numbers come as JSON."""
    llm = MockLLM(["ok"])
    prompt("{items} {title} {n}")([1, "ü"], Title("T"), 2.5, llm=llm)
    assert asked(llm) == '[1, "ü"] {"text": "T"} 2.5'


@pytest.mark.parametrize(
    ("template", "inputs", "said"),
    [
        ("Hi {nmae}", {"name": str}, "did you mean {name}?"),
        ("Hi {name}", {"name": str, "age": int}, "'age' is not used"),
        ("Hi", {"name": str}, "'name' is not used"),
        ("Hi {llm}", None, "can't have {llm}"),
        (
            "Hi {class}",
            None,
            "{class} is a word of Python: write {class_}, or {{class}} for the text {class}",
        ),
        ("Hi {class}", {"class": str}, "{class} is a word of Python"),
    ],
)
def test_wrong_names_are_faults_of_the_definition(template: str, inputs: Any, said: str) -> None:
    """Unknown and unused names fail when the prompt is written, with the one that was meant."""
    with pytest.raises(DefinitionError) as caught:
        prompt(template, inputs=inputs, name="greet")
    assert said in str(caught.value)
    assert "greet" in str(caught.value)


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), (("a",), {}), (("a", "b", "c"), {}), (("a", "b"), {"c": 1})]
)
def test_wrong_arguments_are_pythons_own_type_error(args: Any, kwargs: Any) -> None:
    """A call that does not fit the names raises what a function with that signature raises."""
    with pytest.raises(TypeError, match="prompt 'translate' takes language, text, llm"):
        translate(*args, llm=MockLLM(), **kwargs)


def test_an_argument_that_a_prompt_does_not_take_is_named() -> None:
    """With the one that was meant, in a run too; what is missing is told where nothing is unknown."""
    said = r"^prompt 'translate' takes language, text, llm, not lang \(did you mean language\?\), zzz"
    for call in (translate, partial(run, translate)):
        with pytest.raises(TypeError, match=said):
            call(lang="de", text="tea", zzz=1)
    with pytest.raises(TypeError, match="llm: missing a required argument: 'text'"):
        translate("de")


def test_a_template_without_names_is_a_prompt_without_arguments() -> None:
    """A fixed text can be a step too."""
    assert prompt("Say hello.")(llm=MockLLM(["hello"])) == "hello"


@pytest.mark.parametrize("word", ["args", "kwargs", "self", "values", "model", "returns", "prompt"])
def test_any_name_can_be_in_a_template(word: str) -> None:
    """No name of a template is taken by the machinery."""
    llm = MockLLM(["a", "b"])
    asks = prompt(f"X {{{word}}}")
    asks(**{word: "tea"}, llm=llm)
    assert asked(llm) == "X tea"


def test_a_prompt_can_have_options_and_be_fanned_out(background: str) -> None:
    """It is a step like any other."""
    register_provider("mock", MockProvider(lambda request: request.messages[-1].content))
    shout = with_options(prompt("Shout {text}"), name="shout", model="mock:m")
    assert run(lambda: pmap(shout, ["a", "b"])) == ["Shout a", "Shout b"]
    assert [s.name for s in last_run().metrics.steps] == ["shout", "shout"]


# --- chain ---------------------------------------------------------------------------------------


@step
def outline(topic: str) -> str:
    return f"three points about {topic}"


@step
async def shorten(text: str) -> str:
    return text.upper()


def parse(text: str) -> list[str]:
    return text.split()


@workflow
def count(words: list[str]) -> int:
    return len(words)


def test_a_chain_passes_each_output_on(background: str) -> None:
    """Steps, plain functions and workflows of either colour run in their order, in both modes."""
    talk = chain(outline, shorten, parse, count, name="talk")
    assert run(talk, "tea") == start(talk, "tea").result() == 4
    metrics = last_run().metrics
    assert metrics.workflow == "talk"
    assert [s.name for s in metrics.steps] == ["outline", "shorten"]
    assert [c.workflow for c in metrics.children] == ["count"]


async def test_a_chain_is_an_async_workflow() -> None:
    """It is awaited by itself, with ``arun``, or in another workflow."""
    talk = chain(outline, parse)
    assert is_workflow(talk)
    assert inspect.iscoroutinefunction(talk)
    assert await talk("tea") == await arun(talk, "tea") == ["three", "points", "about", "tea"]


def test_a_string_in_a_chain_is_a_prompt(background: str) -> None:
    """Its one name takes the output before it."""
    llm = AsyncMockLLM(["a title"])
    assert run(chain(outline, "Write a title for: {text}", parse, llm=llm), "tea") == ["a", "title"]
    assert asked(llm) == "Write a title for: three points about tea"
    assert [s.name for s in last_run().metrics.steps] == ["outline", "prompt"]


def test_the_model_of_a_run_holds_in_a_chain(background: str) -> None:
    """A chain's prompts take the run's model where none is given."""
    register_provider("mock", MockProvider(lambda request: request.model))
    assert run(with_options(chain("Title for {text}"), model="mock:m"), "tea") == "m"


def test_a_chain_looks_like_a_function() -> None:
    """Its signature is the input of the first link and the output of the last; its doc names the links."""
    talk = chain(outline, "Title: {x}", count_letters, name="talk")
    assert str(inspect.signature(talk)) == "(topic: str) -> int"
    assert (talk.__name__, talk.__doc__) == ("talk", "outline → prompt → count_letters")


def count_letters(text: str) -> int:
    return len(text)


def test_the_input_of_a_chain_goes_by_its_name() -> None:
    """A chain takes its input by position or by the name that its signature shows."""
    talk = chain(outline, parse)
    assert run(talk, topic="tea") == run(talk, "tea")


def test_the_input_of_a_chain_is_checked() -> None:
    """It is a workflow: an input that does not fit the first link's hint is refused."""
    with pytest.raises(InputError, match="topic"):
        run(chain(outline, parse), 3)


def test_neighbours_that_do_not_fit_are_named_at_definition() -> None:
    """All misfits are told at once, each with both links and both types."""
    with pytest.raises(DefinitionError) as caught:
        chain(parse, outline, count)
    assert "parse gives list[str], but outline takes str" in str(caught.value)
    assert "outline gives str, but count takes list[str]" in str(caught.value)


def takes_two(a: int, b: int) -> int:
    return a + b


def takes_none() -> int:
    return 1


def test_a_prompt_in_a_chain_has_a_name_that_a_function_can_have() -> None:
    """A word of Python is none."""
    with pytest.raises(DefinitionError, match="{from} is a word of Python"):
        chain("Translate {from}")


def test_links_take_one_input() -> None:
    """A link that takes none or several inputs is refused by its signature, all of them at once."""
    with pytest.raises(DefinitionError) as caught:
        chain(takes_two, takes_none, lambda a, b=1: a)
    assert "takes_two(a, b) does not take a single input" in str(caught.value)
    assert "takes_none() does not take a single input" in str(caught.value)
    assert "lambda" not in str(caught.value)


@pytest.mark.parametrize(("template", "count"), [("Hi", 0), ("{a} and {b}", 2)])
def test_a_prompt_in_a_chain_has_one_name(template: str, count: int) -> None:
    """A template with no or several names has no single input."""
    with pytest.raises(DefinitionError, match=f"and has {count}"):
        chain(outline, template)


@pytest.mark.parametrize("links", [(), (3,), (None, outline)])
def test_what_is_no_link_is_refused(links: Any) -> None:
    """An empty chain, and a link that is neither function nor prompt."""
    with pytest.raises(DefinitionError, match=r"needs at least one|is neither a step nor a prompt"):
        chain(*links)


def test_hints_that_say_nothing_fit_everything() -> None:
    """Links without hints can stand anywhere."""
    assert run(chain(lambda x: x + 1, lambda y: y * 2, float), 1) == 4.0


def test_a_chain_may_be_a_link(background: str) -> None:
    """A chain in a chain is a child run."""
    inner = chain(outline, parse, name="inner")
    assert run(chain(inner, count), "tea") == 4
    assert [c.workflow for c in last_run().metrics.children] == ["inner", "count"]


def test_a_failure_in_a_chain_names_its_step() -> None:
    """The exception passes unchanged, with the link's name."""

    @step
    def breaks(text: str) -> str:
        raise KeyError(text)

    with pytest.raises(KeyError) as caught:
        run(chain(outline, breaks, parse), "tea")
    assert failure_of(caught.value).step == "breaks"


def test_a_typed_model_step_is_a_link() -> None:
    """A step with a model argument of its own needs only its one input."""

    @step
    def title(text: str, llm: LLM = MockLLM([Title("T")])) -> Title:
        return llm.ask(text, Title)

    async def shown(title: Title) -> str:
        return title.text

    assert run(chain(outline, title, shown), "tea") == "T"
    assert isinstance(AsyncLLM(), AsyncLLM)
