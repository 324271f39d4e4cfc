"""Finding personal data: each kind, what only looks like it, overlaps, masks, detectors of others."""

import subprocess
import sys
import types
from collections.abc import Iterable

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from flowlet import ConfigError, DefinitionError, PluginError
from flowlet.pii import Match, find, kinds, mask
from flowlet.pii._masking import Masking, Refill
from flowlet.pii._match import resolved
from flowlet.pii.presidio import presidio


def kinds_in(text: str) -> list[tuple[str, str]]:
    return [(match.kind, text[match.start : match.end]) for match in find(text)]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("email", "write to o'neil+x@mail.example.co.uk.", "o'neil+x@mail.example.co.uk"),
        ("email", "<üser@exämple.de>", "üser@exämple.de"),
        ("phone", "United Kingdom: 020 7123 4567", "020 7123 4567"),
        ("phone", "on 2024-05-06 415-555-0132 rang", "415-555-0132"),
        ("phone", "my number is (+44) 20 7123 4567", "(+44) 20 7123 4567"),
        ("phone", "reach me (415-555-0132 x 12)", "415-555-0132 x 12"),
        ("card", "paid with 3714 496353 98431", "3714 496353 98431"),
        ("card", "paid with 4012-8888-8888-1881", "4012-8888-8888-1881"),
        ("iban", "to AL47 2121 1009 0000 0002 3569 8741 now", "AL47 2121 1009 0000 0002 3569 8741"),
        ("iban", "no93 8601 1117 947", "no93 8601 1117 947"),
        ("ip", "Visit http://[2001:db8::1]/path", "2001:db8::1"),
        ("ip", "up: fe80::1ff:fe23:4567:890a%eth2!", "fe80::1ff:fe23:4567:890a%eth2"),
        ("ip", "from 10.0.0.1:8080", "10.0.0.1"),
        ("ip", "host:2001:db8::1: unreachable", "2001:db8::1"),
        ("ip", "::ffff:192.168.1.1:80", "::ffff:192.168.1.1"),
        ("mac", "aabb.ccdd.eeff", "aabb.ccdd.eeff"),
        ("mac", "eth 00-1A-2B-3C-4D-5E", "00-1A-2B-3C-4D-5E"),
        ("crypto", "to 1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"),
        ("us_ssn", "she has 078-05-1123", "078-05-1123"),
        ("us_ssn", "ssn 078051123", "078051123"),
        ("us_itin", "tax 911-70-1234", "911-70-1234"),
        ("uk_nino", "AA 12 34 56 B", "AA 12 34 56 B"),
        ("uk_nhs", "NHS 401-023-2137", "401-023-2137"),
        ("au_abn", "ABN 51 824 753 556", "51 824 753 556"),
        ("au_tfn", "TFN 876 543 210", "876 543 210"),
        ("ca_sin", "my SIN: 435 418 165", "435 418 165"),
        ("de_tax_id", "Steuer-ID 36574261809", "36574261809"),
        ("es_nie", "NIE Y8063915-Z", "Y8063915-Z"),
        ("es_nie", "NIE X-1234567-L", "X-1234567-L"),
        ("es_nif", "12345678z", "12345678z"),
        ("fi_hetu", "131052-308T", "131052-308T"),
        ("in_aadhaar", "aadhaar 3998 7654 3211", "3998 7654 3211"),
        ("in_pan", "PAN ABBPM4567S", "ABBPM4567S"),
        ("it_fiscal_code", "RSSMRA85T10A562S", "RSSMRA85T10A562S"),
        ("kr_rrn", "RRN 960121-1021413", "960121-1021413"),
        ("pl_pesel", "My pesel is 44051401458.", "44051401458"),
        ("se_personnummer", "871220-2384", "871220-2384"),
        ("sg_nric", "S2740116C was here", "S2740116C"),
        ("th_id", "เลขประจำตัวประชาชน: 3456789012347", "3456789012347"),
        ("tr_id", "TC Kimlik No: 10000000146", "10000000146"),
        ("za_id", "RSA ID: 0002294321191", "0002294321191"),
    ],
)
def test_every_kind_is_found_with_its_place(kind: str, text: str, value: str) -> None:
    """The span is that of the value, without what stands around it."""
    assert kinds_in(text) == [(kind, value)]


def test_every_kind_has_such_a_case() -> None:
    """A kind that is added is added to the cases too."""
    marks: list[pytest.Mark] = test_every_kind_is_found_with_its_place.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(kinds())


