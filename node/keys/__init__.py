"""The node's data keys in use: which seals what, their rotation, their escrow, the outside service.

Owns the re-sealing of what is stored and the end of keys that nothing names any more. It opens one
cell at a time, raises no version, and writes no entry of the change log.
"""

__all__: list[str] = []
