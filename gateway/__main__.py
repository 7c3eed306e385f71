"""Makes `python -m gateway` run the `thinkmeter` command."""

from gateway.cli.main import main

main()