@pytest.mark.parametrize(
    "text",
    [
        "at 12:34:56 on 2024-05-06, or 12.05.2024, or 12/31/1999 23:59",
        "std::cout << x[::2] and Foo::bar(), :::",
        "version 1.2.3.4.5, 192.168.1, 256.256.256.256",
        "card 4012-8888-8888-1882 and 4111111111111112",
        "GB82WEST12345698765433 is no IBAN, AL47 2121 1009 0000 0002 3569 874 neither",
        "ssn 078-05-0000, 666-12-1234, 000-12-1234, 693-09.4444",
        "@handle, a@b, info@presidio., x@-y.org",
        "order 12345678 took 1748503543012 ms and 1 000 000 bytes, π=3.14159265358979",
        "at 20789 Allika 46, 55470 72 Acheron Road, 13813 3784 Archwood Avenue",
        "commit 8f953371d3e85feddb89b05ed6b9e680791055315c73e1025ab5dba7bb2aee189",
        "aa:bb:cc:dd:ee:ff:00 and 10:2F:33-AC-29-C3",
        "",
    ],
)
def test_what_only_looks_like_it_is_left(text: str) -> None:
    """A wrong checksum, range, length or sign between groups is none."""
    assert kinds_in(text) == []


def test_a_doubtful_number_needs_a_word_or_a_place_without_words() -> None:
    """Nine digits may be anything; a word near them, or nothing at all around them, decides."""
    assert kinds_in("it weighs 078051123 grams") == []
    assert kinds_in("her ssn: 078051123") == kinds_in("1; 078051123; 2") == [("us_ssn", "078051123")]
    scores = [match.score for match in find("it weighs 078051123 grams", at_least=0.2)]
    assert scores == [0.3]


def test_kinds_limit_the_search() -> None:
    """What is not asked for is not found, and what has a surer reading is found in the other."""
    text = "a@b.org 10.0.0.1 876543210"
    assert [match.kind for match in find(text, ["ip"])] == ["ip"]
    assert [match.kind for match in find("876543210", ["us_ssn"])] == ["us_ssn"]
    assert [match.kind for match in find("876543210")] == ["au_tfn"]


def test_an_unknown_kind_is_told_with_the_right_one() -> None:
    """A slip is an error, since it would leave data unprotected."""
    with pytest.raises(DefinitionError, match="did you mean 'email'"):
        find("x", ["emial"])


def test_overlaps_go_to_the_surer_then_the_longer() -> None:
    """No character belongs to two matches."""
    low, high, long = Match("a", 0, 9, 0.5), Match("b", 4, 8, 0.9), Match("c", 6, 14, 0.9)
    assert resolved([low, high, long]) == (long,)
    assert resolved([low, high]) == (high,)
    assert resolved([Match("a", 0, 3), Match("b", 3, 5)]) == (Match("a", 0, 3), Match("b", 3, 5))


def test_mask_numbers_values_and_leaves_placeholders_alone() -> None:
    """Equal values have equal placeholders, and none that the text had before."""
    text = "a@b.org, c@d.org, a@b.org from 10.0.0.1; <EMAIL_1> is taken"
    assert mask(text) == "<EMAIL_2>, <EMAIL_3>, <EMAIL_2> from <IP_1>; <EMAIL_1> is taken"
    assert mask("a@b.org 10.0.0.1", ["ip"]) == "a@b.org <IP_1>"


def staff(text: str) -> Iterable[Match]:
    at = text.find("E-")
    return [Match("staff_id", at, at + 6, 0.9)] if at >= 0 else []


def test_detectors_of_users_join_in() -> None:
    """A function of a text that gives matches is a detector."""
    assert mask("E-1234 wrote to a@b.org", detectors=[staff]) == "<STAFF_ID_1> wrote to <EMAIL_1>"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Match("x", 0, 99), r"the span \(0, 99\) of a text of 4"),
        (Match("no good", 0, 1), "no good"),
        (5, "int"),
    ],
)
def test_a_detector_that_misbehaves_is_named(given: object, said: str) -> None:
    """What it gives must be a match in the text."""

    def bad(text: str) -> Iterable[Match]:
        return [given]  # type: ignore[list-item]

    with pytest.raises(PluginError, match=f"bad gave .*{said}"):
        find("text", detectors=[bad])


