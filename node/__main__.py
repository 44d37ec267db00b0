"""`python -m node` is the command `fenhe`."""

from node.cli.main import main

main()
