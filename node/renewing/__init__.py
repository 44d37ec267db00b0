"""How a node whose certificate does not hold any more, or not yet, comes back into the region.

Owns the question `Renew` at the parent's side door and both of its ends, the certificate with which
a limited node goes on serving its own place, and the loop that asks. Promises that no key is made
or sent, that nobody is renewed who was revoked or stayed away too long, and that no clock is ever
set by what another machine says: a wrong one is named, with both times.
"""

__all__: list[str] = []