def test_a_missing_library_is_named_with_the_extra() -> None:
    """Whoever asks for what needs it hears so at once, not with the first number; the rest goes on."""
    code = """
import sys
sys.modules |= {"phonenumbers": None, "stdnum": None}
from flowlet import ConfigError
from flowlet.pii import Guard, find
ours = "email card iban ip mac us_ssn us_itin uk_nino sg_nric za_id".split()
text = "a@b.org 4012-8888-8888-1881 NO9386011117947 10.0.0.1 aabb.ccdd.eeff 078-05-1123 911-70-1234 AA123456B S2740116C"
assert [match.kind for match in find(text, ours)] == ours[:-1], find(text, ours)
Guard("mask", kinds=ours)
for ask in (lambda: find("no number"), lambda: find("", ["phone"]), lambda: find("", ["tr_id"]), lambda: Guard("mask")):
    try:
        ask()
    except ConfigError as error:
        print(str(error).splitlines()[0])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = "to find phone numbers and national ids, {} must be installed, and is not."
    names = ("phonenumbers and stdnum", "phonenumbers", "stdnum", "phonenumbers and stdnum")
    assert ran.stdout.splitlines() == [said.format(name) for name in names]


@pytest.mark.parametrize(
    "text",
    ["1" * 100_000, "1 " * 50_000, "a1" * 50_000, "@" * 100_000, ":" * 100_000, "1." * 50_000, "a:" * 50_000,
     "-aa" * 30_000, "x@" * 50_000, "a@b." * 25_000, "(" * 100_000, "+1" * 50_000, "GB82 " * 20_000, "<" * 100_000,
     "\u0661" * 10_000, "\ud800 1" * 10_000],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    """Time grows with the length alone; this runs into the limit of the test run otherwise."""
    for match in find(text):
        assert 0 <= match.start < match.end <= len(text)


@given(st.text(st.sampled_from("0123456789 .-+()/:@abcdefABCDEF_\n%[]<>é"), max_size=80))
def test_matches_are_in_order_and_apart(text: str) -> None:
    """Whatever the text, spans are inside of it, not empty, and do not overlap."""
    ends = [0]
    for match in find(text, at_least=0.0):
        assert ends[-1] <= match.start < match.end <= len(text)
        ends.append(match.end)


@given(st.text(max_size=60), st.integers(1, 7))
def test_what_is_masked_comes_back(text: str, size: int) -> None:
    """Masked and restored, whole or in pieces of any size, a text is itself again."""
    text = f"a@b.org {text} 10.0.0.1 <EMAIL_1>"
    masking = Masking([text])
    masked = masking.mask(text, find(text))
    assert "a@b.org" not in masked
    assert masking.restore(masked) == text
    refill = Refill(masking)
    pieces = [refill.feed(masked[at : at + size]) for at in range(0, len(masked), size)]
    assert "".join((*pieces, refill.rest())) == text


def test_a_stream_is_not_held_back_for_long() -> None:
    """Only what may begin a placeholder waits for the next piece."""
    masking = Masking()
    masking.mask("a@b.org", [Match("email", 0, 7)])
    refill = Refill(masking)
    assert [refill.feed(piece) for piece in ("if a < b: ", "see <EM", "AIL_1>", "!")] == [
        "if a ", "< b: see ", "a@b.org", "!",
    ]  # fmt: skip
    assert refill.feed("<" + "x" * 100) == "<" + "x" * 100


@frozen
class Result:
    """As presidio's ``RecognizerResult``."""

    entity_type: str
    start: int
    end: int
    score: float


class Engine:
    """As presidio's ``AnalyzerEngine``."""

    def analyze(self, text: str, language: str, entities: list[str] | None = None) -> list[Result]:
        assert (language, entities) == ("en", None)
        return [Result("PERSON", 0, 2, 0.85), Result("EMAIL_ADDRESS", 6, 13, 1.0)]


def test_presidio_is_a_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entities have flowlet's names where there are such, and it is imported with the first text."""
    module = types.ModuleType("presidio_analyzer")
    module.AnalyzerEngine = Engine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "presidio_analyzer", module)
    assert mask("Jo at a@b.org", detectors=[presidio()]) == "<PERSON_1> at <EMAIL_1>"
    assert [m.kind for m in find("Jo at a@b.org", ["ip"], detectors=[presidio(Engine())])] == [
        "person",
        "email",
    ]


def test_presidio_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    from flowlet.pii import presidio as module

    module._engine.cache_clear()
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(ConfigError, match="pip install presidio-analyzer"):
        find("Jo", detectors=[presidio()])
