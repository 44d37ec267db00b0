"""Real handshakes of peers whose keys are revoked, stolen, minted or renewed: who gets through.

TLS knows nothing of revocation: a stolen certificate shakes hands as before, so each call is judged
by the chain that came with it. Each case names the certificate, what the server has been told, and
what becomes of the call. What TLS itself refuses stays refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from hierarchy_config.model import NodeId
from node.errors import DeniedError
from node.revocation.book import RevokedBook
from node.revocation.entries import Entry, Target, Word, sign_entry
from node.security.caller import CallerKind
from node.security.certificates import Authority, PublicKey, Validity
from node.security.errors import PeerIdentityError, PeerRevokedError
from node.security.former import key_digest
from node.security.identity import identify_peer, peer_chain
from node.security.methods import authorize
from node.security.principal import Principal
from node.security.signatures import Signer
from node.security.tls import ServerCertificates, server_options
from tests.services.test_tls import (
    CONNECT,
    LIMITS,
    TLS,
    UNKNOWN,
    ask,
    dial,
    files_of,
    foreign,
    forged,
    gap_in_chain,
    names_of,
    node,
    nothing,
    self_signed,
    under,
)
from tests.services.test_tls import DENIED as NOT_HERE
from tests.unit.security import region as made
from tests.unit.security.region import (
    CITY,
    COUNTY,
    EXPIRED,
    GOOD,
    HIERARCHY,
    NOT_YET,
    OTHER_COUNTY,
    SIBLING,
    TOWNSHIP,
    VILLAGE,
    Held,
    Region,
)

REVOKED = grpc.StatusCode.ABORTED
"""Told apart from DENIED here; a node answers both with PERMISSION_DENIED and another code."""
AT_MS = 1_700_000_000_000
LATER = Validity(datetime(2026, 2, 1, tzinfo=UTC), GOOD.not_after)
VILLAGE_ID = HIERARCHY.spiffe_id(VILLAGE)
SIBLING_ID = HIERARCHY.spiffe_id(SIBLING)

A_VILLAGE = node(VILLAGE)

Told = Callable[[Region, Held | None], list[Entry]]


def entry(region: Region, by: NodeId, about: NodeId, *keys: Any, **more: Any) -> Entry:
    """What a node says about another; `signed_with` instead of a key of its own made now."""
    held = more.pop("signed_with", None) or region.node(by)
    digests = tuple(key_digest(key.public_key()) for key in keys)
    said: dict[str, Any] = {
        "signer": by,
        "number": 1,
        "target": Target.NODE,
        "node_id": about,
        "keys": digests,
        "principals": (),
        "issued_before_ms": 0,
        "reason": "stolen",
        "by": "an operator",
        "at_ms": AT_MS,
    }
    return sign_entry(Signer(held.private_key, held.chain), Word(**(said | more)))


def leaf_by(by: NodeId, about: NodeId = VILLAGE, **more: Any) -> Told:
    """The key of the certificate that is shown is revoked."""
    return lambda region, held: [entry(region, by, about, _leaf(held), **more)]


def authority_by(by: NodeId, about: NodeId = VILLAGE) -> Told:
    """The key of a node's authority is revoked."""
    return lambda region, _: [entry(region, by, about, region.authorities[about].private_key)]


def time_by(by: NodeId, at: datetime, about: NodeId = VILLAGE) -> Told:
    """What was issued to a node by then is revoked."""
    ms = int(at.timestamp() * 1000)
    return lambda region, _: [entry(region, by, about, issued_before_ms=ms)]


def caller(*principals: str, about: NodeId = TOWNSHIP, by: NodeId = TOWNSHIP) -> Told:
    """Callers are revoked by name."""
    return lambda region, _: [entry(region, by, about, target=Target.CALLER, principals=principals)]


def _leaf(held: Held | None) -> Any:
    assert held is not None
    return held.leaf


def nobody(_region: Region, _held: Held | None) -> list[Entry]:
    """Nothing was said."""
    return []


def by_a_thief(at_ms: int) -> Told:
    """The township's key was revoked, and with it the village's is; before or after."""

    def told(region: Region, held: Held | None) -> list[Entry]:
        stolen = region.node(TOWNSHIP)
        return [
            entry(region, COUNTY, TOWNSHIP, stolen.leaf),
            entry(region, TOWNSHIP, VILLAGE, _leaf(held), signed_with=stolen, at_ms=at_ms),
        ]

    return told


def minted(region: Region, validity: Validity = GOOD) -> Held:
    """A village that its own authority certifies, with a key that nobody has seen."""
    return region.leaf(region.authorities[VILLAGE], Principal("linfen", VILLAGE), validity)


def minted_in_disguise(region: Region) -> Held:
    """The same; the chain shows the township's authority first."""
    held = minted(region)
    township = region.authorities[TOWNSHIP].certificate
    return Held(held.private_key, (held.leaf, township, *held.chain[1:]))


