"""Findings about this node, each with its next step, and the canaries that show a leak.

Owns the register of what is looked at, the looks at a data folder and at a running node, and the
planting and finding of canaries. Other rooms add their own looks (`CheckupRoom.checkup.add`).
Promises to change nothing but the one canary that an operator asks for; it never mends.
"""

from node.doctor.findings import Checkup, Finding, Severity
from node.doctor.room import CheckupRoom

__all__ = ["Checkup", "CheckupRoom", "Finding", "Severity"]
