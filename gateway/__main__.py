"""`python -m gateway` is `thinkmeter`."""

from gateway.cli.serving import main

main()
