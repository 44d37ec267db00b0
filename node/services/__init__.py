"""The gRPC services of a node, and the guard that every call passes.

Owns the translation of messages and the order of a call: who, may he, do it, how errors leave.
Promises that no handler runs without an identified and permitted caller, and that no unexpected
error text reaches a peer. Never holds a rule of care, storage or federation.
"""

__all__: list[str] = []
