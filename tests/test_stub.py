"""A stub answers for a step inside a run, and the run goes on as if it were the step."""

import pytest

from flowlet import arun, last_run, run, step, with_options, workflow
from flowlet.errors import DefinitionError
from flowlet.testing import stub


@step
def fetch(url: str, *, depth: int = 1) -> str:
    raise AssertionError("not in a test")


@step
async def afetch(url: str) -> str:
    raise AssertionError("not in a test")


@step
def shout(text: str) -> str:
    return text.upper()


@workflow
def page(url: str) -> str:
    return shout(fetch(url, depth=2))


@workflow
async def apage(url: str) -> str:
    return shout(fetch(url, depth=2)) + await afetch(url)


def test_a_value_answers_every_call() -> None:
    """The step's own body is not entered, other steps are, and the calls can be looked at."""
    fetched = stub(fetch, "leaves")
    assert run(with_options(page, middleware=[fetched]), "x") == "LEAVES"
    assert [(call.args, call.kwargs) for call in fetched.calls] == [(("x",), {"depth": 2})]
    assert [s.name for s in last_run().metrics.steps] == ["fetch", "shout"]


@pytest.mark.anyio
async def test_a_function_takes_the_steps_arguments(anyio_backend: str) -> None:
    """Of either colour for an async step."""

    async def afetched(url: str) -> str:
        return f"async {url}"

    for second in (afetched, lambda url: f"async {url}"):
        stubs = [stub(fetch, lambda url, depth: f"{url}{depth}"), stub(afetch, second)]
        assert await arun(with_options(apage, middleware=stubs), "x") == "X2async x"


def test_an_exception_is_raised() -> None:
    """As the step would raise it, with the step's name."""
    with pytest.raises(ConnectionError) as caught:
        run(with_options(page, middleware=[stub(fetch, ConnectionError("down"))]), "x")
    assert "'fetch'" in caught.value.__notes__[0]


def test_what_can_not_be_stubbed_is_told() -> None:
    """A function that is no step, and an async answer for a sync step."""

    async def afetched(url: str, depth: int) -> str:
        return url

    with pytest.raises(DefinitionError, match="not page"):
        stub(page, "x")
    with pytest.raises(DefinitionError, match="sync step 'fetch'"):
        stub(fetch, afetched)
