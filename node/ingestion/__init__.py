"""Ingestion: how files, feeds and messages of a hospital become records, clean and once.

Owns contents, mappings, readers, the rules of cleaning, runs and their quarantine. Promises that
accepted and quarantined units are together all that were read, that the same content adds nothing,
and that a killed run goes on. Never matches people by likeness and never writes past the storage.
"""

from __future__ import annotations

__all__: list[str] = []
