"""Finds the part of a model's answer that is graded. No I/O."""

from __future__ import annotations

import re

from gateway.evidence.grading.grade import ModelAnswer

_GRADED = 20_000  # characters at the end of an answer in which the final answer is looked for
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(\{)|([^\s{}]+))")
_BOX_CHARACTERS = 500
_BOXES = 20  # that are looked at, from the last
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
_NOUN = r"(?:\b(?:answer|antwort|respuesta|r[ée]ponse|risposta|resposta|ответ)\b|答案|答え)"
_VERB = r"(?:\b(?:is|are|be|becomes|equals?|ist|es|est|è|é)\b|[:：=]|是|为|は)"
_MARK = re.compile(rf"{_NOUN}(?:[^\n:：=]{{0,60}}?{_VERB}|[ \t*_`:]*\n)[\s*_`:：>]*", re.IGNORECASE)
_NOT_BUT = re.compile(r"not\b[^.\n]{1,80}?\bbut\s+(?:rather\s+|instead\s+)?", re.IGNORECASE)
_NOT = re.compile(r"not\b", re.IGNORECASE)
_WORD_CUT = re.compile(r"[\w.,/%+−-]+$")


def answer_of(content: str | None, finish_reason: str | None = None, end: str = "</think>") -> ModelAnswer:
    """The answer in the content of a message.

    A server with a reasoning parser keeps the thought out of the content. Without one, the answer begins
    after the first `end`. Where a thought began and did not end, there is no answer.
    """
    text = content or ""
    _, ended, after = text.partition(end)
    begin = end.replace("/", "", 1)
    if ended:
        text = after
    elif begin != end and text.lstrip().startswith(begin):
        text = ""
    return ModelAnswer(text.strip(), cut=finish_reason == "length")


def whole_words(answer: ModelAnswer) -> str:
    """The end of the answer, without the word in which it was cut."""
    text = answer.text[-_GRADED:].rstrip()
    return _WORD_CUT.sub("", text) if answer.cut else text


def boxed(text: str) -> str | None:
    r"""What is in the last complete `\boxed{}`."""
    for match in list(_BOX.finditer(text))[: -_BOXES - 1 : -1]:
        inside = _braced(text, match.end()) if match[1] else match[2]
        if inside is not None and inside.strip():
            return inside.strip()
    return None


def stated(text: str) -> str | None:
    r"""What the text itself calls its answer: in `\boxed{}`, after `####`, or after "the answer is"."""
    if box := boxed(text):
        return box
    if hashes := _HASHES.findall(text):
        return str(hashes[-1]).strip()
    for match in reversed(list(_MARK.finditer(text))):
        if said := _said(text[match.end() :]):
            return said
    return None


def reference_answer(reference: str) -> str:
    r"""The answer in a reference. In some data sets that is a solution with `####` or `\boxed{}`."""
    if hashes := _HASHES.findall(reference):
        return str(hashes[-1]).strip()
    return boxed(reference) or reference.strip()


def _said(rest: str) -> str | None:
    """The first line that says something."""
    for line in rest[:1_000].split("\n"):
        said = line.strip()
        if any(character.isalnum() for character in said):
            if negated := _NOT_BUT.match(said):
                return said[negated.end() :]
            return None if _NOT.match(said) else said
    return None


def _braced(text: str, start: int) -> str | None:
    """The text up to the brace that closes the one before `start`."""
    depth = 1
    for at in range(start, min(len(text), start + _BOX_CHARACTERS)):
        if text[at] == "\\":
            continue
        if text[at] in "{}" and text[at - 1] != "\\":
            depth += 1 if text[at] == "{" else -1
            if depth == 0:
                return text[start:at]
    return None
