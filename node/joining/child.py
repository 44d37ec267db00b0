"""The child's side: one command on a new machine, from a code to a whole data folder. Blocks.

Believes nothing before the parent has proven the code, and checks what it then believes for what it
can: that the certificates are of its own keys, under the root it was given, for its own place. May
be killed between any two lines and run again with the same words.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pydantic import ValidationError
from sqlalchemy import inspect, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from hardware_profiles import load_profile
from hierarchy_config import Hierarchy, NodeId, parse_region
from hierarchy_config.directory import split_endpoint
from hierarchy_config.errors import FenheError
from node.clock import Clock, RandomBytes, format_ms
from node.errors import SettingsError
from node.foundations import utc_now
from node.initialise import NewNode, write_settings
from node.joining.answer import NEW_PSEUDONYM, JoinAnswer, read_answer
from node.joining.code import JoinCode
from node.joining.draft import Draft, open_draft
from node.joining.errors import (
    JoinAnswerError,
    JoinClockError,
    JoinProofError,
    JoinStoreError,
)
from node.joining.lending import open_lent_key
from node.joining.model import Begun, JoinAsked, Joined
from node.joining.proof import (
    NONCE_BYTES,
    SALT_BYTES,
    Conversation,
    StretchCost,
    child_proof,
    holds,
    parent_proof,
    prove_possession,
    stretch,
)
from node.recovery.errors import RebuildRefusedError
from node.recovery.rebuild import begin_rebuilt
from node.region.joined import check_signed, keep_signed
from node.security.authority import JoinRequest, SignedNode, install_node
from node.security.caller import CallerKind
from node.security.certificates import (
    PrivateKey,
    authority_name,
    certificate_hash,
    certificates_from_pem,
    private_key_from_pem,
)
from node.security.folders import NodeFolder
from node.security.key_files import create_key, read_secret, write_secret
from node.security.signatures import verify_chain
from node.security.suites import Suite
from node.settings import NodeSettings
from node.storage import EngineLimits, open_engine
from node.transit.keys import NodeVerifier, OwnKey

__all__ = ["DoorCalls", "JoinWish", "JoinedNode", "join"]

Stretcher = Callable[[JoinCode, bytes, StretchCost], bytes]

_SKEW_TOLD_MS: Final = 5 * 60_000


@dataclass(frozen=True, slots=True)
class JoinWish:
    """What the new node is to be. `door`: host:port of the parent's door."""

    data: Path
    code: JoinCode
    door: str
    listen: str
    database: str = "sqlite:///store.db"
    profile: str = ""
    suite: Suite = Suite.INTL


@dataclass(frozen=True, slots=True)
class JoinedNode:
    """What came of it. `rebuilt`: it was linked in a former life and gets back what it had."""

    node_id: NodeId
    name: str
    parent_id: NodeId
    parent_endpoint: str
    root_digest: str
    rebuilt: bool
    warning: str


class DoorCalls(Protocol):
    """An open line to a door. Both calls raise DoorUnreachableError, and what the door says."""

    @property
    def certificate(self) -> bytes:
        """What the door showed, DER: the holder of its key is the only one who hears us."""

    def begin(self, node_id: str, nonce: bytes) -> Begun: ...

    def join(self, asked: JoinAsked) -> Joined: ...


def join(
    wish: JoinWish,
    open_door: Callable[[str], AbstractContextManager[DoorCalls]],
    *,
    clock: Clock,
    random_bytes: RandomBytes = os.urandom,
    stretched: Stretcher = stretch,
) -> JoinedNode:
    """Join: make keys, prove the code, take the certificates, make the data folder.

    `stretched` is for tests that join a hundred times.

    Raises:
        SettingsError, ProfileError: A word of the command is wrong; nothing was made.
        JoinFolderError, JoinStoreError: The folder or the database is not free.
        DoorUnreachableError: Nobody opens; nothing is used up.
        JoinProofError, JoinStretchError: Who answers is not who made the code.
        InvitationRefusedError: The code admits nobody, or not this machine.
        JoinClockError: The certificates do not hold now by this machine's clock.
        JoinAnswerError: The parent's answer cannot make a node.
    """
    _refuse_settings(wish)
    with open_draft(wish.data, wish.code.node_id) as draft:
        if not draft.store_begun:
            _refuse_store(wish.database)
        requests = draft.requests(random_bytes)
        with open_door(wish.door) as calls:
            prover = _Prover(wish.code, requests, draft.tls_key(), random_bytes, stretched)
            raw = prover.exchange(calls)
        answer = read_answer(raw)
        hierarchy = _checked(answer, wish.code.node_id, draft, clock)
        endpoint = _endpoint(answer.parent_address, wish.door)
        _install(draft, wish, answer, hierarchy, endpoint, clock=clock)
        draft.finish()
    entry = hierarchy.entry(wish.code.node_id)
    return JoinedNode(
        entry.node_id,
        entry.name_zh,
        answer.parent_id,
        endpoint,
        certificate_hash(certificates_from_pem(answer.root.encode())[0]),
        answer.known_before,
        _skew(answer.at_ms, clock),
    )


