"""One short program per client; see docs/clients.md."""
