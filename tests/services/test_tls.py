"""Real handshakes over loopback: who gets through TLS, who is identified, who may link.

Each case names the certificate that the server shows, the one that the client shows, and the name
that the client demands of the server. The server answers with the identity it found.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hierarchy_config.model import CareLevel, NodeId
from node.errors import DeniedError
from node.security.caller import CallerKind
from node.security.certificates import Authority, Validity, subject_name
from node.security.errors import PeerIdentityError
from node.security.folders import CredentialsFolder, TlsFiles
from node.security.identity import identify_peer
from node.security.key_files import write_public, write_secret
from node.security.methods import authorize
from node.security.principal import Principal
from node.security.tls import (
    GrpcLimits,
    Option,
    ServerCertificates,
    channel_options,
    open_channel,
    server_options,
)
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

CONNECT = "/fenhe.replication.v1.LinkService/Connect"
LIMITS = GrpcLimits()
TLS = grpc.StatusCode.UNAVAILABLE
UNKNOWN = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED

Names = Sequence[x509.GeneralName]
Maker = Callable[[Region], Held]


def node(node_id: NodeId, validity: Validity = GOOD) -> Maker:
    """A node's certificate in good order but for its validity."""
    return lambda region: region.node(node_id, validity)


def under(node_id: NodeId, kind: CallerKind) -> Maker:
    """A certificate of someone under a node."""
    principal = Principal("linfen", node_id, kind, "x")
    return lambda region: region.leaf(region.authorities[node_id], principal)


def forged(issuer: NodeId, names: Names, common_name: str | None = None) -> Maker:
    """Any names, signed by a node's authority."""
    return lambda region: made.forge(region.authorities[issuer], names, common_name=common_name)


def with_subject(subject: x509.Name) -> Maker:
    """The township's URI and no DNS name, so that gRPC falls back on the subject."""
    names = [made.uri(HIERARCHY.spiffe_id(TOWNSHIP))]
    return lambda region: made.forge(region.authorities[SIBLING], names, subject=subject)


def client_only(region: Region) -> Held:
    """The township's names on a certificate that may not serve."""
    return made.forge(
        region.authorities[COUNTY],
        [made.uri(HIERARCHY.spiffe_id(TOWNSHIP)), made.dns(HIERARCHY.dns_name(TOWNSHIP))],
        usages=[ExtendedKeyUsageOID.CLIENT_AUTH],
    )


def server_only(region: Region) -> Held:
    """The village's names on a certificate that may not dial."""
    return made.forge(
        region.authorities[TOWNSHIP], names_of(VILLAGE), usages=[ExtendedKeyUsageOID.SERVER_AUTH]
    )


def foreign(region: Region) -> Held:
    """The village of a region with the same names and another root."""
    return made.create(HIERARCHY).node(VILLAGE)


def foreign_with_root(region: Region) -> Held:
    """The same, showing its own root as well."""
    other = made.create(HIERARCHY)
    held = other.node(VILLAGE)
    return Held(held.private_key, (*held.chain, other.root.certificate))


def foreign_township(region: Region) -> Held:
    """A township of the same name under another root."""
    return made.create(HIERARCHY).node(TOWNSHIP)


def self_signed(region: Region) -> Held:
    """The village as its own root."""
    return made.create(HIERARCHY).leaf(made.create(HIERARCHY).root, Principal("linfen", VILLAGE))


def gap_in_chain(region: Region) -> Held:
    """A village that shows its certificate without its issuers."""
    held = region.node(VILLAGE)
    return Held(held.private_key, held.chain[:1])


def deeper_authority(region: Region) -> Held:
    """The city, signed by an authority that a village signed in the city's name."""
    deeper = made.below(region.authorities[VILLAGE], CITY, HIERARCHY, CareLevel.CITY)
    return region.leaf(deeper, Principal("linfen", CITY))


def stale_authority(region: Region) -> Held:
    """A leaf that holds, under an authority that has expired."""
    stale = made.below(region.authorities[COUNTY], TOWNSHIP, HIERARCHY, CareLevel.TOWNSHIP, EXPIRED)
    return made.forge(stale, names_of(VILLAGE))


def leaf_as_authority(region: Region) -> Held:
    """A sibling signed with a village's TLS key instead of an authority's."""
    held = region.node(VILLAGE)
    posing = Authority(held.leaf, held.private_key, held.chain[1:])
    return made.forge(posing, names_of(VILLAGE))


def nothing(region: Region) -> None:
    """No certificate at all."""


def names_of(node_id: NodeId) -> list[x509.GeneralName]:
    """The two names of a node."""
    return [made.uri(HIERARCHY.spiffe_id(node_id)), made.dns(HIERARCHY.dns_name(node_id))]


