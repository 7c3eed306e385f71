"""Which part of an answer is graded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence.grading.final_answer import answer_of, boxed, reference_answer, stated, whole_words
from gateway.evidence.grading.grade import ModelAnswer


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ("42", "42"),
        ("  42\n", "42"),
        (None, ""),
        ("", ""),
        ("<think>6 × 7</think>\n\n42", "42"),
        ("6 × 7</think>42", "42"),  # the template wrote <think> into the prompt
        ("<think>6 × 7 is 42, so the answer is 42", ""),  # the thought never ended
        ("<think></think>", ""),
        ("so</think>`</think>` ends a thought.", "`</think>` ends a thought."),
        ("The tag <think> begins a thought.", "The tag <think> begins a thought."),
    ],
)
def test_answer_comes_after_the_thought(content: str | None, answer: str) -> None:
    assert answer_of(content, "stop") == ModelAnswer(answer)


def test_other_marks() -> None:
    """A family with marks of its own names the one that ends a thought."""
    assert answer_of("[THINK]so[/THINK]42", end="[/THINK]").text == "42"
    assert answer_of("[THINK]so", end="[/THINK]").text == ""


def test_cut_answers_are_known() -> None:
    assert answer_of("The answer is 4", "length").cut
    assert not answer_of("The answer is 4", "stop").cut


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("The answer is 12", "The answer is "),  # perhaps of 128
        ("The answer is 12.", "The answer is "),  # perhaps of 12.5
        ("The answer is 12 ", "The answer is "),  # white space at the end was stripped before
        ("so \\boxed{12}", "so \\boxed{12}"),
        ("so **12**", "so **12**"),
        ("so 12\nNow", "so 12\n"),
    ],
)
def test_a_cut_word_does_not_count(text: str, kept: str) -> None:
    assert whole_words(ModelAnswer(text, cut=True)) == kept
    assert whole_words(ModelAnswer(text)) == text.rstrip()


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{42}", "42"),
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed 5", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed{3} then \boxed{4", "3"),
        (r"\boxed{}", None),
        (r"\boxed", None),
        ("boxed{3}", None),
    ],
)
def test_boxed(text: str, inside: str | None) -> None:
    assert boxed(text) == inside


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The answer is 42.", "42."),
        ("**Answer:** 42", "42"),
        ("**Answer: 42**", "42**"),
        ("Final answer\n\n42", "42"),
        ("### Final Answer:\n\\[\n42\n\\]", "42"),
        ("The answer to 3.5 + 2 is 5.5", "5.5"),
        ("The answer is 41. No: the answer is 42", "42"),
        ("The answer should be 42", "42"),
        ("Die Antwort ist 42", "42"),
        ("La respuesta es 42", "42"),
        ("La réponse est : 42", "42"),
        ("最终答案是 42", "42"),
        ("答案：42", "42"),
        ("6 × 7\n#### 42", "42"),
        ("The answer is 41, as \\boxed{42} says", "42"),
        ("The answer is not 5 but 6.", "6."),
        ("The answer is 6. The answer is not 5.", "6. The answer is not 5."),
        ("The answer is not 5.", None),
        ("So it is 42", None),
        ("The answer is", None),
        ("An answer: ***", None),
    ],
)
def test_stated(text: str, said: str | None) -> None:
    assert stated(text) == said


def test_reference_may_be_a_solution() -> None:
    """GSM8K's references end with ####, those of MATH have a box."""
    assert reference_answer("48/2 = 24\n48 + 24 = 72\n#### 72") == "72"
    assert reference_answer("We have $x = \\boxed{\\frac{1}{2}}$.") == "\\frac{1}{2}"
    assert reference_answer(" 72 ") == "72"


@given(st.text(alphabet="answer is:=\n#{}\\boxed<>/think .4答案"), st.booleans())
def test_any_text_can_be_read(text: str, cut: bool) -> None:
    """No text makes the search fail, and what is found is a part of the text."""
    answer = answer_of(text, "length" if cut else None)

    assert whole_words(answer) in answer.text
    for found in (stated(text), boxed(text)):
        assert found is None or found in text
