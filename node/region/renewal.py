"""New certificates over the link, after the name of a node has changed. No key is made or sent.

The child asks the node above for certificates of the keys it has. The node above signs only what it
would sign at enrolment (node/security/authority.py), and of a moved node only the keys that the
root's decision names. The child takes only chains, of its own authority too, that lead to the root.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from hierarchy_config import Hierarchy, NodeId
from hierarchy_config.errors import FenheError
from node.clock import Clock
from node.foundations import utc_now
from node.logs import get_logger
from node.region.context import RegionContext, parse_body, to_body
from node.region.errors import RegionRenewalError
from node.security.authority import JoinRequest, SignedNode, load_authority, sign_node
from node.security.authority_chain import verify_authority
from node.security.caller import CallerKind
from node.security.certificates import (
    authority_name,
    certificate_request,
    private_key_from_pem,
    requested_key,
)
from node.security.folders import NodeFolder
from node.security.former import keep_former, key_digest
from node.security.key_files import read_secret, write_public
from node.security.signatures import verify_chain
from replication.channel import AskRefusedError
from replication.core.model import Request

__all__ = ["CERTIFICATE", "Renewal", "install_renewed"]

CERTIFICATE: Final = "region.certificate"
_ASK_MS: Final = 10_000


class Renewal:
    """Both ends of the question."""

    def __init__(self, context: RegionContext, clock: Clock) -> None:
        self._c = context
        self._clock = clock
        self._log = get_logger("region")
        self._told = ("", "")
        self.admit: Callable[[JoinRequest], None] = lambda _request: None
        """Refuses revoked keys, before anything is signed."""

    @property
    def is_due(self) -> bool:
        """Whether this node's certificate still carries a former name."""
        return self._c.base.credentials.is_former

    async def on_certificate(self, child: NodeId, request: Request) -> bytes:
        """Certify a child anew: it is who it says, the link's guard has seen to that."""
        body = parse_body(request.body)
        asked = (body.get("tls_request"), body.get("authority_request"))
        if not all(isinstance(each, str) for each in asked):
            raise AskRefusedError("INVALID_REQUEST", "a request for certificates is not whole")
        tls_request, authority_request = (str(each).encode() for each in asked)
        join = JoinRequest(child, tls_request, authority_request)
        signed = await self._c.blocking(self._sign, join)
        return to_body(
            {
                "tls_chain": signed.tls_chain.decode(),
                "authority_chain": signed.authority_chain.decode(),
            }
        )

    def _sign(self, join: JoinRequest) -> SignedNode:
        base = self._c.base
        authority = load_authority(base.paths.data)
        if authority_name(authority.certificate).dns_name != base.hierarchy.dns_name(base.node_id):
            raise AskRefusedError("NOT_YET", f"{base.node_id} has no new authority itself yet")
        pinned = self._c.former.pins.get(join.node_id)
        if pinned is not None and key_digest(requested_key(join.tls_request)) != pinned:
            raise AskRefusedError("KEY_NOT_PINNED", "the decision names another key of this node")
        self.admit(join)
        return sign_node(
            authority, base.credentials.root_pem, join, base.hierarchy, utc_now(self._clock)
        )

    async def ask(self) -> bool:
        """Ask the node above once; whether new certificates are in the data folder."""
        base = self._c.base
        parent = base.hierarchy.parent(base.node_id)
        if parent is None or not self._c.hub.states[parent].connected:
            return False
        try:
            requests = await self._c.blocking(_requests, base.paths.data)
            answer = await self._c.ask(parent, CERTIFICATE, requests, _ASK_MS)
            chains = (answer.get("tls_chain"), answer.get("authority_chain"))
            if not all(isinstance(each, str) for each in chains):
                raise RegionRenewalError("the answer holds no certificates")
            tls, authority = (str(each).encode() for each in chains)
            now = utc_now(self._clock)
            await self._c.blocking(
                lambda: install_renewed(
                    base.paths.data, base.node_id, base.hierarchy, tls, authority, now=now
                )
            )
        except FenheError as error:
            self._say(error.code, error.message)
            return False
        except OSError as error:
            # As on a full disk: the former certificates stand, and it is asked again.
            self._say("FILES", error.strerror or type(error).__name__)
            return False
        said = base.hierarchy.dns_name(base.node_id)
        self._log.info("certificates are renewed", certificate=said)
        return True

    def _say(self, code: str, reason: str) -> None:
        """One line when the reason changes, not one a try."""
        if (code, reason) != self._told:
            self._told = (code, reason)
            self._log.warning("no new certificate yet", code=code, reason=reason)


def install_renewed(
    data_dir: Path,
    node_id: NodeId,
    hierarchy: Hierarchy,
    tls_chain: bytes,
    authority_chain: bytes,
    *,
    now: datetime,
) -> None:
    """Check renewed chains and put them in place of the old ones; those go on being served.

    A death between the two files leaves a certificate of a former name, which is renewed again.

    Raises:
        RegionRenewalError: They are not this node's, of its keys, under the root it has.
    """
    folder = NodeFolder(data_dir)
    root_pem = folder.tls.root.read_bytes()
    tls_key = private_key_from_pem(read_secret(folder.tls.private_key)).public_key()
    ca_key = private_key_from_pem(read_secret(folder.authority_key))
    try:
        peer = verify_chain(tls_chain, root_pem, hierarchy, now)
        verify_authority(authority_chain, ca_key, root_pem, hierarchy, node_id, now)
    except FenheError as error:
        raise RegionRenewalError(f"certificates that cannot be used: {error.message}") from None
    identity = peer.identity
    if identity.kind is not CallerKind.NODE or identity.node_id != node_id:
        raise RegionRenewalError("the certificate is of somebody else")
    if peer.public_key != tls_key:
        raise RegionRenewalError("the certificate is of another key than this node's")
    keep_former(folder.tls.chain)
    write_public(folder.authority_chain, authority_chain)
    write_public(folder.tls.chain, tls_chain)


def _requests(data_dir: Path) -> dict[str, str]:
    folder = NodeFolder(data_dir)
    tls, authority = (
        certificate_request(private_key_from_pem(read_secret(path))).decode()
        for path in (folder.tls.private_key, folder.authority_key)
    )
    return {"tls_request": tls, "authority_request": authority}
