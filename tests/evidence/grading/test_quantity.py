"""Numbers are found in any notation."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.evidence.grading.number_words import words_as_numbers
from gateway.evidence.grading.plain_text import without_markup
from gateway.evidence.grading.quantity import equal, only_quantity, quantities


def values(text: str) -> list[Fraction]:
    return [quantity.value for quantity in quantities(without_markup(text))]


NOTATIONS = [
    ("42", 42),
    ("-5", -5),
    ("−5", -5),
    ("–5", -5),
    ("x=-5", -5),
    ("minus 5", -5),
    ("negative 5", -5),
    ("+5", 5),
    ("1,234", 1234),
    ("1,234,567.89", "1234567.89"),
    ("12,34,567", 1234567),
    ("1 234 567", 1234567),
    ("1\u202f234", 1234),
    ("1'234", 1234),
    ("1_234", 1234),
    ("1.234.567", 1234567),
    ("1.234,56", "1234.56"),
    ("3,5", "3.5"),
    ("0,125", "0.125"),
    (".5", "0.5"),
    ("1.5e3", 1500),
    ("1.5E-3", "0.0015"),
    ("1.5 × 10^3", 1500),
    ("1.5 x 10^-3", "0.0015"),
    ("1.5 × 10⁻³", "0.0015"),
    (r"1.5 \times 10^{3}", 1500),
    ("10^6", 10**6),
    ("2^10", 1024),
    ("3/4", "3/4"),
    ("-3/4", "-3/4"),
    ("½", "1/2"),
    ("2½", "5/2"),
    ("2 1/2", "5/2"),
    ("2 + 1/2", "5/2"),
    (r"\frac{3}{4}", "3/4"),
    (r"-\dfrac{3}{4}", "-3/4"),
    (r"\frac34", "3/4"),
    (r"3\frac{1}{2}", "7/2"),
    (r"\$1{,}000", 1000),
    (r"1\,000", 1000),
    ("$42$", 42),
    (r"\(42\)", 42),
    ("**42**", 42),
    ("$1,234.50", "1234.5"),
    ("-$5", -5),
    ("$-5", -5),
    ("€ 5", 5),
    ("5$", 5),
    ("5 million", 5_000_000),
    ("$5M", 5_000_000),
    ("2k", 2000),
    ("3 dozen", 36),
    ("two hundred and five", 205),
    ("twenty-one", 21),
    ("3rd", 3),
    ("４２", 42),
]


@pytest.mark.parametrize(("text", "value"), NOTATIONS)
def test_notation(text: str, value: int | str) -> None:
    """A number on its own, and in a sentence."""
    assert values(text) == [Fraction(value)]
    assert values(f"It costs {text} in all") == [Fraction(value)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10-5", [10, 5]),
        ("3–5", [3, 5]),
        ("(1,2)", [1, 2]),
        ("1, 2, 3", [1, 2, 3]),
        ("GPT4 and H2O and v2.1", []),
        ("36 m^2", [36]),
        ("1/0", []),
        ("3/4/2020", [3, 4, 2020]),
        ("24 = 12 * 2", [24, 12, 2]),
        ("$5 and $10", [5, 10]),
        ("$5-$10", [5, 10]),
        ("<<9*2=18>>18", [9, 2, 18, 18]),
        ("one apple and 2 pears", [2]),  # words count where there are no digits
        ("no number", []),
    ],
)
def test_several(text: str, found: list[int]) -> None:
    assert values(text) == found


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_any_decimal(number: object) -> None:
    """However its groups are separated, a decimal number is read as itself."""
    plainly, grouped = f"{number:f}", f"{number:,f}"
    european = grouped.translate(str.maketrans(",.", ".,"))

    assert values(plainly) == values(grouped) == [Fraction(str(number))]
    assert values(f"It is {plainly}.") == [Fraction(str(number))]
    if "." in european:
        assert values(european) == [Fraction(str(number))]


@given(st.integers(-(10**6), 10**6), st.integers(1, 999), st.integers(1, 999))
def test_any_fraction(whole: int, upper: int, lower: int) -> None:
    """Fractions in plain text and LaTeX, alone and mixed."""
    assume(upper < lower)
    part = Fraction(upper, lower)
    mixed = abs(whole) + part

    assert values(f"{upper}/{lower}") == values(rf"$\frac{{{upper}}}{{{lower}}}$") == [part]
    assert values(f"{abs(whole)} {upper}/{lower}") == [mixed]
    assert values(rf"{abs(whole)}\frac{{{upper}}}{{{lower}}}") == [mixed]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float(number: float) -> None:
    assert [float(value) for value in values(repr(number))] == [number]


@given(st.integers(0, 99))
def test_any_small_number_in_words(number: int) -> None:
    small = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    names = [*small.split(), "sixteen", "seventeen", "eighteen", "nineteen"]
    tens = "twenty thirty forty fifty sixty seventy eighty ninety".split()
    word = (
        names[number]
        if number < 20
        else "-".join([tens[number // 10 - 2], *([names[number % 10]] if number % 10 else [])])
    )

    assert [value for value, *_ in words_as_numbers(f"There are {word} of them")] == [number]


@given(st.text(alphabet=st.sampled_from("0123456789.,-+/^$%eE \\{}frac×½m'")))
def test_any_text_can_be_read(text: str) -> None:
    for quantity in quantities(without_markup(text)):
        assert quantity.start < quantity.end


def test_huge_numbers_are_no_numbers() -> None:
    """Nobody means them, and to compute with them could take minutes."""
    assert values("9" * 5000) == []
    assert values("1e9999") == []
    assert values("99^999") == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12 km", "12,000 m"),
        ("12 km", "12"),
        ("12", "12 km"),
        ("1 foot", "12 in."),
        ("36 m²", "36 square meters"),
        ("1 m^2", "10000 cm²"),
        ("1 L", "1000 cm^3"),
        ("2 cubic feet", "2 ft^3"),
        ("60 km/h", "60 kilometers per hour"),
        ("36 km/h", "10 m/s"),
        ("$5", "500 cents"),
        ("$5", "5 dollars"),
        ("$12/hour", "12 dollars per hour"),
        ("2 hours", "120 minutes"),
        ("30°", "30 degrees"),
        (r"$30^\circ$", "30°"),
        ("1.5 kg", "1500 g"),
        ("50%", "50 percent"),
        ("50%", "50"),
        ("50%", "0.5"),
        ("0.5", "50%"),
        ("5 apples", "5 pears"),  # they are no units
        (r"5 \text{ cm}", "50 mm"),
        ("1 GB", "1000 MB"),
        ("1 year", "12 months"),
    ],
)
def test_equal_with_units(one: str, other: str) -> None:
    first, second = quantities(without_markup(one))[0], quantities(without_markup(other))[0]

    assert equal(first, second, Fraction(0), Fraction(0))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12 km", "12 m"),
        ("12 km", "12 kg"),
        ("5 m", "5 m²"),
        ("60 km/h", "60 mph"),
        ("$5", "€5"),
        ("50%", "5"),
        ("5", "6"),
    ],
)
def test_different(one: str, other: str) -> None:
    first, second = quantities(without_markup(one))[0], quantities(without_markup(other))[0]

    assert not equal(first, second, Fraction(1, 1000), Fraction(0))


@pytest.mark.parametrize(
    "text", ["42", "-1.5 km", "$5", "42 apples", r"\frac{1}{2}", "50%", "seven", "2^10", "1,234."]
)
def test_is_a_quantity(text: str) -> None:
    assert only_quantity(text)


@pytest.mark.parametrize(
    "text", ["", "B", "12:30", "3 or 4", "5 golden rings", "x + 2", r"2\pi", r"\sqrt{2}", "No. 5", "10!"]
)
def test_is_no_quantity(text: str) -> None:
    assert only_quantity(text) is None
