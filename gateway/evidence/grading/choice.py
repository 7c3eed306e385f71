"""Grades multiple choice, by the letter of an option or by its text. No I/O."""

from __future__ import annotations

import re

from gateway.evidence.grading.exact import normalized
from gateway.evidence.grading.final_answer import reference_answer, stated, whole_words
from gateway.evidence.grading.grade import Grade, Grader, ModelAnswer, graded

_OPTION = re.compile(
    r"(?:^|(?<=\s))(?:\(([A-Z])\)|\*{0,2}([A-Z])[.):]\*{0,2})\s+(\S[^\n]*?)(?=\s+\(?[A-Z][.):]\s|\s*(?:\n|$))"
)
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{\s*([^{}]*?)\s*\}")
_WORD = r"(?:(?:option|choice|answer|letter)s?\s+)?"
_LETTER = r"(?:\(\s*([A-Za-z])\s*\)|([A-Z])(?![A-Za-z'’])|([a-z])(?=[.):]|\s*$))"
_LEADING = re.compile(rf"[\s*_`\"'$\\\[(]*(?:(?:both|either|but)\s+)?{_WORD}{_LETTER}", re.IGNORECASE)
_NEXT = re.compile(
    rf"[\s*_`\"'.)\]]*(?:,\s*(?:and|or)?|\band\b|\bor\b|&|/)\s*[*_`\"']{{0,4}}{_WORD}{_LETTER}"
)
_ARTICLE = re.compile(r"\s+(?!because\b|since\b|as\b|and\b|or\b|is\b|which\b|with\b)[a-z]")
_NAMED = re.compile(
    rf"(?:\b(?:option|choice|choose|pick|select|go with)\s+[*_`\"']{{0,4}}{_LETTER})"
    rf"|(?:{_LETTER}[*_`\"']{{0,4}}\s+is\s+(?:the\s+)?(?:correct|right|best)\b)"
)
_REJECTED = re.compile(
    rf"(?:\b(?:not|rather than|instead of|eliminate|rules? out)\s+[*_`\"']{{0,4}}{_WORD}{_LETTER})"
    rf"|(?:{_WORD}[*_`\"']{{0,4}}{_LETTER}[*_`\"']{{0,4}}\s+(?:is|are)\s+(?:not|n't|incorrect|wrong|false)\b)"
    rf"|(?:{_WORD}[*_`\"']{{0,4}}{_LETTER}[*_`\"']{{0,4}}\s+(?:isn['’]t|can\s?not|can['’]t)\b)"
)
_MARKED = re.compile(r"\(([A-Z])\)|\*\*\(?([A-Z])[.)]?\*\*|(?<![\w(])([B-HJ-Z])(?![\w'’])")
_LIST = re.compile(r"[\s(]*([A-Z])(?:[\s,;&/]*(?:and\s+)?\(?([A-Z])\)?)*[\s).]*")


class ChoiceGrader(Grader):
    """Right if the answer names the option of the reference and no other."""

    name = "choice"

    def _grade(self, prompt: str, reference: str, answer: ModelAnswer) -> Grade:
        options = options_of(prompt)
        wanted = _wanted(reference_answer(reference), options)
        if not wanted:  # the prompt does not say what its options are: compare texts
            return graded(normalized(reference) == normalized(stated(answer.text) or answer.text))
        given = chosen(answer, options)
        if not given:
            return graded(False, "no option found")
        if given != wanted and len(given) > len(wanted):
            return graded(False, f"names several options: {', '.join(sorted(given))}")
        return graded(given == wanted)


def options_of(prompt: str) -> dict[str, str]:
    """The options of a prompt: letter and normalized text. They begin with A and leave out no letter."""
    found: dict[str, str] = {}
    for first, second, text in _OPTION.findall(prompt):
        letter = first or second
        if letter == "A":
            found = {}  # earlier ones belong to examples
        if letter == "A" or (found and ord(letter) == ord(max(found)) + 1):
            found[letter] = normalized(text)
    return found if len(found) > 1 else {}


def chosen(answer: ModelAnswer, options: dict[str, str]) -> set[str]:
    """The letters of the options that an answer chooses; none if it chooses none."""
    text = _WRAPPED.sub(r"\1", whole_words(answer)) if "\\" in answer.text else whole_words(answer)
    statement = stated(text)
    allowed = set(options)
    kept = _REJECTED.sub(" ", text)
    places = [_REJECTED.sub(" ", statement)] if statement else []
    for place in places if answer.cut else [*places, kept]:
        if found := _leading(place, allowed) or _by_text(place, options):
            return found
    return set() if answer.cut else _mentioned(kept, options)


def _wanted(reference: str, options: dict[str, str]) -> set[str]:
    if _LIST.fullmatch(reference):
        return set(re.findall("[A-Z]", reference.replace("and", "")))
    if re.fullmatch(r"\s*\(?[a-z]\)?[.)]?\s*", reference):
        return {reference.strip(" ().").upper()}
    same = {letter for letter, text in options.items() if text == normalized(reference)}
    return same or _leading(reference, set(options))


def _leading(text: str, allowed: set[str]) -> set[str]:
    """The letters with which a text begins: one, or several that are joined."""
    match = _LEADING.match(text)
    if not match:
        return set()
    letter = _letter(match)
    bare = match[2] or match[3]
    if bare in ("A", "I", "a", "i") and _ARTICLE.match(text, match.end()):
        return set()  # "A dog"
    if match[3] or (bare and bare.islower() and not re.match(r"[.):]|\W*$", text[match.end() :])):
        return set()
    found = {letter}
    while (more := _NEXT.match(text, match.end())) and (not allowed or _letter(more) in allowed):
        found.add(_letter(more))
        match = more
    return found if not allowed or letter in allowed else set()


def _by_text(place: str, options: dict[str, str]) -> set[str]:
    """The option whose text a text is, or begins with."""
    text = normalized(place)
    begun = [letter for letter, option in options.items() if option and _begins(text, option)]
    return {max(begun, key=lambda letter: len(options[letter]))} if begun else set()


def _begins(text: str, option: str) -> bool:
    return text.startswith(option) and not text[len(option) : len(option) + 1].isalnum()


def _mentioned(text: str, options: dict[str, str]) -> set[str]:
    """What the text chooses in other words: "option B", "B is correct", the only option of its last lines."""
    allowed = set(options)
    named = [_letter(match) for match in _NAMED.finditer(text)]
    if named and (not allowed or named[-1] in allowed):
        return {named[-1]}
    lines = [line for line in text.split("\n") if line.strip()]
    for line in reversed(lines[-3:]):
        if found := _leading(line, allowed):
            return found
        letters = {_letter(match) for match in _MARKED.finditer(line)}
        if found := letters & allowed if allowed else letters:
            return found
        words = f" {normalized(line)} "
        inside = {letter for letter, option in options.items() if option and _within(words, option)}
        if inside:
            longest = max(inside, key=lambda letter: len(options[letter]))
            return {letter for letter in inside if options[letter] not in options[longest]} | {longest}
    return set()


def _within(words: str, option: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(option)}(?!\w)", words) is not None


def _letter(match: re.Match[str]) -> str:
    return str(next(group for group in match.groups() if group)).upper()
