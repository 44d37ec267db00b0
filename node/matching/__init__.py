"""Matching in a running node: who among the residents held here may be one person.

Owns the pairs that were found, the index in memory that finds them, and the answers to those who
ask. Promises that whoever was added or amended is asked for, whatever ends the process between, and
that nobody is shown a resident whom he may not see. Never merges anybody, never copies a value of a
resident into its tables, and never leaves this node. Needs the extra `empi`, imported on first use.
"""

from __future__ import annotations

__all__: list[str] = []
