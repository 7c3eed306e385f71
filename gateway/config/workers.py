"""The share of each worker in what the settings allow the whole gateway. No I/O."""

from __future__ import annotations

from gateway.config.settings import Settings


def share_of_worker(settings: Settings, workers: int) -> Settings:
    """The settings of one of so many workers: together they stay within the limits of the gateway.

    Limits on single requests and on single addresses are the same for each worker.
    """
    if workers == 1:
        return settings
    limits, reservations, queue = settings.limits, settings.reservations, settings.queue

    def share(amount: int) -> int:
        return -(-amount // workers)

    own_limits = {
        "bodies_bytes": share(limits.bodies_bytes),
        "unread_bytes": share(limits.unread_bytes),
        "unfinished_bytes": share(limits.unfinished_bytes),
        "connections": limits.connections and share(limits.connections),
    }
    own_reservations = {
        "local_share": reservations.local_share / workers,
        "p95_overrun": reservations.p95_overrun / workers,
    }
    return settings.model_copy(
        update={
            "limits": limits.model_copy(update=own_limits),
            "reservations": reservations.model_copy(update=own_reservations),
            "queue": queue.model_copy(update={"requests": share(queue.requests)}),
        }
    )
