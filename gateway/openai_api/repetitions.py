"""Reads the events of a stream that repeat an earlier one, in Python or by the compiled kernel. No I/O."""

from __future__ import annotations

from gateway.openai_api.compiled_events import MOST, RepeatedEvents
from gateway.openai_api.deltas import PassedDeltas, Spelling
from gateway.openai_api.earlier_streams import EarlierStreams
from gateway.openai_api.known_events import beginning_of
from gateway.openai_api.lost_thoughts import LostThought
from gateway.openai_api.repeated_events import EventTemplate, template_of
from gateway.openai_api.running_counts import RunningCounts
from router_model.native.library import kernel

_MANY = 2_048  # bytes of a block; less is read by the kernel only on its way past the reader
_TRIALS = 8  # events that become the template, until one repeats it


class Repetitions:
    """Finds an event that most others of a stream repeat, and counts what they carry."""

    __slots__ = (
        *("_compiled", "_counts", "_deltas", "_earlier", "_head", "_kind", "_learnt", "_strip"),
        *("_template", "_trials"),
    )

    def __init__(
        self, deltas: PassedDeltas, counts: RunningCounts, earlier: EarlierStreams, *, strip: bool
    ) -> None:
        """strip: remove the running counts."""
        self._earlier = earlier
        self._deltas = deltas
        self._counts = counts
        self._strip = strip
        self._template: EventTemplate | None = None
        """A recent event."""
        self._compiled: RepeatedEvents | None = None
        """The template, if events pass by the kernel."""
        self._learnt = False
        """The template was made in this stream, and nothing has repeated it yet."""
        self._head: bytes | None = None
        """What stands in front of the choices in this stream; None until an event was seen."""
        self._kind = b""
        """Such streams have the same templates but for the head."""
        self._trials = 0
        """How many events became the template since one was repeated."""

    @property
    def learning(self) -> bool:
        """Each event that is not a repetition may become the template."""
        return self._trials < _TRIALS

    def learn(self, event: bytes, spelling: Spelling) -> None:
        """Make an event the template, unless many were in vain."""
        if self.learning:
            self._trials += 1
            self._template, self._compiled = template_of(event, spelling), None
            self._learnt = self._template is not None

    def fits(self, block: bytes) -> bool:
        """Whether the first event of a block seems to repeat the template."""
        return self._template is not None and block.startswith(self._template.prefix)

    def turn(self, block: bytes) -> bool:
        """Take the template of an earlier stream that the first event of a block seems to repeat.

        The stream must be in compact JSON. Returns False if there is none.
        """
        if self._head is None:
            self._head, kind = beginning_of(block)
            self._kind = kind + (b"stripped" if self._strip else b"")
        head = self._head
        if not head or not block.startswith(head):
            return False
        template = self._earlier.template(self._kind, head, block)
        if template:
            self._template, self._compiled, self._learnt = template, None, False
        return template is not None

    def read(self, block: bytes) -> tuple[int, bytes]:
        """Read the repetitions at the beginning of a block, which ends with a blank line.

        Returns where they end, and what is forwarded of them.
        """
        template = self._template
        if template is None:
            return 0, b""
        if _MANY < len(block) <= MOST and (compiled := self._compile(template)):
            end, events = compiled.read(block)
            if end:
                self._note_repeated(template)
                self.settle(None)
                return end, events
        end, deltas, kept, event, count = template.read(block, strip=self._strip)
        if not end:
            return 0, b""
        self._note_repeated(template)
        self._deltas.add(deltas, reasoning=template.reasoning)
        if count:
            self._counts.repeat(template.index, event, count, strip=self._strip)
        return end, b"".join(kept) if kept else block[:end]

    def _note_repeated(self, template: EventTemplate) -> None:
        self._trials = 0
        if self._learnt and self._head and template.prefix.startswith(self._head):
            self._earlier.keep(self._kind, self._head, template)
        self._learnt = False

    def compiled(self, watch: LostThought | None) -> RepeatedEvents | None:
        """The template for the kernel, if one was repeated and there is a kernel.

        watch: looks for a thought in the answer. It must see more than the kernel does in reasoning, or while
        a mark may be under way.
        """
        template = self._template
        if template is None or self._trials or (watch and (template.reasoning or not watch.passes)):
            return None
        compiled = self._compile(template)
        if compiled:
            compiled.watch = watch is not None
        return compiled

    def _compile(self, template: EventTemplate) -> RepeatedEvents | None:
        if self._compiled is None and (library := kernel()):
            self._compiled = template.compiled(library, strip=self._strip)
        return self._compiled

    def settle(self, lost: LostThought | None) -> None:
        """Count what has passed by the kernel, and tell who looks for a thought."""
        template, compiled = self._template, self._compiled
        if template is None or compiled is None:
            return
        deltas, count, text = compiled.taken()
        self._deltas.add(deltas, reasoning=template.reasoning)
        if count:
            event = template.counted(count) if self._strip else b""
            self._counts.repeat(template.index, event, count, strip=self._strip)
        if text and lost:
            lost.passed(text)
