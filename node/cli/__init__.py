"""The command `fenhe`: what an operator, an analyst or a newcomer types.

Owns words, tables and exit codes. Promises: results on stdout, everything else on stderr; a fault
is one sentence with its next step; exit codes 0 done, 1 failed, 2 wrong words, 5 a partial answer.
Never holds a rule of its own: it calls the rooms, or a node over gRPC.
"""

from node.cli.main import main

__all__ = ["main"]