A_CHILD, ITS_PARENT = node(VILLAGE), node(TOWNSHIP)


@dataclass(frozen=True)
class Case:
    """One handshake. `outcome` is the principal found, or the status of the refusal."""

    title: str
    outcome: str | grpc.StatusCode
    client: Callable[[Region], Held | None] = A_CHILD
    server: Maker = ITS_PARENT
    demands: NodeId = TOWNSHIP
    here: NodeId = TOWNSHIP


VILLAGE_ID = HIERARCHY.spiffe_id(VILLAGE)
VILLAGE_DNS = HIERARCHY.dns_name(VILLAGE)
PARENT_DNS = HIERARCHY.dns_name(TOWNSHIP)
GOOD_SUBJECT = tuple(subject_name("linfen"))
CITY_URI, CITY_DNS = names_of(CITY)

CASES = [
    # Who belongs together.
    Case("a child links to its parent", VILLAGE_ID),
    Case("its sibling too", HIERARCHY.spiffe_id(SIBLING), node(SIBLING)),
    Case(
        "a county links to the city",
        HIERARCHY.spiffe_id(COUNTY),
        node(COUNTY),
        node(CITY),
        CITY,
        CITY,
    ),
    Case(
        "a township links to its county",
        HIERARCHY.spiffe_id(TOWNSHIP),
        node(TOWNSHIP),
        node(COUNTY),
        COUNTY,
        COUNTY,
    ),
    # Certificates of the client that TLS refuses.
    Case("no certificate", TLS, nothing),
    Case("an expired child", TLS, node(VILLAGE, EXPIRED)),
    Case("a child not yet valid", TLS, node(VILLAGE, NOT_YET)),
    Case("an expired authority above a valid leaf", TLS, stale_authority),
    Case("another region's root", TLS, foreign),
    Case("another region's root in the chain", TLS, foreign_with_root),
    Case("a self-made root", TLS, self_signed),
    Case("a chain with a gap", TLS, gap_in_chain),
    Case("a certificate without the client usage", TLS, server_only),
    Case("a village signs the city", TLS, forged(VILLAGE, names_of(CITY))),
    Case("a village signs its sibling", TLS, forged(VILLAGE, names_of(SIBLING))),
    Case("a village signs its parent", TLS, forged(VILLAGE, names_of(TOWNSHIP))),
    Case("a cousin county signs the village", TLS, forged(OTHER_COUNTY, names_of(VILLAGE))),
    Case("a village signs an authority", TLS, deeper_authority),
    Case("a leaf signs a leaf", TLS, leaf_as_authority),
    Case("the city's common name alone", TLS, forged(VILLAGE, [], CITY_DNS.value)),
    Case("the city's common name and URI", TLS, forged(VILLAGE, [CITY_URI], CITY_DNS.value)),
    Case(
        "an own DNS name and the city's common name",
        TLS,
        forged(VILLAGE, [made.dns(VILLAGE_DNS)], CITY_DNS.value),
    ),
    Case(
        "own names and the parent's common name",
        TLS,
        forged(VILLAGE, names_of(VILLAGE), PARENT_DNS),
    ),
    # Certificates that TLS accepts and that identify nobody.
    Case("the city's URI alone", UNKNOWN, forged(VILLAGE, [CITY_URI])),
    Case(
        "the city's URI with an own DNS name",
        UNKNOWN,
        forged(VILLAGE, [CITY_URI, made.dns(VILLAGE_DNS)]),
    ),
    Case(
        "the sibling's URI with an own DNS name",
        UNKNOWN,
        forged(VILLAGE, [names_of(SIBLING)[0], made.dns(VILLAGE_DNS)]),
    ),
    Case("two URIs", UNKNOWN, forged(VILLAGE, [*names_of(VILLAGE), CITY_URI])),
    Case("no URI", UNKNOWN, forged(VILLAGE, [made.dns(VILLAGE_DNS)])),
    Case(
        "a mail address besides",
        UNKNOWN,
        forged(VILLAGE, [*names_of(VILLAGE), made.mail("root@1410")]),
    ),
    Case("an address besides", UNKNOWN, forged(VILLAGE, [*names_of(VILLAGE), made.ip("::1")])),
    Case(
        "a URI of another region",
        UNKNOWN,
        forged(VILLAGE, [made.uri("spiffe://yuncheng/1410"), made.dns(VILLAGE_DNS)]),
    ),
    Case(
        "a node that the hierarchy does not have",
        UNKNOWN,
        forged(
            TOWNSHIP,
            [
                made.uri("spiffe://linfen/141002001299"),
                made.dns("n141002001299." + HIERARCHY.dns_name(TOWNSHIP)),
            ],
        ),
    ),
    # Identified, and not the one who may link here.
    Case("a client of the child", DENIED, under(VILLAGE, CallerKind.CLIENT)),
    Case("a member of staff", DENIED, under(TOWNSHIP, CallerKind.STAFF)),
    Case("an analyst of the city", DENIED, under(CITY, CallerKind.ANALYST)),
    Case("an executor", DENIED, under(TOWNSHIP, CallerKind.EXECUTOR)),
    Case("a grandparent", DENIED, node(COUNTY)),
    Case("the parent itself", DENIED, node(TOWNSHIP)),
    Case("a cousin", DENIED, node(OTHER_COUNTY)),
    Case("a sibling of the server", DENIED, node(SIBLING), node(VILLAGE), VILLAGE, VILLAGE),
    # Servers that the client must not believe.
    Case("a sibling poses as the parent", TLS, server=node(SIBLING)),
    Case("the grandparent poses as the parent", TLS, server=node(COUNTY)),
    Case("the city poses as the parent", TLS, server=node(CITY)),
    Case("an expired parent", TLS, server=node(TOWNSHIP, EXPIRED)),
    Case("a parent not yet valid", TLS, server=node(TOWNSHIP, NOT_YET)),
    Case("a parent of another root", TLS, server=foreign_township),
    Case("a village forges its parent", TLS, server=forged(SIBLING, names_of(TOWNSHIP))),
    Case(
        "a village forges its parent by common name",
        TLS,
        server=forged(SIBLING, names_of(SIBLING), HIERARCHY.dns_name(TOWNSHIP)),
    ),
    Case(
        "a village forges its parent by URI",
        TLS,
        server=forged(
            SIBLING,
            [names_of(TOWNSHIP)[0], made.dns(HIERARCHY.dns_name(SIBLING))],
            HIERARCHY.dns_name(TOWNSHIP),
        ),
    ),
    Case(
        "a village forges its parent by common name and URI",
        TLS,
        server=forged(SIBLING, names_of(TOWNSHIP)[:1], HIERARCHY.dns_name(TOWNSHIP)),
    ),
    Case(
        "a village forges its parent by common name alone",
        TLS,
        server=forged(SIBLING, [], HIERARCHY.dns_name(TOWNSHIP)),
    ),
    Case(
        "a village forges its parent by a mail address and common name",
        TLS,
        server=forged(SIBLING, [made.mail("a@example.org")], PARENT_DNS),
    ),
    Case(
        "a village forges its parent by a second common name",
        TLS,
        server=with_subject(
            x509.Name([*GOOD_SUBJECT, x509.NameAttribute(NameOID.COMMON_NAME, PARENT_DNS)])
        ),
    ),
    Case(
        "a village forges its parent by a common name set beside the good one",
        TLS,
        server=with_subject(
            x509.Name(
                [
                    x509.RelativeDistinguishedName([GOOD_SUBJECT[0]]),
                    x509.RelativeDistinguishedName(
                        [
                            x509.NameAttribute(NameOID.COMMON_NAME, PARENT_DNS),
                            GOOD_SUBJECT[1],
                        ]
                    ),
                ]
            )
        ),
    ),
    Case("a village forges its parent without a subject", TLS, server=with_subject(x509.Name([]))),
    Case("a client of the parent serves", TLS, server=under(TOWNSHIP, CallerKind.CLIENT)),
    Case("a certificate without the server usage", TLS, server=client_only),
]


