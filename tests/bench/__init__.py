"""Side-by-side benchmark of the gateway and its peers: `python -m tests.bench --help`."""
