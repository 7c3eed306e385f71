"""A real Redis Cluster for tests: three primaries with one replica each, on local ports."""

from __future__ import annotations

import contextlib
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from tests.redis import RealRedis, binaries

SLOTS = 16_384
_BUS = 10_000  # added to a node's port, this is its port on the cluster bus


class Cluster:
    """Six nodes. A test may move slots between them and kill any of them."""

    def __init__(self, nodes: list[RealRedis]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """The address of a running node; it leads to the others."""
        return next(node.url for node in self.nodes if node.process)

    def form(self) -> None:
        first, primaries = self.nodes[0], self.nodes[:3]
        for node in self.nodes[1:]:
            first.ask("CLUSTER MEET", "127.0.0.1", node.options["port"])
        for third, node in enumerate(primaries):
            node.ask("CLUSTER ADDSLOTS", *range(third * SLOTS // 3, (third + 1) * SLOTS // 3))
        until(lambda: all(len(node.ask("CLUSTER NODES")) == len(self.nodes) for node in self.nodes))
        for primary, replica in zip(primaries, self.nodes[3:], strict=True):
            identity = primary.ask("CLUSTER MYID").decode()
            until(lambda r=replica, i=identity: _agrees(r, "CLUSTER REPLICATE", i))  # type: ignore[misc]
        self.settle()

    def settle(self) -> None:
        """Wait until every node is healthy and every replica follows its primary."""
        until(lambda: all(_is_well(node) for node in self.nodes))

    def primary_of(self, key: str) -> RealRedis:
        """The node that says that it serves a key."""
        slot = key_slot(key.encode())
        return next(node for node in self.nodes if node.process and _serves(node, slot))

    def replica_of(self, primary: RealRedis) -> RealRedis:
        port = int(primary.options["port"])
        others = [node for node in self.nodes if node is not primary and node.process]
        return next(node for node in others if _replication(node).get("master_port") == port)

    def move(self, key: str, to: RealRedis) -> None:
        """Move the slot of a key with all keys in it, as `redis-cli --cluster reshard` does."""
        slot, source = key_slot(key.encode()), self.primary_of(key)
        identities = [node.ask("CLUSTER MYID").decode() for node in (source, to)]
        to.ask("CLUSTER SETSLOT", slot, "IMPORTING", identities[0])
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", identities[1])
        while keys := source.ask("CLUSTER GETKEYSINSLOT", slot, 3):
            source.ask("MIGRATE", "127.0.0.1", to.options["port"], "", 0, 5000, "KEYS", *keys)
        for node in (to, source):
            node.ask("CLUSTER SETSLOT", slot, "NODE", identities[1])


def until(condition: Callable[[], bool], seconds: float = 40) -> None:
    """Poll until the servers have reached a state that they do not announce."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the servers do not reach the state"
        time.sleep(0.05)


def catch_up(primary: RealRedis, replica: RealRedis) -> None:
    """Wait until the replica has received everything from its primary."""

    def behind() -> int:
        offset = int(_replication(primary)["master_repl_offset"])
        return offset - int(_replication(replica)["slave_repl_offset"])

    until(lambda: behind() <= 0)


def _agrees(node: RealRedis, *words: Any) -> bool:
    """Whether the node accepts the command already."""
    try:
        node.ask(*words)
    except redis.ResponseError:
        return False
    return True


def _replication(node: RealRedis) -> dict[str, Any]:
    return dict(node.ask("INFO", "replication"))


def _is_well(node: RealRedis) -> bool:
    about = _replication(node)
    follows = about["role"] == "master" or about["master_link_status"] == "up"
    return follows and node.ask("CLUSTER INFO")["cluster_state"] == "ok"


def _serves(node: RealRedis, slot: int) -> bool:
    own = next(n for n in node.ask("CLUSTER NODES").values() if "myself" in n["flags"])
    return any(int(bounds[0]) <= slot <= int(bounds[-1]) for bounds in own["slots"])


def _free_ports(count: int) -> list[int]:
    """Free ports whose ports on the cluster bus are free as well."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            partner = held.enter_context(socket.socket())
            with contextlib.suppress(OSError, OverflowError):
                partner.bind(("127.0.0.1", port + _BUS))
                ports.append(port)
    return ports


@contextlib.contextmanager
def real_cluster(path: str | None = None) -> Iterator[Cluster]:
    """A running cluster whose nodes know each other."""
    path = path or next(iter(binaries().values()))
    with tempfile.TemporaryDirectory(prefix="tm") as folder:
        nodes = []
        for port in _free_ports(6):
            home = Path(folder) / str(port)
            home.mkdir()
            options = {
                "port": str(port),
                "bind": "127.0.0.1",
                "cluster_enabled": "yes",
                "cluster_node_timeout": "1000",
                "cluster_replica_validity_factor": "0",
                "repl_diskless_sync_delay": "0",
                "appendonly": "yes",
            }
            nodes.append(RealRedis(path, home, **options))
        try:
            for node in nodes:
                node.start()
            cluster = Cluster(nodes)
            cluster.form()
            yield cluster
        finally:
            for node in nodes:
                node.stop(signal.SIGKILL)
