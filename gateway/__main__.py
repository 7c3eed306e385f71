"""`python -m gateway` is `thinkmeter`."""

from gateway.cli.main import main

main()