def _refuse_settings(wish: JoinWish) -> None:
    """Find what would be found too late, when the code is used."""
    try:
        split_endpoint(wish.door)
        NodeSettings(node_id=wish.code.node_id, listen=wish.listen, database=wish.database)
        make_url(wish.database)
    except (ValidationError, ValueError, ArgumentError) as error:
        said = str(error).split("\n", maxsplit=1)[0]
        raise SettingsError(
            f"one of --parent, --listen and --database is wrong: {said}",
            hint="Give --parent and --listen as HOST:PORT, --database as an SQLAlchemy URL.",
        ) from None
    if wish.profile:
        load_profile(wish.profile)


@dataclass(frozen=True, slots=True)
class _Prover:
    """Says at a door what this machine has to say, and believes what is proven."""

    code: JoinCode
    requests: JoinRequest
    tls_key: PrivateKey
    random_bytes: RandomBytes
    stretched: Stretcher

    def exchange(self, calls: DoorCalls) -> bytes:
        """The answer, proven to be by someone who knows the code, to what was said here."""
        code, requests = self.code, self.requests
        nonce = self.random_bytes(NONCE_BYTES)
        begun = calls.begin(code.node_id, nonce)
        if len(begun.salt) != SALT_BYTES or len(begun.nonce) != NONCE_BYTES:
            raise JoinProofError("what the door says first is not what a door of ours says")
        # A weaker stretch would let whoever stands in between guess the code from our proof.
        begun.cost.refuse_unsafe()
        key = self.stretched(code, begun.salt, begun.cost)
        said = Conversation(
            code.node_id,
            nonce,
            begun.nonce,
            begun.salt,
            begun.cost,
            calls.certificate,
            requests.tls_request,
            requests.authority_request,
        ).digest
        asked = JoinAsked(
            code.node_id,
            begun.nonce,
            requests.tls_request,
            requests.authority_request,
            child_proof(key, said),
            prove_possession(self.tls_key, said),
        )
        joined = calls.join(asked)
        if not holds(joined.proof, parent_proof(key, said, joined.answer)):
            raise JoinProofError("who answered does not know the code, or the answer was altered")
        return joined.answer


def _checked(answer: JoinAnswer, node_id: NodeId, draft: Draft, clock: Clock) -> Hierarchy:
    """The hierarchy of an answer whose certificates are this node's, of its keys, and hold now."""
    if answer.node_id != node_id:
        raise JoinAnswerError(f"the parent's answer is for {answer.node_id}, not for {node_id}")
    tls_chain, root = answer.tls_chain.encode(), answer.root.encode()
    try:
        hierarchy = parse_region(answer.region_text, file="the parent's region file")
        if node_id not in hierarchy or hierarchy.parent(node_id) != answer.parent_id:
            raise JoinAnswerError(f"the parent's region file has {node_id} under another parent")
        _refuse_clock(tls_chain, answer.at_ms, clock)
        peer = verify_chain(tls_chain, root, hierarchy, utc_now(clock))
        own = certificates_from_pem(answer.authority_chain.encode())[0]
        name = authority_name(own)
        if answer.signed is not None:
            check_signed(answer.signed, hierarchy, root, utc_now(clock))
    except (JoinAnswerError, JoinClockError):
        raise
    except FenheError as error:
        raise JoinAnswerError(f"the parent's answer cannot be used: {error.message}") from None
    authority_key = private_key_from_pem(read_secret(NodeFolder(draft.path).authority_key))
    is_ours = (
        peer.identity.kind is CallerKind.NODE
        and peer.identity.node_id == name.node_id == node_id
        and name.dns_name == hierarchy.dns_name(node_id)
        and peer.public_key == draft.tls_key().public_key()
        and own.public_key() == authority_key.public_key()
    )
    if not is_ours:
        raise JoinAnswerError("the certificates are of another node, or of other keys")
    return hierarchy


