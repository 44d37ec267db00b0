"""Which keys are not to be believed any more, and that every node knows it within a minute.

Owns the signed entries that revoke keys, their flooding over the links, the judging of chains, and
the ending of what a revoked peer has open. Promises that an entry counts only for what lies below
its signer, that none is ever forgotten once it was taken, and that a node which was away learns at
its next greeting. Decides over nobody: an operator does.
"""

__all__: list[str] = []
