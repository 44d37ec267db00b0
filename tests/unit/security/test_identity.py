"""Peer identity: exactly one URI, its DNS twin, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cryptography import x509

from hierarchy_config.model import CareLevel, NodeId
from node.security.caller import CallerKind, caller_for, local_operator
from node.security.certificates import (
    Authority,
    AuthorityName,
    certificate_hash,
    certificates_to_pem,
    new_private_key,
    sign_authority,
    sign_leaf,
)
from node.security.errors import PeerIdentityError
from node.security.identity import KnownPeers, PeerIdentity, identify_peer
from node.security.principal import Principal, parse_principal
from node.security.signatures import verify_chain
from tests.unit.security import region as made
from tests.unit.security.region import CITY, COUNTY, HIERARCHY, SIBLING, VILLAGE, Held, Region

VILLAGE_DNS = HIERARCHY.dns_name(VILLAGE)
VILLAGE_URI = "spiffe://linfen/141002001201"


@pytest.fixture(scope="module")
def region() -> Region:
    """The authorities of a small region."""
    return made.create(HIERARCHY)


def context_of(held: Held, uris: Sequence[str] | None = None) -> dict[str, list[bytes]]:
    """What gRPC's auth_context gives for a certificate."""
    if uris is None:
        names = held.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return {
        "transport_security_type": [b"ssl"],
        "x509_common_name": [b"whatever"],
        "x509_pem_cert": [certificates_to_pem((held.leaf,))],
        "peer_spiffe_id": [uri.encode() for uri in uris],
    }


def identify(context: dict[str, list[bytes]]) -> PeerIdentity:
    """Identify in the small region."""
    return identify_peer(context, HIERARCHY)


def test_identifies_every_node_of_the_region(region: Region) -> None:
    """A node's certificate names its id, its hash and its end."""
    for node_id in HIERARCHY.nodes:
        held = region.node(node_id)
        peer = identify(context_of(held))
        assert (peer.kind, peer.node_id, peer.name) == (CallerKind.NODE, node_id, "")
        assert peer.principal == HIERARCHY.spiffe_id(node_id)
        assert peer.certificate_hash == certificate_hash(held.leaf)
        assert peer.not_after == made.GOOD.not_after


@pytest.mark.parametrize("kind", [kind for kind in CallerKind if kind is not CallerKind.NODE])
def test_identifies_those_under_a_node(region: Region, kind: CallerKind) -> None:
    """A person's or program's certificate names its kind, its node and itself."""
    principal = Principal("linfen", VILLAGE, kind, "his-1")
    peer = identify(context_of(region.leaf(region.authorities[VILLAGE], principal)))
    assert (peer.kind, peer.node_id, peer.name) == (kind, VILLAGE, "his-1")
    assert peer.principal == f"spiffe://linfen/{VILLAGE}/{kind}/his-1"


