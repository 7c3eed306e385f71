"""vLLM's dialect of the OpenAI API: its responses as JSON, shaped as in vLLM 0.32."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
import orjson

from tests.fakes.ask import Ask, Speech, words
from tests.fakes.fault import Fault

VERSION = "0.32.0"
FINGERPRINT = f"vllm-{VERSION}-00000000"
TOOL_ARGUMENTS = ('{"', "city", '": "', "Oslo", '"}')
ERROR_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}


class Event(NamedTuple):
    data: bytes
    token: bool = False


def error(status: int, message: str, *, param: str | None = None) -> dict[str, Any]:
    """vLLM's error object. For a wrong key it is the shorter one that vLLM's middleware sends."""
    if status == HTTPStatus.UNAUTHORIZED:
        return {"error": "Unauthorized"}
    name = ERROR_TYPES.get(status) or HTTPStatus(status).phrase.replace(" ", "")
    return {"error": {"message": message, "type": name, "param": param, "code": status}}


def usage(ask: Ask, said: Speech, fault: Fault) -> dict[str, Any]:
    """Token counts, summed over the choices. The legacy endpoint has no details."""
    choices = ask.n or 1
    completion = (said.reasoning + said.content) * choices
    counts: dict[str, Any] = {
        "prompt_tokens": said.prompt,
        "total_tokens": said.prompt + completion,
        "completion_tokens": completion,
    }
    if fault.usage != "plain" and ask.messages is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": said.reasoning * choices}
    return counts


def token_text(index: int, fault: Fault, said: Speech) -> str:
    text = "@;" if fault.stamp else f" t{index}"
    return text + "x" * fault.pad if index == said.content - 1 else text


def _logprobs(text: str) -> dict[str, Any]:
    return {"content": [{"token": text, "logprob": -0.5, "bytes": list(text.encode()), "top_logprobs": []}]}


def _tool_calls(ask: Ask, serial: str) -> Iterator[dict[str, Any]]:
    name = ask.tools[0]["function"]["name"] if ask.tools else "lookup"
    yield {"id": f"chatcmpl-tool-{serial}", "type": "function", "index": 0, "function": {"name": name}}
    for piece in TOOL_ARGUMENTS:
        yield {"index": 0, "function": {"arguments": piece}}


def _deltas(ask: Ask, fault: Fault, said: Speech, serial: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The token deltas of one choice, each with its text; reasoning comes first."""
    for index in range(said.reasoning):
        yield {"reasoning": f" r{index}"}, f" r{index}"
    if said.finish == "tool_calls":
        for number, call in enumerate(_tool_calls(ask, serial)):
            first = {} if number else {"content": None}
            yield first | {"tool_calls": [call]}, call["function"].get("arguments", "")
        return
    for index in range(said.content):
        text = token_text(index, fault, said)
        yield {"content": text}, text


