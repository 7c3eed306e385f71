"""What one record of a file of prompts means: the messages to send, and what a right answer is. No I/O.

Records have the fields that data sets on Hugging Face have: see docs/measure.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from router_model.prompts import normalised

_QUESTIONS = ("prompt", "question", "problem", "instruction", "input")
_REFERENCES = ("answer", "reference", "target", "solution")
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_LONGEST_ID = 128  # characters, as in the store of evidence


class PromptsError(ValueError):
    """The prompts cannot be used. If a line is at fault, the message begins with `file:line:`."""


class MeasuredPrompt(Struct, frozen=True):
    """A prompt to measure with."""

    id: str
    messages: tuple[dict[str, Any], ...]
    text: str
    """What the head reads: the last message of the user."""
    place: str
    """`file:line`, for messages."""
    reference: str | None = None
    """A right answer; None without one."""
    choices: tuple[str, ...] = ()
    """The options of a multiple-choice question."""
    dataset: str | None = None
    category: str | None = None
    schema: dict[str, Any] | None = None
    """The JSON Schema that an answer must obey."""

    @property
    def key(self) -> str:
        """The same for prompts that say the same."""
        said = [[message.get("role"), _plain(message.get("content"))] for message in self.messages]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    @property
    def rubric(self) -> str:
        """The same as long as a right answer is the same."""
        said = json.dumps([self.reference, self.schema], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def prompt_of(record: Any, place: str) -> MeasuredPrompt:
    """Read one record. place: `file:line`. Raises: PromptsError."""
    if not isinstance(record, dict):
        raise PromptsError(f"{place}: a record must be an object, not {type(record).__name__}")
    given = {name: value for name, value in record.items() if value is not None and value != ""}
    try:
        messages, said = _messages(given)
        options = _options(given.get("choices"))
        reference = _reference(given, options)
        schema = _object(given.get("schema"), "schema")
        names = {name: _name(given.get(name), name) for name in ("id", "dataset", "category")}
    except ValueError as error:
        raise PromptsError(f"{place}: {error}") from None
    if options:
        messages = _with_options(messages, options)
    asked = [_words(each["content"]) for each in messages if each["role"] == "user"]
    if not asked or not asked[-1].strip():
        raise PromptsError(f"{place}: there is no question of a user")
    made = MeasuredPrompt(
        "", tuple(messages), asked[-1], place, said if reference is None else reference, tuple(options),
        names["dataset"], names["category"], schema,
    )  # fmt: skip
    return replace(made, id=names["id"] or made.key[:16])


def merged_prompts(prompts: Iterable[MeasuredPrompt]) -> tuple[list[MeasuredPrompt], list[str]]:
    """Each prompt once, and what was merged, a sentence each.

    Raises: PromptsError, if two different prompts have one id.
    """
    ids: dict[str, MeasuredPrompt] = {}
    keys: dict[str, MeasuredPrompt] = {}
    notes = []
    for each in prompts:
        same = keys.get(each.key)
        if same is not None:
            but = "" if same.reference == each.reference else ", whose reference differs and is not used"
            notes.append(f"{each.place}: the prompt of {same.place} again{but}")
        elif each.id in ids:
            raise PromptsError(f"{each.place}: the id {each.id!r} is that of {ids[each.id].place} already")
        else:
            ids[each.id] = keys[each.key] = each
    return list(ids.values()), notes


def digest_of_prompts(prompts: Iterable[MeasuredPrompt]) -> str:
    """Names a set of prompts, whatever their order."""
    keys = sorted(f"{each.id}\0{each.key}" for each in prompts)
    return hashlib.sha256("\n".join(keys).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _messages(given: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
    """The messages of a record, and the answer that they end with. Raises: ValueError."""
    for name in ("messages", "conversations", *_QUESTIONS):
        if name not in given:
            continue
        asked = _decoded(given[name])
        if isinstance(asked, list):
            return _conversation(asked, name)
        if name in {"messages", "conversations"} or not isinstance(asked, str):
            kind = "a list of messages" if name in {"messages", "conversations"} else "a text"
            raise ValueError(f"`{name}` must be {kind}")
        if name == "instruction" and isinstance(more := given.get("input"), str):
            asked = f"{asked}\n\n{more}"
        return [{"role": "user", "content": asked}], None
    raise ValueError(f"no prompt: give `messages` or one of {', '.join(_QUESTIONS)}")


def _decoded(value: Any) -> Any:
    """A list that a cell of a CSV file holds as JSON; everything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _conversation(said: Sequence[Any], name: str) -> tuple[list[dict[str, Any]], str | None]:
    messages = [_message(each, name, at) for at, each in enumerate(said)]
    answer = None
    while messages and messages[-1]["role"] == "assistant":
        answer = messages.pop()["content"]
    if not messages:
        raise ValueError(f"`{name}` has no message of a user")
    return messages, answer if isinstance(answer, str) else None


