"""One short program for each client people use; see docs/clients.md."""
