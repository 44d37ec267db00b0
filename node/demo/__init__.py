"""The demo: a slice of Linfen on one machine, from real input to a federated answer.

Owns the story that `fenhe demo` tells: makes the slice, starts every node as a process of its own,
loads the study's people as a clinic's system would, asks, kills, asks again, and cleans up. It uses
only what any user has: the command line, data folders, credentials and gRPC.
"""

from node.demo.people import Person, mean_systolic_pooled, people_of

__all__ = ["Person", "mean_systolic_pooled", "people_of"]
