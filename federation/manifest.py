"""A question's manifest on its way: who signs it, and what a node checks before it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from federation.availability import ConfigEpochMismatchError, ManifestRefusedError
from federation.core.model import Manifest, PartialRequest
from federation.errors import PlanMismatchError
from federation.sites import SiteTree

if TYPE_CHECKING:  # the command line reads manifests and plans nothing
    from federation.core.plan import LogicalPlan

__all__ = ["ManifestSigner", "ManifestVerifier", "SignedManifest", "check_manifest"]


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """An encoded Manifest, the asking node's signature over it, and its certificate chain (PEM)."""

    manifest: bytes
    signature: bytes
    certificate: bytes


class ManifestSigner(Protocol):
    """Supplied by the node: signs with its own key."""

    def __call__(self, manifest: bytes) -> SignedManifest: ...


class ManifestVerifier(Protocol):
    """Supplied by the node: checks chain, node and signature of a manifest."""

    def __call__(self, signed: SignedManifest, asking_node: str) -> bool:
        """Whether the signature is the asking node's, by a certificate of this region."""
        ...


def check_manifest(
    manifest: Manifest, request: PartialRequest, plan: LogicalPlan, tree: SiteTree, here: str
) -> None:
    """Refuse a request that its manifest does not allow at this node.

    Raises:
        ManifestRefusedError: The site asked lies outside the scope, or outside this node's subtree,
            or the asker is neither this node nor above it.
        PlanMismatchError: This node understands the question differently.
        ConfigEpochMismatchError: This node's hierarchy is of another epoch than the asker's.
    """
    # First: what the other checks would find wrong may only be another tree.
    if manifest.config_epoch != tree.epoch:
        asker = manifest.asking_node if manifest.asking_node in tree else "the asker"
        raise ConfigEpochMismatchError(asker, manifest.config_epoch, here, tree.epoch)
    if manifest.scope not in tree or request.site not in tree.subtree(manifest.scope):
        raise ManifestRefusedError("the site that is asked lies outside the question's scope")
    if request.site not in tree.subtree(here):
        raise ManifestRefusedError(f"the site that is asked does not lie below {here}")
    if manifest.asking_node not in tree.path_to_root(here):
        raise ManifestRefusedError(f"{manifest.asking_node} is not above {here}")
    if manifest.plan_digest != plan.digest:
        raise PlanMismatchError(f"{here} plans this question differently")
