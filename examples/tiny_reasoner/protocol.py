"""Parses and validates requests of the chat completions endpoint."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from examples.tiny_reasoner.chat import END, PAD, START, THINK, UNTHINK

UNREADABLE = re.compile(r"[^\n\x20-\x7e]")
MAX_CHOICES = 16
ECHOED = 100  # characters of the client's text that an error repeats


class BadRequest(Exception):
    """A request that cannot be served."""

    def __init__(self, message: str, param: str | None, code: str, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status

    @classmethod
    def context(cls, longest: int, taken: str, param: str) -> BadRequest:
        """The error for a request that exceeds the context, in vLLM's words, which the gateway recognises."""
        said = f"This model's maximum context length is {longest} tokens; {taken}."
        return cls(said, param, "context_length_exceeded")

    def body(self) -> dict[str, Any]:
        """The error in the shape of the OpenAI API."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class Strict(BaseModel):
    """Refuses unknown fields; a known field that is null counts as absent."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        known = cls.model_fields
        return {name: value for name, value in fields.items() if value is not None or name not in known}


def only(*values: JsonValue) -> AfterValidator:
    """Type of a field that is accepted only with values that change nothing."""

    def check(value: JsonValue) -> JsonValue:
        if value in values:
            return value
        said = " or ".join(map(repr, values))
        raise PydanticCustomError("unsupported_value", "this model supports only {said}", {"said": said})

    return AfterValidator(check)


def listed(wrap: Callable[[str], Any]) -> BeforeValidator:
    """Type of a list that clients may also send as a single string."""

    def check(value: Any) -> Any:
        if isinstance(value, (str, list)):
            return [wrap(value)] if isinstance(value, str) else value
        raise PydanticCustomError("list_type", "Input should be a string or a list")

    return BeforeValidator(check)


class Part(Strict):
    """One part of a message; this model reads text only."""

    type: Literal["text"]
    text: str


class Message(Strict):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Part], listed(lambda text: Part(type="text", text=text))] = []
    name: str | None = None
    reasoning: str | None = None  # clients send answers back unchanged; the thought is not read again
    refusal: Annotated[JsonValue, only()] = None
    annotations: Annotated[JsonValue, only([])] = None
    audio: Annotated[JsonValue, only()] = None
    function_call: Annotated[JsonValue, only()] = None
    tool_calls: Annotated[JsonValue, only([])] = None

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.role != "assistant" and "content" not in self.model_fields_set:
            raise PydanticCustomError("missing", "content is required")
        return self

    @property
    def text(self) -> str:
        """The text of all parts."""
        return "".join(part.text for part in self.content)

    @property
    def turn(self) -> tuple[str, str]:
        """Role and text. The template has no developer role, so it becomes the system role, as in vLLM."""
        return ("system" if self.role == "developer" else self.role), self.text


class TemplateArguments(Strict):
    """Arguments of the chat template."""

    enable_thinking: bool | None = None


class StreamOptions(Strict):
    """Usage in a stream; `continuous_usage_stats` adds it to every chunk, as in vLLM."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class ChatRequest(Strict):
    """The accepted fields; any other field is refused.

    Fields of the OpenAI API and of vLLM that this model cannot honour are accepted if they change nothing,
    because many clients always send them.
    """

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    thinking_token_budget: int | None = Field(None, ge=0)
    chat_template_kwargs: TemplateArguments = TemplateArguments()
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: Annotated[list[str], listed(str)] = []
    stream: bool = False
    stream_options: StreamOptions | None = None
    include_reasoning: bool = True
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    # Accepted because clients send them; they have no effect.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, JsonValue] | None = None
    store: bool | None = None
    request_id: str | None = None
    priority: int | None = None
    service_tier: str | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: Annotated[JsonValue, only(0)] = None
    frequency_penalty: Annotated[JsonValue, only(0)] = None
    repetition_penalty: Annotated[JsonValue, only(1)] = None
    min_p: Annotated[JsonValue, only(0)] = None
    min_tokens: Annotated[JsonValue, only(0)] = None
    ignore_eos: Annotated[JsonValue, only(False)] = None
    logprobs: Annotated[JsonValue, only(False)] = None
    top_logprobs: Annotated[JsonValue, only(0)] = None
    logit_bias: Annotated[JsonValue, only({})] = None
    tools: Annotated[JsonValue, only([])] = None
    tool_choice: Annotated[JsonValue, only("none", "auto")] = None
    response_format: Annotated[JsonValue, only({"type": "text"})] = None
    modalities: Annotated[JsonValue, only(["text"])] = None

    @property
    def thinks(self) -> bool:
        """Whether to think; as in vLLM, the template's argument overrides an effort of `none`."""
        asked = self.chat_template_kwargs.enable_thinking
        return self.reasoning_effort != "none" if asked is None else asked


def echo(text: str) -> str:
    """The beginning of the client's text, for an error."""
    return text if len(text) <= ECHOED else text[:ECHOED] + "\u2026"


def check_texts(request: ChatRequest) -> None:
    """Refuse characters that the model does not know, and text that would act as control tokens."""
    for text in (message.text for message in request.messages):
        if strange := UNREADABLE.search(text):
            said = f"This model reads printable ASCII only, not {strange[0]!a}."
            raise BadRequest(said, "messages", "unsupported_characters")
        if any(token in text for token in (START, END, PAD, THINK, UNTHINK)):
            raise BadRequest("Messages may not contain control tokens.", "messages", "control_tokens")
    if len(request.stop) > 4 or not all(request.stop):
        raise BadRequest("`stop` takes up to four strings, none of them empty.", "stop", "invalid_value")


def room(request: ChatRequest, prompt_tokens: int, longest: int) -> int:
    """How many tokens may be generated; as in vLLM, a limit is cut to what is left of the context."""
    wanted = request.max_completion_tokens or request.max_tokens
    left = longest - prompt_tokens
    if left < 1 or (wanted is not None and wanted > longest):
        asked = f" and {wanted} were asked for" if wanted is not None else ""
        field = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
        param = "messages" if left < 1 else field
        raise BadRequest.context(longest, f"the messages take {prompt_tokens}{asked}", param)
    budget = request.thinking_token_budget
    if budget is not None and budget > longest:
        raise BadRequest(
            f"`thinking_token_budget` cannot exceed the context of {longest} tokens.",
            "thinking_token_budget",
            "invalid_value",
        )
    return left if wanted is None else min(wanted, left)


def from_validation(errors: list[Any]) -> BadRequest:
    """The first validation error as a plain message."""
    first = errors[0]
    if first["loc"] == ("body",) or first["type"] == "json_invalid":
        return BadRequest("The body must be a JSON object, sent as application/json.", None, "invalid_json")
    where = echo(".".join(str(place) for place in first["loc"] if place != "body"))
    code = {"missing": "missing_required_parameter", "unsupported_value": "unsupported_value"}
    if first["type"] == "extra_forbidden":
        return BadRequest(f"Unrecognized request argument supplied: {where}", where, "unknown_parameter")
    return BadRequest(f"{where}: {first['msg']}", where, code.get(first["type"], "invalid_value"))
