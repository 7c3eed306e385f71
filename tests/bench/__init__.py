"""Benchmark of the gateway beside its peers: `python -m tests.bench --help`."""
