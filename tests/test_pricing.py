"""The cost of a call is that of the price list, or None."""

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot

from flowlet.errors import ConfigError
from flowlet.metrics import UNKNOWN, TokenUsage
from flowlet.pricing import Price, cost_of

USAGE = TokenUsage(1000, 100, 1100, cached_tokens=400, reasoning_tokens=60)


def test_cached_tokens_have_their_own_price():
    """600 fresh and 400 cached tokens in, 100 tokens out, reasoning among them."""
    fresh, cached, out = Decimal("0.25"), Decimal("0.025"), Decimal(2)
    assert cost_of("openai", "gpt-5-mini", USAGE) == (600 * fresh + 400 * cached + 100 * out) / 1_000_000


def test_a_price_is_needed_only_for_tokens_that_were_used():
    """An embedding has a price for what goes in, and nothing comes out."""
    assert cost_of("openai", "text-embedding-3-small", TokenUsage(1_000_000)) == Decimal("0.02")


def test_reasoning_tokens_have_their_own_price_where_the_list_tells_one():
    """One model of the list charges for reasoning apart: 2 in, 8 out, 3 for reasoning."""
    cost = cost_of("perplexity", "sonar-deep-research", TokenUsage(1000, 100, 1100, 0, 60))
    assert cost == Decimal(1000 * 2 + 40 * 8 + 60 * 3) / 1_000_000


@pytest.mark.parametrize("prompt", [0, 1, 127_999, 200_000, 200_001, 1_000_000])
def test_the_whole_list_gives_what_genai_prices_computes(prompt):
    """Tiers, cached tokens and fees of every model that has a price for its tokens, on today's date."""
    usage = TokenUsage(prompt, 500, prompt + 500, cached_tokens=prompt // 3)
    theirs = genai_prices.Usage(input_tokens=prompt, output_tokens=500, cache_read_tokens=prompt // 3)
    priced = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            cost = cost_of(provider.id, model.id, usage)
            if cost is not None:
                listed = genai_prices.calc_price(theirs, model.id, provider_id=provider.id)
                assert cost == listed.total_price, (provider.id, model.id)
                priced += 1
    assert priced > 1000


def test_the_list_is_asked_for_the_price_of_today():
    """A model that became cheaper costs what it costs now."""
    usage = TokenUsage(1_000_000, 0, 1_000_000)
    price = get_snapshot().find_provider_model("o3", None, "openai", None)[1].get_prices(datetime.now(UTC))
    assert cost_of("openai", "o3", usage) == price.input_mtok


@pytest.mark.parametrize(
    ("provider", "model", "usage"),
    [
        ("openai", "no-such-model", USAGE),
        ("no-such-provider", "gpt-5-mini", USAGE),
        ("offline", "offline", USAGE),
        ("openai", "", USAGE),
        ("openai", "gpt-5-mini", UNKNOWN),
        ("openai", "gpt-5-mini", TokenUsage(100, 1, 101, cached_tokens=101)),
        ("openai", "gpt-5-mini", TokenUsage(100, 1, 101, reasoning_tokens=2)),
        ("openai", "gpt-5-mini", TokenUsage(-1, 1, 0)),
        ("cerebras", "qwen-3-coder-480b", TokenUsage()),
        ("openai", "text-embedding-3-small", TokenUsage(10, 10, 20)),
    ],
)
def test_what_is_not_known_is_none_and_never_zero(provider, model, usage):
    """No model, no price, no tokens, or tokens that can't be: no cost."""
    assert cost_of(provider, model, usage) is None


def test_own_prices_go_before_the_list():
    """A mapping by `provider:model` prices what the list does not know, and corrects what it does."""
    prices = {"mine:m": Price(2, "4.5", 0.5), "openai:gpt-5-mini": Price(1, 1)}
    assert cost_of("mine", "m", USAGE, prices) == Decimal(600 * 2 + 400 * Decimal("0.5") + 450) / 1_000_000
    assert cost_of("openai", "gpt-5-mini", USAGE, prices) == Decimal(1100) / 1_000_000
    assert cost_of("mine", "other", USAGE, prices) is None


@pytest.mark.parametrize("wrong", ["much", -1, float("nan"), float("inf")])
def test_a_price_that_is_none_is_refused(wrong):
    """A price is a number, 0 or more."""
    with pytest.raises(ConfigError, match=r"US dollars per million tokens.*found"):
        Price(1, wrong)


def test_the_price_list_is_imported_late_and_opens_no_socket():
    """Importing pricing imports no list; load() does, with the network forbidden."""
    script = """
import sys, socket
import flowlet.pricing
assert "genai_prices" not in sys.modules and "pydantic" not in sys.modules
def refuse(*args): raise AssertionError("the network")
socket.socket.connect = socket.getaddrinfo = refuse
flowlet.pricing.load()
assert "genai_prices.data" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
