"""Streams of thinking models end at the client's stop strings, and all other events keep their bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.openai_api.stop_strings import StopStrings
from gateway.openai_api.stopped_streams import StoppingReader
from tests.http.wire import events

DONE = b"data: [DONE]\n\n"
HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "tiny"}


def event(*choices: dict[str, Any], **fields: Any) -> bytes:
    chunk = HEAD | {"choices": list(choices)} | fields
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def delta(index: int = 0, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": fields, "logprobs": None, "finish_reason": finish}


def count(tokens: int) -> dict[str, Any]:
    return {"prompt_tokens": 3, "total_tokens": 3 + tokens, "completion_tokens": tokens}


def reader(*strings: str, choices: int = 1, usage: bool = False, **stops: Any) -> StoppingReader:
    return StoppingReader(
        StopStrings(strings, **stops), choices=choices, strip_usage=not usage, strip_counts=True
    )


def answers(body: bytes) -> dict[int, tuple[str, str, str | None, Any]]:
    """Of every choice: its reasoning, its text, its reason to end, and the string that ended it."""
    found: dict[int, tuple[str, str, str | None, Any]] = {}
    for one in events(body):
        if one.startswith(b"data: {"):
            for choice in json.loads(one[6:])["choices"]:
                thought, text, finish, string = found.get(choice["index"], ("", "", None, None))
                said = choice["delta"]
                found[choice["index"]] = (
                    thought + (said.get("reasoning") or ""),
                    text + (said.get("content") or ""),
                    choice.get("finish_reason") or finish,
                    choice.get("stop_reason") or string,
                )
    return found


def stream(text: list[str], *, index: int = 0, finish: str = "length") -> list[bytes]:
    """A thought that quotes everything, and then the text."""
    thought = [
        event(delta(index, reasoning=said), usage=count(n)) for n, said in enumerate(["END", " a.\n"], 1)
    ]
    said = [event(delta(index, content=one), usage=count(n)) for n, one in enumerate(text, 3)]
    return [event(delta(index, role="assistant", content="")), *thought, *said, event(delta(index, finish))]


def test_stream_ends_at_the_string() -> None:
    """The thought passes, the text ends before the string, and the rest of the stream is not wanted."""
    read = reader("END")
    *first, second, _ = stream(["one", " tw", "o E", "ND and", " more"])
    passed = b"".join([read.feed(one) for one in first])

    assert read.stopped
    assert answers(passed) == {0: ("END a.\n", "one two ", "stop", "END")}
    assert passed.endswith(DONE)
    assert b"usage" not in passed
    assert not read.done
    assert (read.token_usage().completion, read.token_usage().source) == (6, "counted")
    assert read.token_usage().finish_reason == "stop"
    assert second not in passed


def test_events_that_do_not_change_keep_their_bytes() -> None:
    """Only the events around a possible string are written anew."""
    read = reader("END")
    sent = [*stream(["one", " E", "ve ", "two"]), event(usage=count(6)), DONE]
    received = [read.feed(one) for one in sent]

    stripped = [one.replace(b',"usage":' + one.partition(b'"usage":')[2], b"}\n\n") for one in sent]
    assert [i for i, one in enumerate(received) if one != stripped[i]] == [4, 5, 8]
    assert received[8] == b""  # the usage that the client did not ask for
    assert answers(b"".join(received)) == {0: ("END a.\n", "one Eve two", "length", None)}
    assert read.done
    assert not read.stopped


@given(st.data())
@settings(max_examples=40)
def test_blocks_do_not_matter(data: st.DataObject) -> None:
    """However the bytes of a stream are cut into blocks, the client reads the same."""
    texts = data.draw(st.lists(st.text("EN D", max_size=3), max_size=6))
    body = b"".join([*stream(["x", *texts]), event(usage=count(9)), DONE])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    read, passed = reader("END", "N "), b""
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        if not read.stopped:
            passed += read.feed(body[start:end])

    text = "x" + "".join(texts)
    ends = [(text.find(stop) + len(stop), stop) for stop in ("END", "N ") if stop in text]
    expected = (
        (text[: min(ends)[0] - len(min(ends)[1])], "stop", min(ends)[1]) if ends else (text, "length", None)
    )
    assert answers(passed)[0][1:] == expected
    assert events(passed)[-1] == DONE


def test_each_choice_ends_for_itself() -> None:
    """A choice that has ended is silent. The stream goes on for the others, and ends with the last."""
    read = reader(".", choices=3)
    texts = [["a", ".x", "b", "c", "d"], ["e", "f", "g.", "h", "i"], ["j", "k", "l", "m", ".n"]]
    said = [event(delta(at, content=text[step])) for step in range(5) for at, text in enumerate(texts)]
    received = [read.feed(one) for one in said]

    assert answers(b"".join(received)) == {
        0: ("", "a", "stop", "."),
        1: ("", "efg", "stop", "."),
        2: ("", "jklm", "stop", "."),
    }
    assert received[6] == received[9] == received[12] == received[13] == b""
    assert read.stopped
    assert received[-1].endswith(DONE)


def test_choices_that_share_an_event() -> None:
    """Of an event with two choices, the one that has ended is taken out."""
    read = reader(".", choices=2)
    passed = read.feed(event(delta(0, content="a."), delta(1, content="b")))
    passed += read.feed(event(delta(0, content="c"), delta(1, content="d"), system_fingerprint="f"))

    assert answers(passed) == {0: ("", "a", "stop", "."), 1: ("", "bd", None, None)}
    assert b'"system_fingerprint":"f"' in passed


def test_natural_end_is_awaited() -> None:
    """If the backend has ended all choices by itself, its own usage and end mark follow."""
    read = reader(".", choices=2, usage=True)
    said = [delta(0, content="a."), delta(0, content="b"), delta(1, content="c"), delta(0, "stop")]
    passed = b"".join([read.feed(event(one)) for one in said])
    passed += read.feed(event(delta(1, "length"))) + read.feed(event(usage=count(9)) + DONE)

    assert not read.stopped
    assert answers(passed) == {0: ("", "a", "stop", "."), 1: ("", "c", "length", None)}
    assert passed.endswith(event(usage=count(9)) + DONE)


@pytest.mark.parametrize("together", [False, True])
def test_usage_that_the_client_asked_for(together: bool) -> None:
    """The usage is what the backend has counted so far, in an event of its own before the end mark."""
    read = reader("END", usage=True)
    sent = [*stream(["one", "END", "two"])[:-2], *([event(usage=count(9)), DONE] if together else [])]
    passed = read.feed(b"".join(sent))

    last = json.loads(events(passed)[-2][6:])
    assert last == HEAD | {"choices": [], "usage": count(9 if together else 4)}
    assert passed.count(b'"choices":[]') == 1
    assert passed.endswith(DONE)
    assert passed.count(DONE) == 1


def test_last_delta_and_reason_in_one_event() -> None:
    """What is held back comes with the finish reason, whose event may have text of its own."""
    for finish, text in ((delta(0, "length", content=" E"), "one EN E"), (delta(0, "stop"), "one EN")):
        read = reader("END")
        passed = b"".join([read.feed(one) for one in (*stream(["one", " EN"])[:-1], event(finish), DONE)])

        assert answers(passed)[0][1:3] == (text, finish["finish_reason"])


def test_stop_in_the_event_with_the_reason() -> None:
    """A string that the last delta completes is the reason to stop, not the length."""
    read = reader("END")
    passed = (
        read.feed(event(delta(content="a E"))) + read.feed(event(delta(0, "length", content="NDx"))) + DONE
    )

    assert answers(passed)[0] == ("", "a ", "stop", "END")
    assert not read.stopped


def test_stream_without_a_finish_reason() -> None:
    """What is held back is not lost if the backend sends nothing but the end mark."""
    read = reader("END")

    assert answers(read.feed(event(delta(content="one EN"))) + read.feed(DONE))[0][1] == "one EN"


def test_included_string() -> None:
    """With `include_stop_str_in_output` nothing is held back, and the text ends with the string."""
    read = reader("END", included=True)
    sent = stream(["one E", "N", "Dx", "y"])
    received = [read.feed(one) for one in sent[:6]]

    assert answers(b"".join(received))[0] == ("END a.\n", "one END", "stop", "END")
    assert b'"content":"one E"' in received[3]


def test_thought_between_two_texts() -> None:
    """A string does not reach across a thought or a tool call."""
    read = reader("END")
    passed = read.feed(event(delta(content="one EN"))) + read.feed(event(delta(reasoning="hm END")))
    call = {"index": 0, "function": {"arguments": '{"END'}}
    passed += read.feed(event(delta(content="D EN", tool_calls=[call]))) + read.feed(
        event(delta(content="D"))
    )

    assert answers(passed)[0] == ("hm END", "one END END", None, None)
    assert b'{\\"END' in passed


def test_string_before_a_tool_call() -> None:
    """What follows the string would not have been generated, be it a tool call."""
    read = reader("END")
    call = {"index": 0, "function": {"name": "f"}}
    passed = read.feed(event(delta(content="one END", tool_calls=[call]))) + read.feed(
        event(delta(tool_calls=[call]))
    )

    assert answers(passed)[0] == ("", "one ", "tool_calls", "END")
    assert b"function" not in passed


def test_log_probabilities_end_with_the_string() -> None:
    """Tokens after the one that completes the string are taken out of `logprobs` and `token_ids`."""
    entries = [
        {"token": token, "logprob": -0.50, "bytes": [*token.encode()]}
        for token in ("a", "·E", "ND", "x", "y")
    ]
    choice = {
        "index": 0,
        "delta": {"content": "a·ENDxy"},
        "logprobs": {"content": entries},
        "token_ids": [1, 2, 3, 4, 5],
    }
    passed = reader("END").feed(event(choice))

    (cut,) = json.loads(events(passed)[0][6:])["choices"]
    assert cut["delta"]["content"] == "a·"
    assert cut["logprobs"] == {"content": entries[:3]}
    assert cut["token_ids"] == [1, 2, 3]


@pytest.mark.parametrize(("most", "text"), [(0, "a"), (2, "a"), (4, "a.b"), (9, "a.b.")])
def test_no_string_counts_before_min_tokens(most: int, text: str) -> None:
    """The thought's tokens count towards `min_tokens` too, as the backend counts them."""
    read, passed = reader(".", min_tokens=most), b""
    for one in stream(["a", ".", "b", "."]):
        passed += b"" if read.stopped else read.feed(one)

    assert answers(passed)[0][1] == text


