"""``LLM`` and ``AsyncLLM``: which model to ask, and how, as values that hold no connection."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, overload

from attrs import asdict, evolve, field, fields, frozen

from ._conversation import Conversation
from ._engine import _models, _streams
from ._engine._attempts import Target
from ._live_calls import check_live
from ._suggest import nearest
from ._tracebacks import conceal
from ._value import Shown
from .context import chosen, current
from .errors import ConfigError, DefinitionError, InputError, ProviderError
from .messages import Completion, JsonValue, Message, Parameters, Request
from .observers import diagnose, follow
from .protocols import LLMProvider
from .settings import OpenAISettings, process
from .specs import checked_options

if TYPE_CHECKING:
    from typing_extensions import TypeForm

__all__ = ["LLM", "AsyncLLM", "register_provider"]

T = TypeVar("T")


class StandIn(Protocol):
    """Who stands before all providers in some code."""

    def has(self, name: str) -> bool:
        """Whether it answers for the provider *name* itself."""
        ...

    def provider(self, name: str, find: Callable[[], LLMProvider]) -> LLMProvider:
        """Give the one to ask in the place of the provider *name*, which *find* finds."""
        ...


stand_in: ContextVar[StandIn | None] = ContextVar("flowlet_stand_in", default=None)
"""Who stands before all providers here: a recording. A variable of its own, since tests have no run."""

process.follow_log = follow  # for model calls outside of any workflow
process.diagnostics = process.notices = (diagnose,)


class Builtin:
    """The built-in providers of this process, made when first asked for."""

    names = ("openai", "offline")

    def __init__(self) -> None:
        self._made: dict[str, LLMProvider] = {}
        self._openai = OpenAISettings()

    def get(self, name: str) -> LLMProvider | None:
        """The built-in provider *name*, if there is one."""
        if name == "openai" and self._openai != process.settings.openai:
            self._made.pop(name, None)
        if name not in self._made:
            if name == "openai":
                from .providers.openai import OpenAIProvider

                self._openai = where = process.settings.openai
                self._made[name] = OpenAIProvider(None, where.base_url, where.organization, where.project)
            elif name == "offline":
                from .providers.offline import OfflineProvider

                self._made[name] = OfflineProvider()
        return self._made.get(name)


def register_provider(name: str, provider: LLMProvider) -> None:
    """Make *provider* known as *name*, so that ``LLM("name:model")`` asks it.

    Raises:
        DefinitionError: it has neither ``complete`` nor ``acomplete``, or the name has a colon.
    """
    if not isinstance(name, str) or ":" in name or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DefinitionError(f"{name!r} can't name a provider: it stands before the colon in provider:model")
    if isinstance(provider, type):
        raise DefinitionError(f"register an object of it: register_provider({name!r}, {provider.__name__}())")
    if not (hasattr(provider, "complete") or hasattr(provider, "acomplete")):
        raise DefinitionError(
            f"{type(provider).__name__} is no provider: it needs complete(request), acomplete(request) or both"
        )
    with process.lock:
        process.change({"providers": {**process.settings.providers, name: provider}})


def _texts(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Make a sequence of one text or several; what is neither stays, and is refused with the other options."""
    if isinstance(given, str):
        return (given,)
    if isinstance(given, Iterable) and not isinstance(given, bytes):
        return tuple(given)
    return () if given is None else given  # pyright: ignore[reportReturnType]


@frozen(repr=False)
class _Model(Shown):
    """What sync and async models share.

    Attributes:
        model: ``provider:name``; None takes what the run or the settings say.
        temperature, max_tokens, top_p, seed, stop: sampling; what is None is taken from ``models`` in the
            settings, and else is not sent.
        system: the system prompt.
        timeout: seconds that one attempt may take, the whole answer included (None: the setting).
        attempts: how often a call is tried, the first time included (None: the setting).
        extra: goes into the request as it is, for what only one provider knows.
    """

    model: str | None = None
    system: str | None = field(default=None, kw_only=True)
    temperature: float | None = field(default=None, kw_only=True)
    max_tokens: int | None = field(default=None, kw_only=True)
    top_p: float | None = field(default=None, kw_only=True)
    seed: int | None = field(default=None, kw_only=True)
    stop: tuple[str, ...] = field(default=(), kw_only=True, converter=_texts)
    timeout: float | None = field(default=None, kw_only=True)
    attempts: int | None = field(default=None, kw_only=True)
    extra: Mapping[str, JsonValue] = field(factory=dict[str, JsonValue], kw_only=True, eq=False)

    def __attrs_post_init__(self) -> None:
        given = {a.name: getattr(self, a.name) for a in fields(_Model)}
        checked_options(type(self).__name__, {name: v for name, v in given.items() if v is not None})

    def _target(self) -> tuple[Target, str]:
        """Find the provider and the name of the model there.

        Raises:
            ConfigError: nothing says which provider to use, or it does not exist.
        """
        provider, name, model = resolve(self.model)
        return Target(provider, name, self.attempts or process.settings.attempts), model

    @property
    def __flowlet_code__(self) -> str:
        """Say what stands for it in the code of a function that takes it from outside."""
        told = asdict(self, filter=lambda a, _: a.name not in ("timeout", "attempts"))
        return json.dumps(told, sort_keys=True, default=str)

    def __flowlet_key__(self) -> JsonValue:
        """Say which model is asked, and how, for what tells one call of a step from another."""
        model = _chosen(self.model)
        system = self.system and str(self.system)  # with the fence of text from outside
        return {"model": model, "system": system, "parameters": asdict(self._parameters(model))}

    def _parameters(self, model: str) -> Parameters:
        parameters = Parameters(
            self.temperature, self.max_tokens, self.top_p, self.seed, self.stop, self.extra
        )
        for name in (model, "default"):
            if found := process.settings.models.get(name):
                parameters = _filled(parameters, found)
        return parameters

    def _request(self, messages: str | Sequence[Message], target: Target, model: str) -> Request:
        given = _messages(messages)
        system = () if self.system is None else (Message("system", self.system),)
        parameters = self._parameters(f"{target.name}:{model}")
        timeout = self.timeout or process.settings.call_timeout
        return Request(model, tuple(map(_fenced, system + given)), parameters, None, timeout)


