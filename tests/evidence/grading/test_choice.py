"""The grader of multiple choice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence.grading.choice import ChoiceGrader, options_of
from gateway.evidence.grading.grade import ModelAnswer

GRADER = ChoiceGrader()
ANIMALS = "Which animal barks?\n(A) Cat\n(B) Dog\n(C) Big dog\n(D) A cow"
CAPITALS = "What is the capital?\nA. Paris\nB. Berlin\nC. Rome"


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "(B)",
        "B.",
        "B)",
        "**B**",
        "(b)",
        "Answer: B",
        "**Answer: B**",
        "answer is (b).",
        r"\boxed{B}",
        r"$\boxed{\text{B}}$",
        r"\boxed{\text{(B) Dog}}",
        "B) Dog",
        "Dog",
        "A dog",
        "The answer is Dog.",
        "It is the dog",
        "Answer: B because A is wrong and C is too big",
        "I'd go with B",
        "B is correct, while A is not",
        "A cat meows. So the best is B.",
        "The correct answer is **(B) Dog**.",
        "The correct option is B, Dog.",
        "Option B: Dog",
        "Final answer: B. Dog\n\nI hope this helps. A question?",
        "Analysis: A is wrong.\nB is right.",
        "The answer is not A but B.",
        "Not A, but B",
        "The answer is not A. It is option B.",
        "(A) is incorrect since cats meow.\n(B) is correct.\n(C) is incorrect.",
        "A cannot bark. B can.",
    ],
)
def test_right(text: str) -> None:
    for reference in ("B", "(B)", "b", "Dog", "B. Dog"):
        assert GRADER.grade(ANIMALS, reference, ModelAnswer(text)).score == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "Cat",
        "Big dog",
        "The answer is A.",
        "not B but A",
        "The answer is not B.",
        "B is wrong",
        "E",
        "I do not know",
        "Answer: X",
        "A or B",
        "both A and B are right",
        "Answer: A and B",
        "The answer is A cow.",
    ],
)
def test_wrong(text: str) -> None:
    assert GRADER.grade(ANIMALS, "B", ModelAnswer(text)).score == 0


def test_several_options_are_named_in_the_note() -> None:
    assert GRADER.grade(ANIMALS, "B", ModelAnswer("Answer: A or B")).note == "names several options: A, B"
    assert GRADER.grade(ANIMALS, "B", ModelAnswer("I do not know")).note == "no option found"


@pytest.mark.parametrize("reference", ["A, C", "AC", "A and C", "(A), (C)"])
def test_several_right_options(reference: str) -> None:
    """A reference with several letters wants all of them, and no other."""
    texts = ["Answer: A, C", "C and A", "A", "A, B, C"]

    assert [GRADER.grade(ANIMALS, reference, ModelAnswer(text)).score for text in texts] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    "text", ["A", "A.", "A. Paris", "Paris", "The answer is A", "Answer: A.", "The capital is Paris"]
)
def test_letter_a_is_no_article_here(text: str) -> None:
    assert GRADER.grade(CAPITALS, "A", ModelAnswer(text)).score == 1


def test_article_is_no_letter() -> None:
    assert GRADER.grade(ANIMALS, "A", ModelAnswer("A dog is what it is")).score == 0
    assert GRADER.grade(ANIMALS, "D", ModelAnswer("A cow")).score == 1


@pytest.mark.parametrize(
    ("text", "score"), [("The answer is B. And", 1), ("(A) may bark, but", 0), ("The answer is B", 0)]
)
def test_cut_answers(text: str, score: float) -> None:
    """Only an option that is stated counts, and not in the word in which the answer was cut."""
    assert GRADER.grade(ANIMALS, "B", ModelAnswer(text, cut=True)).score == score


def test_options_of_prompts() -> None:
    assert options_of(ANIMALS) == {"A": "cat", "B": "dog", "C": "big dog", "D": "a cow"}
    assert options_of("Pick: A) red B) green C) blue") == {"A": "red", "B": "green", "C": "blue"}
    assert options_of("Example\nA. x\nB. y\n\nQuestion\nA. 1\nB. 2") == {"A": "1", "B": "2"}
    assert options_of("Who was A. Lincoln?") == {}


def test_without_options_in_the_prompt() -> None:
    assert GRADER.grade("", "C", ModelAnswer("I think (C).")).score == 1
    assert GRADER.grade("", "A dog", ModelAnswer("The answer is a dog.")).score == 1


@given(st.text(alphabet="ABCD()*.,:'\"\n andornotiswer"), st.sampled_from(["", ANIMALS]))
def test_any_text_can_be_graded(text: str, prompt: str) -> None:
    assert GRADER.grade(prompt, "B", ModelAnswer(text)).score in (0, 1)


@pytest.mark.parametrize(
    "text", ["A ", "(A) ", "not A ", "A, ", "A is ", "* ", "*", "'", " ", "answer is A and "]
)
def test_long_answers_end(text: str) -> None:
    """No run of the same signs makes the search slow. The suite's time limit notices one that does."""
    GRADER.grade(ANIMALS, "B", ModelAnswer(text * (100_000 // len(text))))