def _refuse_clock(tls_chain: bytes, at_ms: int, clock: Clock) -> None:
    leaf = certificates_from_pem(tls_chain)[0]
    if not leaf.not_valid_before_utc <= utc_now(clock) <= leaf.not_valid_after_utc:
        raise JoinClockError(
            f"this machine's clock says {format_ms(clock.now_ms())}, the parent's says "
            f"{format_ms(at_ms)}"
        )


def _skew(at_ms: int, clock: Clock) -> str:
    """A warning if the clocks differ, though not by so much that a certificate is in doubt."""
    now_ms = clock.now_ms()
    if abs(now_ms - at_ms) <= _SKEW_TOLD_MS:
        return ""
    return (
        f"This machine's clock says {format_ms(now_ms)}, the parent's says {format_ms(at_ms)}: set "
        "the one that is wrong."
    )


def _endpoint(said: str, door: str) -> str:
    """Where the parent is dialled: as it said, or at the host where its door was found."""
    host, _, port = said.rpartition(":")
    try:
        split_endpoint(f"host:{port}")
    except ValueError:
        raise JoinAnswerError("the parent's answer holds no address of the parent") from None
    return said if host else f"{door.rpartition(':')[0]}:{port}"


def _install(
    draft: Draft,
    wish: JoinWish,
    answer: JoinAnswer,
    hierarchy: Hierarchy,
    endpoint: str,
    *,
    clock: Clock,
) -> None:
    """Write everything into the draft. What an earlier try left there is replaced."""
    path, folder = draft.path, NodeFolder(draft.path)
    chains = [each.encode() for each in (answer.tls_chain, answer.authority_chain, answer.root)]
    install_node(path, SignedNode(*chains))
    for key in (folder.regional_index_key, folder.pseudonym_key):
        key.unlink(missing_ok=True)
    if answer.regional_index_key:
        write_secret(folder.regional_index_key, answer.regional_index_key.encode() + b"\n")
    if answer.pseudonym == NEW_PSEUDONYM:
        create_key(folder.pseudonym_key, os.urandom)
    elif answer.pseudonym_letter:
        own = OwnKey(draft.tls_key(), answer.tls_chain.encode())
        verifier = NodeVerifier(answer.root.encode, hierarchy, lambda: utc_now(clock))
        lent = open_lent_key(answer.pseudonym_letter, own, answer.node_id, verifier, hierarchy)
        create_key(folder.pseudonym_key, lambda _: lent)
    if answer.signed is not None:
        keep_signed(path, answer.signed)
    write_settings(
        path,
        hierarchy,
        NewNode(
            answer.node_id,
            wish.listen,
            wish.database,
            wish.profile,
            parent_endpoint=endpoint,
            parent_door=wish.door,
            suite=wish.suite,
        ),
    )
    if answer.known_before:
        _begin_again(draft, clock)


def _begin_again(draft: Draft, clock: Clock) -> None:
    """Begin the store of a place whose former machine is lost: neighbours give its rows back."""
    again = draft.store_begun
    draft.note_store()
    try:
        begin_rebuilt(draft.path, clock)
    except RebuildRefusedError:
        if not again:
            raise
        # An earlier try had begun it: in one transaction, so it is whole.


def _refuse_store(database: str) -> None:
    """Refuse a database that cannot be reached or holds anything, before the code is used.

    A relative SQLite path lies in the folder that is to be made, so it is new.
    """
    try:
        url = make_url(database)
        is_file = url.get_backend_name() == "sqlite"
        if is_file and not (url.database and Path(url.database).is_absolute()):
            return
        if is_file and not Path(str(url.database)).exists():
            return
        engine = open_engine(url, EngineLimits(connections=1))
        try:
            tables = inspect(engine).get_table_names()
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).split("\n", maxsplit=1)[0]
        raise JoinStoreError(
            f"the database cannot be used: {reason}",
            hint="Compare --database with the address, user and name of an empty database.",
        ) from None
    if tables:
        raise JoinStoreError(f"the database named with --database holds {len(tables)} tables")
