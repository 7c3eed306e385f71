"""`python -m gateway` is `thinkmeter`."""

from gateway.cli import main

main()