def test_events_of_other_shapes_pass() -> None:
    """Comments, other fields of events, and what is no chunk of a chat pass as they are."""
    odd = [
        b": keep-alive\n\n",
        b'data: {"choices":[{"delta":{"content":7}}]}\n\n',
        b'event: note\ndata: {"content": "x."}\n\n',
        b'data: {"content": "x.", }\n\n',
        b'data: {"choices":null,"content":"x."}\n\n',
        b'data: {"error": {"message": "no", "content": "."}}\n\n',
    ]
    read = reader(".")

    assert [read.feed(one) for one in odd] == odd


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_around_a_changed_event_stay(end: bytes) -> None:
    """The other lines of an event that is written anew are kept, whatever its lines end with."""
    read = reader(".")
    passed = read.feed(b": hm%sid: 5%s" % (end, end) + event(delta(content="a.")).replace(b"\n", end))

    assert passed.startswith(b": hm%sid: 5%sdata: {" % (end, end))
    assert answers(passed[passed.index(b"data:") :])[0][1] == "a"


def test_event_in_pieces() -> None:
    """An event that is too long to be held passes, after what was held back before it."""
    long = event(delta(content="x" * (1 << 20) + ". END"))
    read = reader("END")
    passed = [
        read.feed(one)
        for one in (event(delta(content="a E")), long[:-9], long[-9:], event(delta(content="END")))
    ]

    assert answers(b"".join(passed))[0] == ("", "a E" + "x" * (1 << 20) + ". END", "stop", "END")
