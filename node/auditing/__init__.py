"""The audit as something that others can rely on: signed, anchored elsewhere, searched, exported.

Owns the signed heads of the chain, the anchors kept of neighbours and got from them, the time that
this node's audit stands unanchored and what stops for it, the room kept for the audit on the disk,
and what auditors ask. Promises that a rewrite or a cut end of the audit shows at another node, and
that no answer about who looked at a record is partial without saying so. Never writes an entry of
its own choosing into another's transaction (node/storage/audit.py owns the entries).
"""

__all__: list[str] = []
