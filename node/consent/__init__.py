"""Who may read a resident's rows: consents, care relations, grants, broken glass.

Owns the rows that say so, how they are made, ended and listed, and the queue in which the
resident's home looks at every glass that was broken. Promises that a consent is amended at the
resident's home alone, that the same request writes one row however often it comes, and that every
change is audited in its own transaction. It never changes a record, and decides over no read: the
statements that read ask these rows themselves (node/storage/scope.py).
"""

__all__: list[str] = []
