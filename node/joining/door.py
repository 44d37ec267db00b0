"""The parent's side of the door: begins conversations, judges proofs, makes nodes.

Knows no transport: who serves it says from which address a call came. It signs nothing but what
`authority.sign_node` signs, and nothing before the proof holds. Lives on one event loop; what
blocks runs beside it. What was begun is forgotten when the node stops.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeId
from node.clock import Clock, RandomBytes
from node.errors import InvalidRequestError
from node.joining.answer import NEW_PSEUDONYM, JoinAnswer, SignedEpochText, write_answer
from node.joining.errors import (
    DoorBusyError,
    InvitationRefusedError,
    InviteNotChildError,
    JoinProofError,
)
from node.joining.invitations import Invitation, Invitations, JoinKeys
from node.joining.knocks import Conversations, Knocks, Opened
from node.joining.model import JoinAsked, Joined
from node.joining.proof import (
    NONCE_BYTES,
    PROOF_BYTES,
    SALT_BYTES,
    STRETCH,
    Conversation,
    child_proof,
    holds,
    is_possessed,
    parent_proof,
)
from node.logs import get_logger
from node.renewing.errors import RenewalRefusedError
from node.renewing.parent import Renewer
from node.renewing.proof import RenewAsked, Renewed, transcript
from node.security.authority import JoinRequest, SignedNode, load_authority, sign_node
from node.security.certificates import authority_name, requested_key
from node.security.errors import CertificateUnusableError
from node.security.folders import NodeFolder
from node.security.former import key_digest
from node.security.key_files import read_secret

__all__ = ["Door", "DoorGround"]

_PEM_MAX: Final = 16_384
_SIGNATURE_MAX: Final = 80
_DECOY: Final = b"fenhe.join.decoy.1"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DoorGround:
    """What a door stands on.

    `region`: text of the region file in force, and the root's statements about it if it was signed.
    `address`: what a child is told to dial unless its invitation says otherwise. `is_known`: if
    a child of that name has linked here before. `lend`: asks a county for its pseudonym key, sealed
    to the holder of a chain. `admit`: raises PeerRevokedError if a key asked for is revoked. The
    first three and the last block.
    """

    data: Path
    node_id: NodeId
    hierarchy: Hierarchy
    root_pem: bytes
    region: Callable[[], tuple[str, SignedEpochText | None]]
    address: Callable[[], str]
    is_known: Callable[[NodeId], bool]
    lend: Callable[[NodeId, NodeId, str], Awaitable[bytes]]
    utc: Callable[[], datetime]
    admit: Callable[[JoinRequest], None] = lambda _request: None
    renewer: Renewer | None = None


class Door:
    """One door, for one life of the node."""

    def __init__(
        self,
        ground: DoorGround,
        invitations: Invitations,
        certificate: bytes,
        *,
        clock: Clock,
        random_bytes: RandomBytes,
        threads: Executor,
    ) -> None:
        """`certificate`: what the door shows, DER."""
        self._ground = ground
        self._invitations = invitations
        self._certificate = certificate
        self._clock = clock
        self._random_bytes = random_bytes
        self._threads = threads
        self._knocks = Knocks()
        self._conversations = Conversations()
        self._log = get_logger("door")

    async def begin(self, node_id: str, child_nonce: bytes, address: str) -> Opened:
        """Begin a conversation; costs one read of the store.

        Raises:
            DoorBusyError: Too many conversations, from this address or at all.
            InvalidRequestError: The nonce is not one.
        """
        now_ms = self._clock.monotonic_ms()
        self._knocks.count(address, now_ms)
        if len(child_nonce) != NONCE_BYTES or not 0 < len(node_id) <= 16:
            raise InvalidRequestError("node_id or nonce is not one")
        found, salt, cost = None, await self._blocking(self._decoy, node_id), STRETCH
        if node_id in self._ground.hierarchy:
            found = await self._blocking(self._invitations.newest, NodeId(node_id))
        if found is not None:
            salt, cost = found.salt, found.cost
        opened = Opened(
            node_id,
            child_nonce,
            self._random_bytes(NONCE_BYTES),
            salt,
            cost,
            found.invitation_id if found is not None else "",
        )
        self._conversations.begin(opened, now_ms)
        return opened

    async def join(self, asked: JoinAsked, address: str) -> Joined:
        """Judge a proof, and make its child a node of the region.

        The binding of the invitation to the child's keys is durable before the answer is given.

        Raises:
            DoorBusyError: The conversation is not known; or this node cannot sign just now.
            InvalidRequestError: A part is not what it must be. No guess was counted.
            JoinProofError: What arrived is not what the child said. No guess was counted.
            InvitationRefusedError, JoinClockError: As Invitations.check.
            InviteNotChildError: The region has changed: this node is not its parent any more.
            JoinPseudonymError: The county that lends its key does not answer.
        """
        opened = self._conversations.take(
            asked.node_id, asked.parent_nonce, self._clock.monotonic_ms()
        )
        said, keys = self._said(opened, asked)
        if not opened.invitation_id:
            raise InvitationRefusedError(
                "the code is wrong, or nobody is invited under this division code here"
            )
        try:
            invitation, key = await self._blocking(
                self._invitations.check,
                opened.invitation_id,
                lambda tried: holds(asked.proof, child_proof(tried, said)),
                keys,
            )
        except InvitationRefusedError as error:
            self._log.warning(
                "a join was refused", peer=asked.node_id, code=error.code, address=address
            )
            raise
        answer = await self._answer(invitation, asked)
        await self._blocking(self._invitations.bind, invitation.invitation_id, keys)
        self._log.info("a node has joined", peer=invitation.node_id, address=address)
        return Joined(answer, parent_proof(key, said, answer))

    async def renew(self, asked: RenewAsked) -> Renewed:
        """Renew the certificates of a child whose own have ended, or tell it the time.

        Raises:
            DoorBusyError: The conversation is not known.
            RenewalRefusedError, PeerRevokedError: As Renewer.renew.
        """
        opened = self._conversations.take(
            asked.node_id, asked.parent_nonce, self._clock.monotonic_ms()
        )
        renewer = self._ground.renewer
        if renewer is None:
            raise RenewalRefusedError("nothing is renewed at this door")
        said = transcript(asked, opened.child_nonce, self._certificate)
        return await self._blocking(renewer.renew, asked, said)

    def _said(self, opened: Opened, asked: JoinAsked) -> tuple[bytes, JoinKeys]:
        """T as this end saw it, and the digests of the keys asked for."""
        requests = (asked.tls_request, asked.authority_request)
        lengths = [len(each) <= _PEM_MAX for each in requests]
        if not all(lengths) or len(asked.proof) != PROOF_BYTES:
            raise InvalidRequestError("a part of the request is not one")
        if len(asked.possession) > _SIGNATURE_MAX:
            raise InvalidRequestError("a part of the request is not one")
        try:
            tls, authority = map(requested_key, requests)
        except CertificateUnusableError as error:
            raise InvalidRequestError(error.message) from None
        said = Conversation(
            opened.node_id,
            opened.child_nonce,
            opened.parent_nonce,
            opened.salt,
            opened.cost,
            self._certificate,
            *requests,
        ).digest
        if not is_possessed(tls, said, asked.possession):
            raise JoinProofError("what arrived at the door is not what was said by the child")
        return said, JoinKeys(key_digest(tls), key_digest(authority))

    async def _answer(self, invitation: Invitation, asked: JoinAsked) -> bytes:
        child = invitation.node_id
        request = JoinRequest(child, asked.tls_request, asked.authority_request)
        signed = await self._blocking(self._sign, request)
        lender, letter = invitation.pseudonym, b""
        if lender and lender != NEW_PSEUDONYM:
            letter = await self._ground.lend(NodeId(lender), child, signed.tls_chain.decode())
        return await self._blocking(self._written, invitation, signed, letter)

    def _sign(self, request: JoinRequest) -> SignedNode:
        ground = self._ground
        child, here = request.node_id, ground.node_id
        if child not in ground.hierarchy or ground.hierarchy.parent(child) != here:
            raise InviteNotChildError(f"{here} is not the parent of {child} any more")
        authority = load_authority(ground.data)
        if authority_name(authority.certificate).dns_name != ground.hierarchy.dns_name(here):
            raise DoorBusyError(f"{here} waits for a certificate of its own new name")
        ground.admit(request)
        return sign_node(authority, ground.root_pem, request, ground.hierarchy, ground.utc())

    def _written(self, invitation: Invitation, signed: SignedNode, letter: bytes) -> bytes:
        ground, child = self._ground, invitation.node_id
        text, statements = ground.region()
        is_county = ground.hierarchy.entry(child).level is CareLevel.COUNTY
        regional = NodeFolder(ground.data).regional_index_key
        answer = JoinAnswer(
            child,
            ground.node_id,
            self._clock.now_ms(),
            signed.tls_chain.decode(),
            signed.authority_chain.decode(),
            signed.root.decode(),
            text,
            invitation.address or ground.address(),
            ground.is_known(child),
            statements,
            read_secret(regional).decode().strip() if is_county else "",
            NEW_PSEUDONYM if invitation.pseudonym == NEW_PSEUDONYM else "",
            letter,
        )
        return write_answer(answer)

    def _decoy(self, node_id: str) -> bytes:
        """A salt where nobody is invited: always the same one, as a real one would be."""
        key = read_secret(NodeFolder(self._ground.data).tls.private_key)
        said = _DECOY + node_id.encode("utf-8", "surrogatepass")
        return hmac.digest(key, said, hashlib.sha256)[:SALT_BYTES]

    async def _blocking(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
