"""Who may come in, and how what is kept is kept.

Owns certificates and the identities they prove, the table of methods, callers, sealing, blind
indexes and key files. It promises that an identity is exactly what a certificate chain to the
region's root says, that a method nobody listed is denied, and that what it sealed opens only where
it was sealed. It never talks to a database, never logs a key, and never dials another node.
Import from its modules: they are named after what they do.
"""

__all__: list[str] = []