def _filled(parameters: Parameters, defaults: Parameters) -> Parameters:
    """*parameters*, and *defaults* for what they leave open."""
    nothing = Parameters()
    names = [a.name for a in fields(Parameters)]
    open_ = [name for name in names if getattr(parameters, name) == getattr(nothing, name)]
    return evolve(parameters, **{name: getattr(defaults, name) for name in open_})


def _fenced(message: Message) -> Message:
    """*message* as it is, or with its untrusted text fenced."""
    text = str(message.content)
    return message if text is message.content else evolve(message, content=text)


def _messages(given: object) -> tuple[Message, ...]:
    if isinstance(given, str):
        return (Message("user", given),)
    kind = type(given).__name__
    found = tuple(cast("Sequence[object]", given)) if isinstance(given, Sequence) else ()
    if not found or not all(isinstance(message, Message) for message in found):
        raise InputError(f"a model is asked with text or a list of Message, not {kind}")
    return cast("tuple[Message, ...]", found)


@frozen(repr=False)
class LLM(_Model):
    """A language model for plain functions: ``LLM().ask("Name three teas.")``.

    A value: it holds no connection, and the provider is found when it is called. As the default
    argument of a step it makes the step testable as a plain function.
    """

    @overload
    def ask(self, prompt: str) -> str: ...
    @overload
    def ask(self, prompt: str, returns: TypeForm[T]) -> T: ...
    def ask(self, prompt: str, returns: Any = str) -> Any:
        """Ask for text, or for a value of type *returns*; a misfit is told to the model and asked once more.

        Raises:
            OutputError: the answer does not fit (``Refused``, ``Truncated`` where it was that).
            ProviderError: the model could not be asked.
            ConfigError: no provider is configured.
            BridgeError: the call would block an event loop; use ``AsyncLLM``.
        """
        try:
            target, model = self._target()
            talk = Conversation(target, self._request(prompt, target, model), returns)
            while not talk.over:
                try:
                    completion = _models.complete(target, talk.request)
                except ProviderError as exc:
                    talk.step_down(exc)
                else:
                    talk.hear(completion)
            return talk.value
        except Exception as exc:
            conceal(exc)
            raise

    def complete(self, messages: str | Sequence[Message]) -> Completion:
        """Continue a conversation, and give the answer with its usage and finish reason, whatever that is.

        Raises:
            ProviderError: the model could not be asked.
            ConfigError: no provider is configured.
            BridgeError: the call would block an event loop; use ``AsyncLLM``.
        """
        try:
            target, model = self._target()
            return _models.complete(target, self._request(messages, target, model))
        except Exception as exc:
            conceal(exc)
            raise

    def stream(self, prompt: str | Sequence[Message]) -> AbstractContextManager[Iterator[str]]:
        """Answer piece by piece: ``with llm.stream("...") as pieces: for text in pieces: ...``.

        The block is entered with the first piece: until then faults are tried again as in ``ask``, after it never.
        Usage is booked when the context is left; of a stream that is left early it is unknown.

        Raises:
            ProviderError: the model could not be asked, or broke off.
            BridgeError: the call would block an event loop; use ``AsyncLLM``.
        """
        target, model = self._target()
        return _streams.stream(target, self._request(prompt, target, model))


