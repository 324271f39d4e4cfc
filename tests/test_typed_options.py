"""The typed keyword arguments name exactly the options and settings that exist."""

from attrs import fields

from flowlet.settings import Changes, Settings
from flowlet.specs import Options, RunOptions, StepOptions


def test_with_options_takes_all_options_of_steps_and_runs() -> None:
    """What a type checker accepts, the runtime knows, and the other way round."""
    names = {a.name for recipe in (StepOptions, RunOptions) for a in fields(recipe)}
    assert set(Options.__annotations__) == names | {"name"}


def test_configure_takes_all_settings() -> None:
    """A setting that is added has a keyword of its own."""
    assert set(Changes.__annotations__) == {a.name for a in fields(Settings)}
