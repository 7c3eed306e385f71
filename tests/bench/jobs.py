"""What a load generator is told to do, and what it reports."""

from __future__ import annotations

import msgspec


class Job(msgspec.Struct, kw_only=True):
    """One measurement, given to a load generator as JSON."""

    port: int
    path: str
    headers: dict[str, str]
    body: str
    """Where it contains `tests.fakes.light.SERIAL`, the number after it differs in every request."""
    connections: int
    stream: bool = False
    stamped: bool = False
    expected: int = 0
    """Token events that a stream must have."""
    warmup_s: float = 0.5
    seconds: float = 3.0
    requests: int | None = None
    """Stop after this many instead of after `seconds`."""
    spread_s: float = 0.0
    """The connections start at random times within these seconds."""
    target_pids: list[int] = []
    target_cores: list[int] = msgspec.field(default_factory=lambda: [0])
    bench_pids: list[int] = []
    """Backend and Redis; the load generator adds itself."""
    core: int = 1
    """Where backend, Redis and load run."""


class Result(msgspec.Struct, kw_only=True):
    """What was measured in the window after the warm-up."""

    seconds: float = 0.0
    requests: int = 0
    chunks: int = 0
    reads: int = 0
    errors: int = 0
    first_error: str = ""
    p50_ms: float | None = None
    p99_ms: float | None = None
    quiet_p99_ms: float | None = None
    """Trial `idle`: the same without idle connections and large prompts."""
    first_byte_p50_ms: float | None = None
    delay_p50_ms: float | None = None
    delay_p99_ms: float | None = None
    kib_per_connection: float | None = None
    """Resident memory that the target took, from before the first connection to the end of the window."""
    target_cpu_s: float = 0.0
    busiest_cpu_s: float = 0.0
    """CPU time of the target's process that used most."""
    bench_busy: float = 0.0
    """Share of their core that backend, Redis and load used."""
    foreign: float = 0.0
    """Larger share of a core that other processes used."""
    steal: float = 0.0
    """Share of all cores that the host took."""
