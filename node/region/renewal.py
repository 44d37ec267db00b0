"""New certificates over the link, at half of their life or after the name of a node has changed.

No key is made or sent. The child asks the node above for certificates of the keys it has. The node
above signs only what it would sign at enrolment (node/security/authority.py), and of a moved node
only the keys that the root's decision names; never a key that is new to it: whoever has the
machine of a child would make one after the other. The child takes only chains, of its own authority
too, that lead to the root.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from hierarchy_config import Hierarchy, NodeId
from hierarchy_config.errors import FenheError
from node.clock import Clock
from node.foundations import Foundations, utc_now
from node.logs import get_logger
from node.region.context import RegionContext, parse_body, to_body
from node.region.errors import RegionRenewalError
from node.security.authority import JoinRequest, SignedNode, load_authority, sign_node
from node.security.authority_chain import verify_authority
from node.security.caller import CallerKind
from node.security.certificates import (
    Authority,
    authority_name,
    certificate_request,
    certificates_from_pem,
    private_key_from_pem,
    requested_key,
)
from node.security.folders import NodeFolder
from node.security.former import keep_former, key_digest
from node.security.key_files import read_secret, write_public
from node.security.signatures import verify_chain
from replication.channel import AskRefusedError
from replication.core.model import Request

__all__ = ["CERTIFICATE", "Renewal", "install_renewed", "is_half_over", "renew_root"]

CERTIFICATE: Final = "region.certificate"
_ASK_MS: Final = 10_000
_AGAIN_MS: Final = 3_600_000
"""A certificate that its issuer's end has cut short is not asked for at every turn."""
_FAILED_MS: Final = 60_000
_PEM_MAX: Final = 16_384


class Renewal:
    """Both ends of the question."""

    def __init__(self, context: RegionContext, clock: Clock) -> None:
        self._c = context
        self._clock = clock
        self._log = get_logger("region")
        self._told = ("", "")
        self._next_ms = 0
        self.admit: Callable[[JoinRequest, bytes, str], None] = lambda _join, _chain, _pin: None
        """Refuses revoked keys and new ones, before anything is signed: RevocationRoom.readmit."""

    @property
    def is_due(self) -> bool:
        """Whether this node's certificate carries a former name, or half of its life is over."""
        if self._c.base.credentials.is_former:
            return True
        base, now_ms = self._c.base, self._clock.monotonic_ms()
        parent = base.hierarchy.parent(base.node_id)
        # A try without a link would put off the one that is possible as soon as there is one.
        linked = parent is not None and self._c.hub.states[parent].connected
        if not linked or now_ms < self._next_ms:
            return False
        self._next_ms = now_ms + _FAILED_MS
        return is_half_over(base, utc_now(self._clock))

    def take_up(self) -> bool:
        """Go on with the certificates that were just installed; False: it takes another life.

        The server follows the files by itself, what is signed from now on is signed under the new
        one, and the link to the parent is dialled again.
        """
        base, now_ms = self._c.base, self._clock.monotonic_ms()
        self._next_ms = now_ms + _AGAIN_MS
        if base.credentials.is_former:
            return False
        base.credentials.signer.renew(
            certificates_from_pem(base.credentials.tls.chain.read_bytes())
        )
        parent = base.hierarchy.parent(base.node_id)
        runner = None if parent is None else self._c.hub.states[parent].runner
        if runner is not None:
            runner.end("RENEWED", "this node has a new certificate")
        return True

    async def on_certificate(self, child: NodeId, request: Request) -> bytes:
        """Certify a child anew: it is who it says, the link's guard has seen to that."""
        body = parse_body(request.body)
        asked = (body.get("tls_request"), body.get("authority_request"))
        if not all(isinstance(each, str) for each in asked):
            raise AskRefusedError("INVALID_REQUEST", "a request for certificates is not whole")
        tls_request, authority_request = (str(each).encode() for each in asked)
        join = JoinRequest(child, tls_request, authority_request)
        chain = body.get("authority_chain")
        has = chain.encode() if isinstance(chain, str) and len(chain) <= _PEM_MAX else b""
        signed = await self._c.blocking(self._sign, join, has)
        return to_body(
            {
                "tls_chain": signed.tls_chain.decode(),
                "authority_chain": signed.authority_chain.decode(),
            }
        )

    def _sign(self, join: JoinRequest, authority_chain: bytes) -> SignedNode:
        base = self._c.base
        authority = load_authority(base.paths.data)
        if authority_name(authority.certificate).dns_name != base.hierarchy.dns_name(base.node_id):
            raise AskRefusedError("NOT_YET", f"{base.node_id} has no new authority itself yet")
        pinned = self._c.former.pins.get(join.node_id)
        if pinned is not None and key_digest(requested_key(join.tls_request)) != pinned:
            raise AskRefusedError("KEY_NOT_PINNED", "the decision names another key of this node")
        self.admit(join, authority_chain, pinned or "")
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
            requests = await self._c.blocking(_question, base.paths.data)
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
    if _names_differ(folder.tls.chain, tls_chain):
        keep_former(folder.tls.chain)
    write_public(folder.authority_chain, authority_chain)
    write_public(folder.tls.chain, tls_chain)


def _question(data_dir: Path) -> dict[str, str]:
    """The requests, and what proves that the authority's key is not a new one."""
    path = NodeFolder(data_dir).authority_chain
    chain = path.read_bytes() if path.exists() else b""
    return {**_requests(data_dir), "authority_chain": chain.decode("ascii", "replace")}


def _requests(data_dir: Path) -> dict[str, str]:
    folder = NodeFolder(data_dir)
    tls, authority = (
        certificate_request(private_key_from_pem(read_secret(path))).decode()
        for path in (folder.tls.private_key, folder.authority_key)
    )
    return {"tls_request": tls, "authority_request": authority}


def is_half_over(base: Foundations, now: datetime) -> bool:
    """Whether half of the life of the node's certificate, or of its authority's, is over."""
    chains = [base.credentials.signer.chain_pem]
    authority = NodeFolder(base.paths.data).authority_chain
    if authority.exists():
        chains.append(authority.read_bytes())
    leaves = [certificates_from_pem(each)[0] for each in chains]
    return any(
        now - leaf.not_valid_before_utc > (leaf.not_valid_after_utc - leaf.not_valid_before_utc) / 2
        for leaf in leaves
    )


def renew_root(base: Foundations, now: datetime) -> bool:
    """Certify the region's first node anew, with the root's key; False: the key is not here."""
    folder = NodeFolder(base.paths.data)
    if not folder.root_key.exists():
        get_logger("region").warning(
            "the certificates of the region's root node are due",
            hint="Put keys/root.key back into its folder; then they are renewed by themselves.",
        )
        return False
    key = private_key_from_pem(read_secret(folder.root_key))
    root = Authority(certificates_from_pem(base.credentials.root_pem)[0], key)
    said = _requests(base.paths.data)
    tls_request, authority_request = said["tls_request"], said["authority_request"]
    join = JoinRequest(base.node_id, tls_request.encode(), authority_request.encode())
    signed = sign_node(root, base.credentials.root_pem, join, base.hierarchy, now)
    install_renewed(
        base.paths.data,
        base.node_id,
        base.hierarchy,
        signed.tls_chain,
        signed.authority_chain,
        now=now,
    )
    return True


def _names_differ(chain_file: Path, chain: bytes) -> bool:
    """Whether a chain names its node otherwise than the one in use."""
    before, after = (certificates_from_pem(each)[0] for each in (chain_file.read_bytes(), chain))
    names = [
        each.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for each in (before, after)
    ]
    return names[0] != names[1]
