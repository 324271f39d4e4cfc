"""What the tokens of a model call cost, in US dollars, by the price list that genai-prices brings along.

The list is the installed one; nothing is looked up over the network. It knows providers by flowlet's
names (``openai``, ``anthropic``, …) and by names that contain them (``google-vertex``). Cached and
reasoning tokens have their own prices where the list tells one. A cost that is not known is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs.converters import optional

from ._value import Shown
from .errors import ConfigError
from .metrics import TokenUsage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, TieredPrices

__all__ = ["Price", "cost_of", "load"]


def _dollars(value: Decimal | float | str) -> Decimal:
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        price = Decimal("NaN")
    if not (price.is_finite() and price >= 0):
        raise ConfigError(f"a price is a number of US dollars per million tokens, 0 or more; found {value!r}")
    return price


@frozen(repr=False)
class Price(Shown):
    """A model's price in US dollars per million tokens.

    Attributes:
        input: what a million tokens of prompts cost.
        output: what a million tokens of answers cost.
        cached_input: what a million tokens cost that the provider had cached; as other input if not told.

    Raises:
        ConfigError: a price is not a number, or negative.
    """

    input: Decimal = field(converter=_dollars)
    output: Decimal = field(converter=_dollars)
    cached_input: Decimal | None = field(default=None, converter=optional(_dollars))


def load() -> None:
    """Import the price list, which takes 0.3 s, so that the first :func:`cost_of` does not have to."""
    _model_info("openai", "")


def cost_of(
    provider: str, model: str, usage: TokenUsage, prices: Mapping[str, Price] | None = None
) -> Decimal | None:
    """Compute the cost of *usage* at today's price, or None where the price or the tokens are not known.

    *prices* by ``"provider:model"`` go before the list. The list's fee for each request is included;
    searches and other extras are not. Tokens that can't be right (more cached than sent) have no cost.
    """
    if usage.source == "unknown" or not _is_possible(usage):
        return None
    own = prices.get(f"{provider}:{model}") if prices else None
    if own is not None:
        return _cost(usage, _Rates(own.input, own.output, own.cached_input))
    listed = _model_info(provider, model)
    return None if listed is None else _cost(usage, _listed_rates(listed, usage.prompt_tokens))


def _is_possible(usage: TokenUsage) -> bool:
    return 0 <= usage.cached_tokens <= usage.prompt_tokens and (
        0 <= usage.reasoning_tokens <= usage.completion_tokens
    )


@lru_cache(maxsize=1024)  # misses too: each costs a walk through the list
def _model_info(provider: str, model: str) -> ModelInfo | None:
    from genai_prices.data_snapshot import get_snapshot

    try:
        return get_snapshot().find_provider_model(model, None, provider, None)[1]
    except LookupError:
        return None


@frozen
class _Rates:
    """Dollars per million tokens and per thousand requests; not every token has a rate of its own."""

    input: Decimal | None
    output: Decimal | None
    cached: Decimal | None = None
    reasoning: Decimal | None = None
    thousand_requests: Decimal = Decimal(0)


def _listed_rates(listed: ModelInfo, prompt_tokens: int) -> _Rates:
    prices: Mapping[str, Decimal | TieredPrices] = vars(listed.get_prices(datetime.now(UTC)))

    def rate(name: str) -> Decimal | None:
        return _of_tier(prices.get(name), prompt_tokens)

    return _Rates(
        input=rate("input_mtok"),
        output=rate("output_mtok"),
        cached=rate("cache_read_mtok"),
        reasoning=rate("output_reasoning_mtok"),
        thousand_requests=rate("requests_kcount") or Decimal(0),
    )


def _of_tier(price: Decimal | TieredPrices | None, prompt_tokens: int) -> Decimal | None:
    """Choose the tier; it holds for all tokens of a call, not only for those above its start."""
    if price is None or isinstance(price, Decimal):
        return price
    passed = [tier.price for tier in price.tiers if prompt_tokens > tier.start]
    return passed[-1] if passed else price.base


def _cost(usage: TokenUsage, rates: _Rates) -> Decimal | None:
    """Sum up as ``genai_prices.calc_price`` does, which takes 90 µs; but a missing price is not 0."""
    if rates.input is None and rates.output is None:
        return None
    total = Decimal(0)
    for tokens, rate in (
        (usage.prompt_tokens - usage.cached_tokens, rates.input),
        (usage.cached_tokens, rates.input if rates.cached is None else rates.cached),
        (usage.completion_tokens - usage.reasoning_tokens, rates.output),
        (usage.reasoning_tokens, rates.output if rates.reasoning is None else rates.reasoning),
    ):
        if rate is not None:
            total += tokens * rate
        elif tokens:
            return None
    return total / 1_000_000 + rates.thousand_requests / 1_000