def with_stray_authority(region: Region) -> Held:
    """A village in good order, whose chain also shows its authority."""
    held = region.node(VILLAGE)
    return Held(held.private_key, (*held.chain, region.authorities[VILLAGE].certificate))


def as_operator_of(node_id: NodeId) -> Callable[[Region], Held]:
    """Somebody under a node's authority."""
    return under(node_id, CallerKind.OPERATOR)


def fake_village(region: Region) -> Held:
    """A village that a stolen county names, through a township's authority that it made up."""
    fake: Authority = made.below(
        region.authorities[COUNTY], TOWNSHIP, HIERARCHY, HIERARCHY.entry(TOWNSHIP).level
    )
    return region.leaf(fake, Principal("linfen", VILLAGE))


@dataclass(frozen=True)
class Stolen:
    """One handshake, and what the server knows by then."""

    title: str
    outcome: str | grpc.StatusCode
    told: Told = nobody
    client: Callable[[Region], Held | None] = A_VILLAGE
    here: NodeId = TOWNSHIP


CLIENT = "spiffe://linfen/141002001/client/x"
STAFF = "spiffe://linfen/141002001/staff/x"
EARLY, LATE = datetime(2019, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
A_CLIENT = under(TOWNSHIP, CallerKind.CLIENT)

CASES = [
    # The stolen key, by whose word it is revoked.
    Stolen("a child in good order", VILLAGE_ID),
    Stolen("its key is revoked by its parent", REVOKED, leaf_by(TOWNSHIP)),
    Stolen("by its county", REVOKED, leaf_by(COUNTY)),
    Stolen("by the city", REVOKED, leaf_by(CITY)),
    Stolen("the sibling is revoked", VILLAGE_ID, authority_by(TOWNSHIP, SIBLING)),
    Stolen("the sibling is revoked with this key", VILLAGE_ID, leaf_by(TOWNSHIP, SIBLING)),
    Stolen("the sibling goes on", SIBLING_ID, authority_by(TOWNSHIP), node(SIBLING)),
    Stolen(
        "a new machine has another key",
        VILLAGE_ID,
        lambda region, _: [entry(region, CITY, VILLAGE, region.node(VILLAGE).leaf)],
    ),
    Stolen(
        "a renewed certificate of the revoked key", REVOKED, leaf_by(CITY), node(VILLAGE, LATER)
    ),
    # What the stolen authority can make.
    Stolen("a certificate of its own making", UNKNOWN, client=minted),
    Stolen("of its own making, revoked", REVOKED, authority_by(TOWNSHIP), minted),
    Stolen(
        "of its own making, dated later",
        REVOKED,
        authority_by(CITY),
        lambda region: minted(region, LATER),
    ),
    Stolen("of its own making, behind another", REVOKED, authority_by(CITY), minted_in_disguise),
    Stolen(
        "an operator of the stolen node", REVOKED, authority_by(COUNTY), as_operator_of(VILLAGE)
    ),
    Stolen("an operator of a node in order", NOT_HERE, client=as_operator_of(VILLAGE)),
    Stolen(
        "a client of the stolen node",
        REVOKED,
        authority_by(CITY),
        under(VILLAGE, CallerKind.CLIENT),
    ),
    Stolen("its authority alone, the key in order", VILLAGE_ID, authority_by(CITY)),
    Stolen(
        "its own authority, revoked, astray in the chain",
        UNKNOWN,
        authority_by(CITY),
        with_stray_authority,
    ),
    Stolen(
        "its parent by its authority", TLS, authority_by(CITY), forged(VILLAGE, names_of(TOWNSHIP))
    ),
    Stolen(
        "the city's URI by its authority",
        REVOKED,
        authority_by(CITY),
        forged(VILLAGE, [names_of(CITY)[0], made.dns(HIERARCHY.dns_name(VILLAGE))]),
    ),
    Stolen(
        "two URIs by its authority",
        REVOKED,
        authority_by(CITY),
        forged(VILLAGE, [*names_of(VILLAGE), made.uri(SIBLING_ID)]),
    ),
    Stolen(
        "two URIs, nothing revoked",
        UNKNOWN,
        client=forged(VILLAGE, [*names_of(VILLAGE), made.uri(SIBLING_ID)]),
    ),
    # Nobody knows its keys: by the time of issue.
    Stolen("issued before it was revoked", REVOKED, time_by(CITY, LATE)),
    Stolen("issued after", VILLAGE_ID, time_by(CITY, LATE), node(VILLAGE, LATER)),
    Stolen("issued long after", VILLAGE_ID, time_by(CITY, EARLY)),
    Stolen(
        "of its own making, dated after",
        REVOKED,
        time_by(CITY, LATE),
        lambda region: minted(region, LATER),
    ),
    Stolen("the sibling by time", VILLAGE_ID, time_by(CITY, LATE, SIBLING)),
    # Those above are revoked: what this node has certified itself goes on.
    Stolen("this node's own parent is revoked", VILLAGE_ID, authority_by(CITY, COUNTY)),
    Stolen("this node itself is revoked", VILLAGE_ID, authority_by(CITY, TOWNSHIP)),
    Stolen("a made-up village of a stolen county", VILLAGE_ID, client=fake_village),
    Stolen(
        "a made-up village, the county revoked", REVOKED, authority_by(CITY, COUNTY), fake_village
    ),
    Stolen("the county at the city", REVOKED, leaf_by(CITY, COUNTY), node(COUNTY), CITY),
    Stolen(
        "a county in order at the city",
        HIERARCHY.spiffe_id(COUNTY),
        authority_by(CITY, OTHER_COUNTY),
        node(COUNTY),
        CITY,
    ),
    Stolen(
        "what a stolen county has certified, at the city",
        REVOKED,
        authority_by(CITY, COUNTY),
        node(TOWNSHIP),
        CITY,
    ),
    # A signer that is revoked itself.
    Stolen("revoked by a thief", VILLAGE_ID, by_a_thief(AT_MS + 1)),
    Stolen("revoked before its signer was stolen", REVOKED, by_a_thief(AT_MS)),
    # Callers.
    Stolen("a client", NOT_HERE, client=A_CLIENT),
    Stolen("a client by name", REVOKED, caller(CLIENT), A_CLIENT),
    Stolen("a client by name, by the county's word", REVOKED, caller(CLIENT, by=COUNTY), A_CLIENT),
    Stolen("another kind of the same name", NOT_HERE, caller(STAFF), A_CLIENT),
    Stolen("both kinds", REVOKED, caller(STAFF, CLIENT), A_CLIENT),
    Stolen("a client by key", REVOKED, leaf_by(TOWNSHIP, TOWNSHIP, target=Target.CALLER), A_CLIENT),
    Stolen("a client's key as a node's", NOT_HERE, leaf_by(COUNTY, TOWNSHIP), A_CLIENT),
    Stolen(
        "a node's key as a caller's", VILLAGE_ID, leaf_by(VILLAGE, VILLAGE, target=Target.CALLER)
    ),
    Stolen(
        "a name at another node",
        NOT_HERE,
        caller("spiffe://linfen/141002001201/client/x", about=VILLAGE),
        A_CLIENT,
    ),
    # What TLS refuses, revoked or not.
    Stolen("expired and revoked", TLS, leaf_by(CITY), node(VILLAGE, EXPIRED)),
    Stolen("not yet valid and revoked", TLS, leaf_by(CITY), node(VILLAGE, NOT_YET)),
    Stolen("another root's", TLS, leaf_by(CITY), foreign),
    Stolen("a self-made root's", TLS, leaf_by(CITY), self_signed),
    Stolen("a chain with a gap", TLS, leaf_by(CITY), gap_in_chain),
    Stolen("no certificate", TLS, authority_by(CITY), nothing),
]


@pytest.fixture(scope="module")
def region() -> Region:
    """The authorities of a small region."""
    return made.create(HIERARCHY)


@contextlib.asynccontextmanager
async def guarded(
    folder: Path, region: Region, here: NodeId, entries: Sequence[Entry]
) -> AsyncIterator[str]:
    """A server that judges as a node does; gives its address."""
    book = RevokedBook(HIERARCHY, entries)
    own = region.authorities[here].private_key.public_key()
    assert isinstance(own, PublicKey)
    book.trust(own)

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            book.refuse(peer_chain(context.auth_context()))
            peer = identify_peer(context.auth_context(), HIERARCHY)
            authorize(CONNECT, peer, here, HIERARCHY)
        except PeerRevokedError as error:
            await context.abort(REVOKED, error.message)
        except PeerIdentityError as error:
            await context.abort(UNKNOWN, error.message)
        except DeniedError as error:
            await context.abort(NOT_HERE, error.message)
        return peer.principal.encode()

    server = grpc.aio.server(options=server_options(LIMITS))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("tests.Who", {"AmI": handler})]
    )
    certificates = ServerCertificates(files_of(folder, region.node(here), region))
    port = server.add_secure_port("127.0.0.1:0", certificates.credentials())
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
async def test_handshake_of_the_revoked(case: Stolen, region: Region, tmp_path: Path) -> None:
    """The outcome of one call is exactly the one in the table."""
    held = case.client(region)
    async with guarded(tmp_path / "server", region, case.here, case.told(region, held)) as address:
        channel = dial(address, case.here, held, tmp_path / "client", region)
        assert await ask(channel) == case.outcome