def _head(ask: Ask, kind: str, prefix: str, serial: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{serial}", "object": kind, "created": int(time.time()), "model": ask.model}


def _finish(choice: dict[str, Any], reason: str) -> dict[str, Any]:
    ids = {"token_ids": choice.pop("token_ids", None)}
    return choice | {"finish_reason": reason, "stop_reason": None} | ids


def chat_events(ask: Ask, fault: Fault, said: Speech, serial: str) -> Iterator[Event]:
    """
    A whole chat stream: role, tokens of all choices in turn, finish reason, usage, [DONE].

    If the limit cut the stream, the finish reason is in the chunk of the last token. If the model stopped by
    itself, it is in an additional chunk with an empty delta, because the end token has no text.
    """
    head = _head(ask, "chat.completion.chunk", "chatcmpl", serial)
    n, deltas = ask.n or 1, list(_deltas(ask, fault, said, serial))
    for i in range(n):
        delta = {"role": "assistant", "content": ""}
        role = {"index": i, "delta": delta, "logprobs": None, "finish_reason": None}
        yield Event(orjson.dumps({**head, "choices": [role], "prompt_token_ids": None, "prompt_text": None}))
    last = len(deltas)
    if said.finish != "length":
        deltas.append(({}, ""))
    for spoken, (delta, text) in enumerate(deltas, 1):
        for i in range(n):
            probs = _logprobs(text) if ask.logprobs and text else None
            choice = {"index": i, "delta": delta, "logprobs": probs, "finish_reason": None, "token_ids": None}
            if spoken == len(deltas):
                choice = _finish(choice, said.finish)
            chunk = {**head, "choices": [choice]} | _running_usage(ask, fault, said, min(spoken, last))
            if spoken == len(deltas) and not _wants_usage(ask):
                chunk["system_fingerprint"] = FINGERPRINT
            yield Event(orjson.dumps(chunk), token=spoken <= last)
    yield from _closing(head, ask, fault, said)


def completion_events(ask: Ask, fault: Fault, said: Speech, serial: str) -> Iterator[Event]:
    """A stream of the legacy completions endpoint. The chunk of the last token has the finish reason."""
    head = _head(ask, "text_completion", "cmpl", serial)
    for index in range(said.content):
        finish = said.finish if index == said.content - 1 else None
        text = token_text(index, fault, said)
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
        chunk = {**head, "choices": [choice | {"prompt_token_ids": None, "token_ids": None}]}
        yield Event(orjson.dumps(chunk | _running_usage(ask, fault, said, index + 1)), token=True)
    yield from _closing(head, ask, fault, said)


def _wants_usage(ask: Ask) -> bool:
    return bool(ask.stream_options and ask.stream_options.include_usage)


def _running_usage(ask: Ask, fault: Fault, said: Speech, spoken: int) -> dict[str, Any]:
    if not (_wants_usage(ask) and ask.stream_options and ask.stream_options.continuous_usage_stats):
        return {}
    reasoning = min(spoken, said.reasoning)
    so_far = said._replace(reasoning=reasoning, content=spoken - reasoning)
    return {"usage": usage(ask, so_far, fault)}


def _closing(head: dict[str, Any], ask: Ask, fault: Fault, said: Speech) -> Iterator[Event]:
    if _wants_usage(ask) and fault.usage != "missing":
        counts = None if fault.usage == "null" else usage(ask, said, fault)
        chunk = {**head, "choices": [], "usage": counts, "system_fingerprint": FINGERPRINT}
        yield Event(dump(chunk, fault))
    yield Event(b"[DONE]")


def dump(value: Any, fault: Fault) -> bytes:
    """Encode compactly, as vLLM does, or with spaces, as some proxies do."""
    if fault.usage != "spaced":
        return orjson.dumps(value)
    return msgspec.json.format(orjson.dumps(value), indent=0)


def whole_chat(ask: Ask, fault: Fault, said: Speech, serial: str) -> dict[str, Any]:
    reasoning = "".join(f" r{index}" for index in range(said.reasoning)) or None
    content = "".join(token_text(index, fault, said) for index in range(said.content)) or None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": None}
    message |= {"audio": None, "function_call": None}
    if said.finish == "tool_calls":
        call = next(_tool_calls(ask, serial))
        function = call["function"] | {"arguments": "".join(TOOL_ARGUMENTS)}
        message |= {
            "content": None,
            "tool_calls": [{"id": call["id"], "type": "function", "function": function}],
        }
    message["reasoning"] = reasoning
    tail = {"finish_reason": said.finish, "stop_reason": None, "token_ids": None, "routed_experts": None}
    probs = _logprobs(content or "") if ask.logprobs else None
    choices = [{"index": i, "message": message, "logprobs": probs, **tail} for i in range(ask.n or 1)]
    answer = _head(ask, "chat.completion", "chatcmpl", serial)
    answer |= {"choices": choices, "service_tier": None, "system_fingerprint": FINGERPRINT}
    rest = ("prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params")
    return answer | _whole_usage(ask, said, fault) | dict.fromkeys([*rest, "metrics"])


def whole_completion(ask: Ask, fault: Fault, said: Speech, serial: str) -> dict[str, Any]:
    text = "".join(token_text(index, fault, said) for index in range(said.content))
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": said.finish, "stop_reason": None}
    answer = _head(ask, "text_completion", "cmpl", serial)
    answer |= {"choices": [choice], "service_tier": None, "system_fingerprint": FINGERPRINT}
    return answer | _whole_usage(ask, said, fault) | {"kv_transfer_params": None}


def _whole_usage(ask: Ask, said: Speech, fault: Fault) -> dict[str, Any]:
    if fault.usage == "missing":
        return {}
    if fault.usage == "null":
        return {"usage": None}
    counts = usage(ask, said, fault)
    details = counts.pop("completion_tokens_details", None)
    return {"usage": counts | {"prompt_tokens_details": None, "completion_tokens_details": details}}


def embeddings(ask: Ask, serial: str) -> dict[str, Any]:
    texts = ask.input if isinstance(ask.input, list) else [ask.input]
    data = [
        {"index": i, "object": "embedding", "embedding": [round(words(text) / (d + 1), 6) for d in range(8)]}
        for i, text in enumerate(texts)
    ]
    counts = {"prompt_tokens": ask.prompt_tokens, "total_tokens": ask.prompt_tokens, "completion_tokens": 0}
    return _head(ask, "list", "embd", serial) | {
        "data": data,
        "usage": counts | {"prompt_tokens_details": None},
    }


def models(served_name: str, max_model_len: int) -> dict[str, Any]:
    card = {
        "id": served_name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "vllm",
        "root": served_name,
    }
    return {
        "object": "list",
        "data": [card | {"parent": None, "max_model_len": max_model_len, "permission": []}],
    }