ODD_NAMES = {
    "no names": [],
    "no DNS name": [made.uri(VILLAGE_URI)],
    "no URI": [made.dns(VILLAGE_DNS)],
    "two URIs": [
        made.uri(VILLAGE_URI),
        made.uri("spiffe://linfen/1410"),
        made.dns(VILLAGE_DNS),
    ],
    "two DNS names": [
        made.uri(VILLAGE_URI),
        made.dns(VILLAGE_DNS),
        made.dns(HIERARCHY.dns_name(CITY)),
    ],
    "the same URI twice": [
        made.uri(VILLAGE_URI),
        made.uri(VILLAGE_URI),
        made.dns(VILLAGE_DNS),
    ],
    "a mail address besides": [
        made.uri(VILLAGE_URI),
        made.dns(VILLAGE_DNS),
        made.mail("a@example.org"),
    ],
    "an address besides": [made.uri(VILLAGE_URI), made.dns(VILLAGE_DNS), made.ip("127.0.0.1")],
    "another node's DNS name": [made.uri(VILLAGE_URI), made.dns(HIERARCHY.dns_name(SIBLING))],
    "the city's URI": [made.uri("spiffe://linfen/1410"), made.dns(VILLAGE_DNS)],
    "a wildcard": [made.uri(VILLAGE_URI), made.dns("*." + VILLAGE_DNS.split(".", 1)[1])],
    "DNS in capitals": [made.uri(VILLAGE_URI), made.dns(VILLAGE_DNS.upper())],
    "DNS with a final dot": [made.uri(VILLAGE_URI), made.dns(VILLAGE_DNS + ".")],
    "another region": [made.uri("spiffe://yuncheng/141002001201"), made.dns(VILLAGE_DNS)],
    "another scheme": [made.uri("https://linfen/141002001201"), made.dns(VILLAGE_DNS)],
    "a port": [made.uri("spiffe://linfen:1/141002001201"), made.dns(VILLAGE_DNS)],
    "a user": [made.uri("spiffe://x@linfen/141002001201"), made.dns(VILLAGE_DNS)],
    "a query": [made.uri(VILLAGE_URI + "?a=b"), made.dns(VILLAGE_DNS)],
    "a final slash": [made.uri(VILLAGE_URI + "/"), made.dns(VILLAGE_DNS)],
    "no node": [made.uri("spiffe://linfen/"), made.dns(VILLAGE_DNS)],
    "a node outside": [
        made.uri("spiffe://linfen/141099"),
        made.dns("n141099.n1410.linfen.fenhe"),
    ],
    "an unknown kind": [
        made.uri(VILLAGE_URI + "/root/x"),
        made.dns("root-x." + VILLAGE_DNS),
    ],
    "a kind without a name": [made.uri(VILLAGE_URI + "/client"), made.dns(VILLAGE_DNS)],
    "a node with a name": [made.uri(VILLAGE_URI + "/node/x"), made.dns("node-x." + VILLAGE_DNS)],
    "a client's URI with a node's DNS name": [
        made.uri(VILLAGE_URI + "/client/x"),
        made.dns(VILLAGE_DNS),
    ],
    "a node's URI with a client's DNS name": [
        made.uri(VILLAGE_URI),
        made.dns("client-x." + VILLAGE_DNS),
    ],
    "kind and name split elsewhere": [
        made.uri(VILLAGE_URI + "/client/staff-x"),
        made.dns("staff-x." + VILLAGE_DNS),
    ],
    "a name that goes on": [
        made.uri(VILLAGE_URI + "/client/x/../../1410"),
        made.dns("client-x." + VILLAGE_DNS),
    ],
    "a name of hyphens": [
        made.uri(VILLAGE_URI + "/client/-x-"),
        made.dns("client--x-." + VILLAGE_DNS),
    ],
    "a name in capitals": [
        made.uri(VILLAGE_URI + "/client/X"),
        made.dns("client-X." + VILLAGE_DNS),
    ],
}


@pytest.mark.parametrize("names", ODD_NAMES.values(), ids=ODD_NAMES.keys())
def test_refuses_a_certificate_with_other_names(
    region: Region, names: list[x509.GeneralName]
) -> None:
    """Whatever gRPC says of its URI, a certificate with odd names identifies nobody."""
    held = made.forge(region.authorities[VILLAGE], names, common_name=VILLAGE_DNS)
    for uris in ([VILLAGE_URI], _uris(names)):
        with pytest.raises(PeerIdentityError) as raised:
            identify(context_of(held, uris))
        assert raised.value.code == "PEER_IDENTITY"


def _uris(names: list[x509.GeneralName]) -> list[str]:
    return [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]


@pytest.mark.parametrize(
    "change",
    [
        {"peer_spiffe_id": []},
        {"peer_spiffe_id": [VILLAGE_URI.encode(), b"spiffe://linfen/1410"]},
        {"peer_spiffe_id": [b"spiffe://linfen/1410"]},
        {"x509_pem_cert": []},
        {"x509_pem_cert": [b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]},
        {"x509_pem_cert": [b"\xff"]},
    ],
)
def test_refuses_a_connection_that_says_otherwise(
    region: Region, change: dict[str, list[bytes]]
) -> None:
    """What gRPC reports and what the certificate says must be the same one thing."""
    with pytest.raises(PeerIdentityError):
        identify(context_of(region.node(VILLAGE)) | change)


def test_refuses_a_connection_without_tls() -> None:
    """An empty context, as of a plaintext server, identifies nobody."""
    with pytest.raises(PeerIdentityError):
        identify({})


def test_ignores_common_names_and_other_properties(region: Region) -> None:
    """Lists of identities mix common names in; none of that is looked at."""
    context = context_of(region.node(VILLAGE))
    context["x509_common_name"] = [HIERARCHY.dns_name(CITY).encode()]
    context["x509_subject_alternative_name"] = [b"spiffe://linfen/1410"]
    assert identify(context).node_id == VILLAGE


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "a" * 49, "李", "a b", "a\n"])
def test_refuses_names_that_are_not_one_label(name: str) -> None:
    """A name becomes part of a DNS label, so it is written like one."""
    with pytest.raises(PeerIdentityError):
        Principal("linfen", CITY, CallerKind.CLIENT, name)


