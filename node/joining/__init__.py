"""How a new node joins the region with a code that was said on the telephone.

Owns invitations, the side door and both ends of what is said at it. Promises that a code is useless
without the child's keys, after its time, and after five wrong proofs; that neither end believes a
byte before the other has proven the code; and that whichever of them dies in between, the child
asks again with the keys it has. Signs nothing but what `authority.sign_node` signs.
"""

__all__: list[str] = []