def _message(each: Any, name: str, at: int) -> dict[str, Any]:
    if not isinstance(each, dict):
        raise ValueError(f"`{name}[{at}]` must be an object")  # noqa: TRY004 - one kind of mistake, one error
    role, content = each.get("role", each.get("from")), each.get("content", each.get("value"))
    if role not in {*_SPEAKERS, "developer", "tool"}:
        raise ValueError(f"`{name}[{at}]` has the unknown role {role!r}")
    if not isinstance(content, str | list):
        raise ValueError(f"`{name}[{at}]` has no content")  # noqa: TRY004
    rest = {key: value for key, value in each.items() if value is not None}
    kept = {key: value for key, value in rest.items() if key not in {"role", "from", "content", "value"}}
    if "from" in each:
        kept = {}
    return {"role": _SPEAKERS.get(role, role), "content": content, **kept}


def _options(value: Any) -> list[str]:
    """The options of a question: a list, or `{"text": [...], "label": [...]}`. Raises: ValueError."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("`choices` must be a list; in CSV, as JSON") from None
    if isinstance(value, dict):
        value = value.get("text")
    if value is None:
        return []
    if not isinstance(value, list) or not 2 <= len(value) <= len(ascii_uppercase):
        raise ValueError("`choices` must be a list of 2 to 26 options")
    return [str(option) for option in value]


def _with_options(messages: list[dict[str, Any]], options: Sequence[str]) -> list[dict[str, Any]]:
    """The messages with the options listed, unless the question has them already."""
    at = max((at for at, each in enumerate(messages) if each["role"] == "user"), default=-1)
    asked = messages[at]["content"] if at >= 0 else None
    if not isinstance(asked, str) or all(option in asked for option in options):
        return messages
    lines = [f"{letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    whole = "\n".join([asked, "", *lines, "", "Answer with the letter of the right option."])
    return [*messages[:at], {**messages[at], "content": whole}, *messages[at + 1 :]]


def _reference(given: Mapping[str, Any], options: Sequence[str]) -> str | None:
    """The right answer as text; the letter of an option that is given by its number. Raises: ValueError."""
    name = next((name for name in _REFERENCES if name in given), None)
    if name is None:
        return None
    value = given[name]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        number = value.strip()
        if not (options and number.isdecimal() and number not in options):
            return value
        value = int(number)
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False)
    if options and isinstance(value, int) and str(value) not in options:
        if not 0 <= value < len(options):
            raise ValueError(f"`{name}` is {value}, but `choices` has the options 0 to {len(options) - 1}")
        return ascii_uppercase[value]
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _object(value: Any, name: str) -> dict[str, Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"`{name}` is no JSON: {error}") from None
    if value is None or isinstance(value, dict):
        return value
    raise ValueError(f"`{name}` must be an object")


def _name(value: Any, field: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():  # data frames turn whole numbers into floats
        value = int(value)
    text = value if isinstance(value, str) else str(value)
    if not isinstance(value, str | int) or len(text) > _LONGEST_ID:
        raise ValueError(f"`{field}` must be a text of at most {_LONGEST_ID} characters")
    return text


def _words(content: Any) -> str:
    """The text of a message's content."""
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _plain(content: Any) -> Any:
    return normalised(content) if isinstance(content, str) else content
