"""How much one caller, one peer and all of them together may ask of this node at once.

Owns the token buckets, the pools of calls under way, and what a refusal says of the time to wait.
Promises that nothing waits here: a call is let in or refused at once. Replication has a pool of its
own, which no load of callers can take from it. Decides over no permission and sees no message.
"""

from node.limits.errors import LimitError
from node.limits.gate import CallGate, CallLimits
from node.limits.gauges import LimitGauges

__all__ = ["CallGate", "CallLimits", "LimitError", "LimitGauges"]
