"""Runs a small real model behind the gateway, with a head and a token budget, and asks questions.

    make demo                          # or: python -m examples.demo
    make demo ARGS=--traffic=surge     # the price rises, and answers get shorter instead of failing

Shows for each question the tier, the reason, and whether the answer was right; how the price and the budget
move; and the score of adaptive, the best fixed mix and every fixed tier. The console shows the same.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys

PORT = 8080


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--traffic",
        choices=("steady", "surge"),
        default="steady",
        help="surge: three times the rate in the middle of the run",
    )
    parser.add_argument("--seconds", type=positive, default=60, help="how long to ask questions (default 60)")
    parser.add_argument("--rate", type=positive, default=3, help="questions per second (default 3)")
    parser.add_argument(
        "--seed", type=int, default=7, help="seed of the questions and their times (default 7)"
    )
    parser.add_argument(
        "--once", action="store_true", help="exit after the summary instead of continuing to serve"
    )
    parser.add_argument("--port", type=int, help=f"port of the gateway (default {PORT}, or a free port)")
    asked_for = parser.parse_args()
    if asked_for.port and not free(asked_for.port):
        parser.error(f"port {asked_for.port} is taken: give another --port, or none")
    return asked_for


def positive(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def free(port: int) -> bool:
    """Whether a server can listen on this port."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


def claimed(port: int) -> socket.socket | None:
    """Claim the port for this demo while the returned socket is open, so that no other demo takes it.

    The gateway binds the TCP port a second later. Until then, the UDP port of that number serves as a lock.
    """
    hold = socket.socket(type=socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        hold.bind(("127.0.0.1", port))
        return hold
    hold.close()
    return None


def main() -> None:
    asked_for = options()
    hold = None if asked_for.port or not free(PORT) else claimed(PORT)
    asked_for.port = asked_for.port or (PORT if hold else 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
    for name in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal must not leave the servers behind
        signal.signal(name, lambda number, _: sys.exit(128 + number))
    try:
        # imported here, because the import takes a second and Ctrl-C must end that quietly too
        from examples.demo.stage import show

        show(asked_for)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