@pytest.fixture(scope="module")
def region() -> Region:
    """The authorities of a small region."""
    return made.create(HIERARCHY)


async def identify_and_authorize(
    here: NodeId, context: grpc.aio.ServicerContext[bytes, bytes]
) -> bytes:
    """What a node does with a call before any handler: the principal, or a refusal."""
    try:
        peer = identify_peer(context.auth_context(), HIERARCHY)
        authorize(CONNECT, peer, here, HIERARCHY)
    except PeerIdentityError as error:
        await context.abort(UNKNOWN, error.message)
    except DeniedError as error:
        await context.abort(DENIED, error.message)
    return peer.principal.encode()


def files_of(folder: Path, held: Held, region: Region) -> TlsFiles:
    """The three files of a certificate's holder."""
    folder.mkdir(exist_ok=True)
    files = CredentialsFolder(folder).tls
    files.private_key.unlink(missing_ok=True)
    write_secret(files.private_key, held.key_pem)
    write_public(files.chain, held.chain_pem)
    write_public(files.root, region.root_pem)
    return files


@contextlib.asynccontextmanager
async def serving(
    files: TlsFiles,
    here: NodeId,
    options: Sequence[Option] = server_options(LIMITS),
    certificates: ServerCertificates | None = None,
) -> AsyncIterator[str]:
    """A server that says who called; gives its address."""

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return await identify_and_authorize(here, context)

    server = grpc.aio.server(options=options)
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("tests.Who", {"AmI": handler})]
    )
    shown = certificates or ServerCertificates(files)
    port = server.add_secure_port("127.0.0.1:0", shown.credentials())
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def ask(channel: grpc.aio.Channel, request: bytes = b"") -> str | grpc.StatusCode:
    """The principal that the server found, or the status of its refusal."""
    async with channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/tests.Who/AmI")
        try:
            answer: bytes = await call(request, timeout=20)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return answer.decode()