def test_reads_back_every_principal_it_writes() -> None:
    """Writing and reading a principal is one to one."""
    for kind in CallerKind:
        name = "" if kind is CallerKind.NODE else "a" * 48
        principal = Principal("linfen", VILLAGE, kind, name)
        assert parse_principal(principal.spiffe_id) == principal
        assert max(map(len, principal.dns_name(VILLAGE_DNS).split("."))) <= 63


def test_scopes_a_caller_to_the_subtree_of_its_node() -> None:
    """A county's client may see what is homed below the county, and nothing beside it."""
    caller = caller_for(CallerKind.CLIENT, "spiffe://…", COUNTY, HIERARCHY, "care")
    assert caller.scope == HIERARCHY.subtree(COUNTY)
    assert NodeId("141024") not in caller.scope


def test_the_local_operator_acts_for_his_node() -> None:
    """Local work is done as an operator of the node, and the audit sees that."""
    caller = local_operator(VILLAGE, HIERARCHY)
    assert caller.kind is CallerKind.OPERATOR
    assert caller.principal == f"spiffe://linfen/{VILLAGE}/operator/local"
    assert caller.scope == frozenset({VILLAGE})


class Counting:
    """Accepts a former name, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def accepts(self, certificate: x509.Certificate, principal: Principal) -> bool:
        self.asked += 1
        return True


def test_the_same_certificate_is_the_same_peer(region: Region) -> None:
    """Asked again, the answer is what was read; another certificate is another's."""
    known = KnownPeers(HIERARCHY)
    mine, other = context_of(region.node(VILLAGE)), context_of(region.node(SIBLING))
    assert known.identify(mine) is known.identify(dict(mine))
    assert known.identify(mine) == identify(mine)
    assert known.identify(other).node_id == SIBLING


def test_what_is_refused_once_is_refused_again(region: Region) -> None:
    """Another's URI beside a certificate that is known opens nothing."""
    known = KnownPeers(HIERARCHY)
    held = region.node(VILLAGE)
    known.identify(context_of(held))
    for uris in (["spiffe://linfen/1410"], [VILLAGE_URI, VILLAGE_URI], []):
        for _ in range(2):
            with pytest.raises(PeerIdentityError):
                known.identify(context_of(held, uris))


def test_a_former_name_is_judged_at_every_call(region: Region) -> None:
    """It may cease to be taken while the connection lasts."""
    former = Counting()
    known = KnownPeers(HIERARCHY, former)
    key, issuer = new_private_key(), region.authorities[VILLAGE]
    principal = Principal("linfen", VILLAGE, CallerKind.CLIENT, "x")
    former_dns = HIERARCHY.dns_name(SIBLING)
    leaf = sign_leaf(issuer, principal, former_dns, key.public_key(), made.GOOD)
    held = Held(key, (leaf, *issuer.chain))
    for count in (1, 2):
        assert known.identify(context_of(held)).node_id == VILLAGE
        assert former.asked == count


@pytest.mark.parametrize("called", [CITY, VILLAGE, "anybody"])
def test_a_node_does_not_certify_itself_through_an_authority_below_it(
    region: Region, called: str
) -> None:
    """Its authority may sign others, under its own DNS name and with any number for a name."""
    issuer, key = region.authorities[COUNTY], new_private_key()
    name = AuthorityName("linfen", NodeId(called), HIERARCHY.dns_name(COUNTY))
    below = sign_authority(issuer, name, CareLevel.TOWNSHIP, key.public_key(), made.GOOD)
    held = region.leaf(Authority(below, key, issuer.chain), Principal("linfen", COUNTY))
    with pytest.raises(PeerIdentityError, match="not by itself"):
        verify_chain(held.chain_pem, region.root_pem, HIERARCHY, made.NOW)
    shown = {"x509_pem_cert_chain": [held.chain_pem]}
    with pytest.raises(PeerIdentityError, match="not by itself"):
        identify(context_of(held) | shown)
    honest = region.node(COUNTY)
    verify_chain(honest.chain_pem, region.root_pem, HIERARCHY, made.NOW)
    identify(context_of(honest) | {"x509_pem_cert_chain": [honest.chain_pem]})
