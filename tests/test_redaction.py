"""No spelling of a registered secret stays in a redacted text."""

import json
import re
import threading
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlet.redaction import REDACTED, Redactor

SECRET = 'fl-c4n4ry/Key+with "odd" ünits&=\\9Z'
SECRETS = st.text(st.characters(exclude_characters="<>"), min_size=8, max_size=40).map(str.strip)
SECRETS = SECRETS.filter(lambda secret: len(secret) >= 8)


def in_lower_case(url: str) -> str:
    return re.sub("%..", lambda found: found[0].lower(), url)


SPELLINGS = {
    "whole": str,
    "repr": lambda s: repr(s)[1:-1],
    "json": lambda s: json.dumps(s)[1:-1],
    "json, not ascii": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "json in json": lambda s: json.dumps(json.dumps(s))[3:-3],
    "json with slashes escaped": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "url": lambda s: quote(s, safe="", errors="surrogatepass"),
    "url with slashes": lambda s: quote(s, errors="surrogatepass"),
    "url in lower case": lambda s: in_lower_case(quote(s, safe="/:+&=", errors="surrogatepass")),
    "form": lambda s: quote_plus(s, errors="surrogatepass"),
}


def redactor_of(*secrets: str) -> Redactor:
    redactor = Redactor()
    for secret in secrets:
        redactor.register(secret)
    return redactor


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_of_a_secret_is_replaced(spelling):
    """The secret goes, whole or cut after 12 characters or more, and what stands around it stays."""
    redactor = redactor_of(SECRET)
    for length in range(12, len(SECRET) + 1):
        text = spelling(SECRET[:length])
        assert redactor.redact(f"<{text}>") == f"<{REDACTED}>"
        assert redactor.contains_secret(f"<{text}>")


@given(SECRETS, st.sampled_from(list(SPELLINGS.values())), st.text("<>\n", max_size=3))
def test_any_secret_in_any_spelling_is_replaced(secret, spelling, around):
    """What holds for one secret holds for all of them."""
    text = spelling(secret)
    assert text not in redactor_of(secret).redact(f"{around}{text}{around}")


@given(SECRETS, st.binary(max_size=5), st.binary(max_size=5), st.sampled_from([b64encode, urlsafe_b64encode]))
def test_base64_is_replaced_wherever_the_secret_starts(secret, before, after, encode):
    """All three alignments, in both alphabets, leave at most a character at either end that others share."""
    data = secret.encode("utf-8", "surrogatepass")
    text = encode(before + data + after).decode()
    redacted = redactor_of(secret).redact(text)
    assert REDACTED in redacted
    own = (len(data) * 8) // 6
    assert len(redacted) - len(REDACTED) <= len(text) - own + 1


@given(st.data(), SECRETS, SECRETS)
def test_secrets_that_overlap_both_go(data, first, rest):
    """When the end of a secret is the beginning of another, nothing of either stays."""
    shared = data.draw(st.integers(1, len(first)))
    redactor = redactor_of(first, first[-shared:].lstrip() + rest)
    assert redactor.redact(f"<{first}{rest}>") == f"<{REDACTED}>"


def test_secrets_with_the_same_beginning_are_told_apart():
    """Keys of one vendor begin alike; each is replaced to its own end."""
    redactor = redactor_of("vendor-api-03-alpha", "vendor-api-03-beta-beta", "vendor-a")
    text = "vendor-api-03-alpha vendor-api-03-beta-beta vendor-api-03-al vendor-a vendor-x"
    assert redactor.redact(text) == " ".join([REDACTED] * 4 + ["vendor-x"])


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("key sk-proj-abcdEFGH12345678!", f"key {REDACTED}!"),
        ("line\\nsk-proj-abcdEFGH12345678", f"line\\n{REDACTED}"),
        ("key%3Dsk-proj-abcdEFGH12345678", f"key%3D{REDACTED}"),
        ("Authorization: Bearer abc.def-ghi_jkl/mno=", f"Authorization: Bearer {REDACTED}"),
        ("authorization: bearer%20abcdefghijklmnopqrst", f"authorization: bearer%20{REDACTED}"),
        ("a task-management-application", "a task-management-application"),
        ("the bearer of bad news", "the bearer of bad news"),
    ],
)
def test_what_looks_like_a_key_is_replaced_without_being_registered(text, redacted):
    """Key shapes go, words stay; and a shape alone is no secret that a recording would be refused for."""
    assert Redactor().redact(text) == redacted
    assert not Redactor().contains_secret(text)


def test_short_secrets_are_ignored():
    """Less than 8 characters would match words; space around a secret is no part of it."""
    redactor = redactor_of("seven77", "  eight888\n")
    assert redactor.redact("seven77 eight888.") == f"seven77 {REDACTED}."
    assert not redactor.contains_secret("seven77")


@given(st.text())
def test_a_text_without_secrets_stays_as_it_is(text):
    """Nothing is changed that is no secret."""
    assert redactor_of("fl-canary-0123456789").redact(text) == text


def test_the_redactor_does_not_show_its_secrets():
    """Neither repr nor str tell more than a number."""
    assert str(redactor_of(SECRET)) == "<Redactor of 1 secrets>"


def test_threads_register_and_redact_at_once():
    """No registration is lost, and no reader sees a half of one."""
    redactor = Redactor()
    secrets = [f"canary-{n:04}-abcdefgh" for n in range(40)]

    def work(mine: list[str]) -> None:
        for secret in mine:
            redactor.register(secret)
            assert redactor.redact(secret) == REDACTED

    threads = [threading.Thread(target=work, args=(secrets[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redactor.redact(" ".join(secrets)) == " ".join([REDACTED] * 40)