def dial(
    address: str, demands: NodeId, held: Held | None, folder: Path, region: Region
) -> grpc.aio.Channel:
    """A channel of the certificate's holder; without one, of somebody who knows the root."""
    name = HIERARCHY.dns_name(demands)
    if held is None:
        bare = grpc.ssl_channel_credentials(root_certificates=region.root_pem)
        return grpc.aio.secure_channel(address, bare, options=channel_options(name, LIMITS))
    return open_channel(address, name, files_of(folder, held, region), LIMITS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
async def test_handshake(case: Case, region: Region, tmp_path: Path) -> None:
    """The outcome of one handshake is exactly the one in the table."""
    files = files_of(tmp_path / "server", case.server(region), region)
    async with serving(files, case.here) as address:
        held = case.client(region)
        channel = dial(address, case.demands, held, tmp_path / "client", region)
        assert await ask(channel) == case.outcome


async def test_plaintext_gets_nothing(region: Region, tmp_path: Path) -> None:
    """There is no mode without TLS."""
    files = files_of(tmp_path / "server", region.node(TOWNSHIP), region)
    async with serving(files, TOWNSHIP) as address:
        assert await ask(grpc.aio.insecure_channel(address)) == TLS


async def test_a_renewed_certificate_is_served_without_restart(
    region: Region, tmp_path: Path
) -> None:
    """New files are used by the next handshake; an expired one would have been refused."""
    files = files_of(tmp_path / "server", region.node(TOWNSHIP, EXPIRED), region)
    certificates = ServerCertificates(files)
    assert certificates.not_after == EXPIRED.not_after
    async with serving(files, TOWNSHIP, certificates=certificates) as address:
        before = dial(address, TOWNSHIP, region.node(VILLAGE), tmp_path / "a", region)
        assert await ask(before) == TLS
        files_of(tmp_path / "server", region.node(TOWNSHIP), region)
        after = dial(address, TOWNSHIP, region.node(VILLAGE), tmp_path / "b", region)
        assert await ask(after) == VILLAGE_ID
    assert certificates.not_after == GOOD.not_after
    assert certificates.failures == 0


async def test_a_half_written_renewal_changes_nothing(region: Region, tmp_path: Path) -> None:
    """While key and certificate do not fit, the old pair goes on serving and it is counted."""
    files = files_of(tmp_path / "server", region.node(TOWNSHIP), region)
    certificates = ServerCertificates(files)
    async with serving(files, TOWNSHIP, certificates=certificates) as address:
        write_public(files.chain, region.node(TOWNSHIP).chain_pem)
        channel = dial(address, TOWNSHIP, region.node(VILLAGE), tmp_path / "a", region)
        assert await ask(channel) == VILLAGE_ID
    assert certificates.failures > 0


async def test_a_port_is_never_shared(region: Region, tmp_path: Path) -> None:
    """A second server on the port fails instead of taking half of the calls."""
    files = files_of(tmp_path / "server", region.node(TOWNSHIP), region)
    async with serving(files, TOWNSHIP) as address:
        second = grpc.aio.server(options=server_options(LIMITS))
        with pytest.raises(RuntimeError):
            second.add_secure_port(address, ServerCertificates(files).credentials())
        await second.stop(None)


async def test_a_message_over_the_limit_is_refused(region: Region, tmp_path: Path) -> None:
    """The bound on messages holds at the server too, whatever the client allows itself."""
    files = files_of(tmp_path / "server", region.node(TOWNSHIP), region)
    async with serving(files, TOWNSHIP, server_options(GrpcLimits(message_bytes_max=1000))) as to:
        channel = dial(to, TOWNSHIP, region.node(VILLAGE), tmp_path / "a", region)
        assert await ask(channel, bytes(2000)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        channel = dial(to, TOWNSHIP, region.node(VILLAGE), tmp_path / "b", region)
        assert await ask(channel, bytes(900)) == VILLAGE_ID