@frozen(repr=False)
class AsyncLLM(_Model):
    """A language model for async functions: ``await AsyncLLM().ask("Name three teas.")``.

    A value: it holds no connection, and the provider is found when it is called.
    """

    @overload
    async def ask(self, prompt: str) -> str: ...
    @overload
    async def ask(self, prompt: str, returns: TypeForm[T]) -> T: ...
    async def ask(self, prompt: str, returns: Any = str) -> Any:
        """Ask for text, or for a value of type *returns*; a misfit is told to the model and asked once more.

        Raises:
            OutputError: the answer does not fit (``Refused``, ``Truncated`` where it was that).
            ProviderError: the model could not be asked.
            ConfigError: no provider is configured.
        """
        try:
            target, model = self._target()
            talk = Conversation(target, self._request(prompt, target, model), returns)
            while not talk.over:
                try:
                    completion = await _models.acomplete(target, talk.request)
                except ProviderError as exc:
                    talk.step_down(exc)
                else:
                    talk.hear(completion)
            return talk.value
        except Exception as exc:
            conceal(exc)
            raise

    async def complete(self, messages: str | Sequence[Message]) -> Completion:
        """Continue a conversation, and give the answer with its usage and finish reason, whatever that is.

        Raises:
            ProviderError: the model could not be asked.
            ConfigError: no provider is configured.
        """
        try:
            target, model = self._target()
            return await _models.acomplete(target, self._request(messages, target, model))
        except Exception as exc:
            conceal(exc)
            raise

    def stream(self, prompt: str | Sequence[Message]) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Answer piece by piece: ``async with llm.stream("...") as pieces: async for text in pieces: ...``.

        The block is entered with the first piece: until then faults are tried again as in ``ask``, after it never.
        Usage is booked when the context is left; of a stream that is left early it is unknown.

        Raises:
            ProviderError: the model could not be asked, or broke off.
        """
        target, model = self._target()
        return _streams.astream(target, self._request(prompt, target, model))


def resolve(pinned: str | None) -> tuple[LLMProvider, str, str]:
    """Find the provider, its name and the model's name for what an ``LLM`` says.

    Raises:
        ConfigError: nothing says which provider to use, or it does not exist.
    """
    model = _chosen(pinned)
    name, _, own = model.partition(":")
    instead = stand_in.get()
    provider = _find(model, name) if instead is None else instead.provider(name, partial(_find, model, name))
    return provider, name, own or name


def _chosen(pinned: str | None) -> str:
    """The model to ask here: the *pinned* one, or that of a step, a run or the settings.

    Where any of them is ``offline``, that replaces the others, but for one that sends nothing.
    """
    frame = current.get()
    models = (*((pinned,) if pinned else ()), *(frame.models if frame else ()), process.settings.model)
    return models[0] if _sends_nothing(models[0].partition(":")[0]) else chosen(models)


def _sends_nothing(name: str) -> bool:
    """Whether the provider *name* is a mock, or one for which a recording answers."""
    instead, registered = stand_in.get(), process.settings.providers.get(name)
    return (instead is not None and instead.has(name)) or getattr(registered, "live", True) is False


def _find(model: str, name: str) -> LLMProvider:
    provider = process.settings.providers.get(name) or process.of(Builtin).get(name) or _installed(name)
    if provider is None:
        raise _unknown(model, name)
    if name == "openai" and name not in process.settings.providers and not _openai_is_set_up():
        raise ConfigError(NOTHING_CONFIGURED)
    if getattr(provider, "live", True):
        check_live(f"provider {name}", instead="; a fake of your own says live = False")
    return provider


def _installed(name: str) -> LLMProvider | None:
    from ._plugins import provider_named  # only names that are not built in need it

    return cast("LLMProvider | None", provider_named(name))


def _openai_is_set_up() -> bool:
    at = process.settings.openai.base_url or os.environ.get("OPENAI_BASE_URL")
    return bool(os.environ.get("OPENAI_API_KEY") or at)


NOTHING_CONFIGURED = """no model provider is configured. One of these is needed:
  - for OpenAI, set OPENAI_API_KEY=sk-... in the environment
  - for a compatible server (llama.cpp, vLLM, Ollama), set OPENAI_BASE_URL=http://localhost:8000/v1
    and FLOWLET_MODEL=openai:<its model>
  - to try flowlet without a model, set FLOWLET_MODEL=offline (answers are made up, nothing is sent)
FLOWLET_MODEL and OPENAI_BASE_URL are read when flowlet is first used; in a session that goes on,
call flowlet.configure(model="offline") instead."""


def _unknown(model: str, name: str) -> ConfigError:
    from ._plugins import installed

    names = sorted({*Builtin.names, *process.settings.providers, *installed("provider")})
    hint = nearest(name, names)
    if ":" not in model:
        meant = f"; did you mean {hint!r}?" if hint else f", such as openai:{model}"
        return ConfigError(f"model {model!r} does not say whose it is: write provider:model{meant}")
    return ConfigError(
        f"model {model!r}: there is no provider {name!r}"
        + (f"; did you mean {hint!r}?" if hint else "")
        + f". There are: {', '.join(names)}. Others are made known with "
        "flowlet.register_provider(name, provider), or by installing the package that brings one."
    )
