"""A question's manifest on its way: who signs it, and what a node checks before it computes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SignedManifest"]


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """An encoded Manifest, the asking node's signature over it, and its certificate chain (PEM)."""

    manifest: bytes
    signature: bytes
    certificate: bytes
