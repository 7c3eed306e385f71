"""The kernel passes on exactly what the reader would, and leaves whatever is not an ordinary repetition."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.openai_api import repetitions
from gateway.openai_api.compiled_events import MOST, RepeatedEvents
from gateway.openai_api.lost_thoughts import LostThought
from gateway.openai_api.stream import StreamReader
from tests.making import event
from tests.openai_api.test_repeated_events import CarefulReader, chunk, events
from tests.router_model.native.kernels import needed_kernel

START = event(chunk(" x", 1)) + event(chunk(" x", 2))


def framed(parts: Iterable[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


def unframed(chunks: bytes) -> bytes:
    """What these chunks hold. Raises: ValueError, if they are not whole."""
    body = b""
    while chunks:
        line, _, chunks = chunks.partition(b"\r\n")
        size = int(line, 16)
        if not size or chunks[size : size + 2] != b"\r\n":
            raise ValueError("not a chunk")
        body, chunks = body + chunks[:size], chunks[size + 2 :]
    return body


def compiled(reader: StreamReader) -> RepeatedEvents | None:
    with patch.object(repetitions, "kernel", needed_kernel):
        return reader.compiled()


def ready(*, strip: bool = True, watched: bool = False) -> tuple[StreamReader, RepeatedEvents]:
    """A reader that has a template, and its kernel."""
    lost = LostThought(expected=True) if watched else None
    reader = StreamReader(strip_usage=True, strip_counts=strip, lost=lost)
    reader.feed(START)
    found = compiled(reader)
    assert found is not None
    return reader, found


@settings(max_examples=60)
@given(st.data(), events(), st.booleans(), st.booleans(), st.sampled_from([None, True, False]))
def test_kernel_changes_nothing(
    data: st.DataObject, made: list[bytes], usage: bool, counts: bool, thinks: bool | None
) -> None:
    """Bytes, counts and state are the same after every block, whether or not events pass by the kernel."""
    direct, careful = (
        kind(
            strip_usage=usage,
            strip_counts=counts,
            lost=None if thinks is None else LostThought(expected=thinks),
        )
        for kind in (StreamReader, CarefulReader)
    )
    made = [made[0], *made] if data.draw(st.booleans()) else made
    cuts = sorted(data.draw(st.lists(st.integers(0, len(made)), max_size=4)))
    for begin, end in pairwise([0, *cuts, len(made)]):
        block = b"".join(made[begin:end])
        places = sorted(data.draw(st.lists(st.integers(0, len(block)), max_size=2)))
        whole = data.draw(st.booleans())
        parts = made[begin:end] if whole else [block[a:b] for a, b in pairwise([0, *places, len(block)])]
        chunks = framed(filter(None, parts))
        found = compiled(direct)
        passed, rest = found.pass_on(chunks) if found else (b"", chunks)
        taken = chunks.removesuffix(rest)

        assert unframed(passed) == careful.feed(unframed(taken))
        assert direct.feed(unframed(rest)) == careful.feed(unframed(rest))
        states = [
            (reader.done, reader.failed, reader.answered, reader.passed(), reader.token_usage())
            for reader in (direct, careful)
        ]
        assert states[0] == states[1]
    assert direct.finish() == careful.finish()


@settings(max_examples=60)
@given(st.data(), st.booleans(), st.booleans())
def test_damage_is_left(data: st.DataObject, strip: bool, watched: bool) -> None:
    """With any bytes changed, removed or cut off, the reader would have passed the same."""
    reader, found = ready(strip=strip, watched=watched)
    plain = StreamReader(strip_usage=True, strip_counts=strip)
    plain.feed(START)
    parts = [event(chunk(text, 7)) for text in (" b", "", " <", ' "\\', " é")]
    damaged = bytearray(framed(parts))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        new = data.draw(st.sampled_from([b"", *(bytes([byte]) for byte in b'\r\n"\\{}0f\x00 ,d')]))
        damaged[at : at + 1] = new
    chunks = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])

    passed, rest = found.pass_on(chunks)

    taken = chunks[: len(chunks) - len(rest)]
    assert taken + rest == chunks
    assert unframed(passed) == plain.feed(unframed(taken))
    assert reader.passed() == plain.passed()


@pytest.mark.parametrize("strip", [True, False])
def test_chunks_of_a_burst(strip: bool) -> None:
    """Ordinary events are all taken. The last count is that of the stream, and texts count as deltas."""
    reader, found = ready(strip=strip)
    parts = [event(chunk(text, 10 + number)) for number, text in enumerate([" b", "", ' "c"', " d<"])]
    chunks = framed([parts[0], parts[1] + parts[2], parts[3]])

    passed, rest = found.pass_on(chunks + framed([b"data: [DONE]\n\n"]) + b"0\r\n")

    assert rest == framed([b"data: [DONE]\n\n"]) + b"0\r\n"
    assert (passed == chunks) is not strip
    assert unframed(passed).count(b"data: ") == 4
    assert (b"usage" in passed) is not strip
    assert reader.passed() == 13
    assert reader.token_usage().deltas == 5


@settings(max_examples=60)
@given(st.data(), events(), st.booleans(), st.sampled_from([None, True, False]))
def test_blocks_of_many_events(
    data: st.DataObject, made: list[bytes], counts: bool, thinks: bool | None
) -> None:
    """What is fed in large blocks is read by the kernel too, with the same result."""
    direct, careful = (
        kind(
            strip_usage=True,
            strip_counts=counts,
            lost=None if thinks is None else LostThought(expected=thinks),
        )
        for kind in (StreamReader, CarefulReader)
    )
    cut = data.draw(st.integers(1, len(made)))
    with patch.object(repetitions, "kernel", needed_kernel), patch.object(repetitions, "_MANY", 0):
        for block in (made[0] * 2, b"".join(made[:cut]), b"".join(made[cut:])):
            assert direct.feed(block) == careful.feed(block)
            assert direct.passed() == careful.passed()
            assert direct.token_usage() == careful.token_usage()


def test_what_is_not_taken() -> None:
    """A chunk that is incomplete, holds half an event or is oddly framed is left, and very much at once."""
    _, found = ready()
    ours = event(chunk(" b", 3))
    whole = framed([ours])
    assert found.pass_on(whole)[1] == b""
    much = whole * (MOST // len(whole) + 1)
    for chunks in (
        *(whole[:-1], whole[:30], framed([ours[:50], ours[50:]]), framed([ours + b"data: "])),
        *(b"0" * 9 + whole, whole.replace(b"\r\n", b";a=b\r\n", 1), whole[:-2] + b"\n\r", b"", b"0\r\n\r\n"),
        *(framed([ours.replace(b"\n\n", b"\r\n\r\n")]), framed([ours.replace(b" b", b"\r")]), much),
    ):
        assert found.pass_on(chunks) == (b"", chunks)
    assert found.pass_on(whole + whole[:9]) == (found.pass_on(whole)[0], whole[:9])


def test_thought_that_is_watched_for() -> None:
    """Where the mark of a thought may be, the reader looks, and it knows the text before."""
    reader, found = ready(watched=True)
    assert found.pass_on(framed([event(chunk(" b", 3))]))[1] == b""
    for text in (" </th", "\\u003c", "\N{WHITE LEFT-POINTING TRIANGLE}"):
        assert found.pass_on(framed([event(chunk(text, 4)).replace(b"\\\\", b"\\")]))[1] != b""

    reader.feed(event(chunk("</think>", 4)))
    assert compiled(reader) is not None
    reader.feed(event(chunk("\n\nanswer", 5)))

    usage = reader.token_usage()
    assert (usage.lost_mark, usage.deltas) == ("</think>", 5)


def test_without_the_kernel() -> None:
    """Events are fed where there is no kernel, and while one is incomplete."""
    reader, _ = ready()
    reader.feed(event(chunk(" b", 3))[:20])
    assert compiled(reader) is None
    fresh = StreamReader(strip_usage=True)
    fresh.feed(event(chunk(" a")) * 2)
    with patch.object(repetitions, "kernel", lambda: None):
        assert fresh.compiled() is None
