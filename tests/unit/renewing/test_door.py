"""Both ends of `Renew`: who is renewed, whose clock is wrong, and who is nobody here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hierarchy_config import NodeId
from node.joining.model import Begun
from node.joining.proof import STRETCH
from node.renewing.child import Asker
from node.renewing.errors import (
    ClockWrongError,
    RenewalAnswerError,
    RenewalRefusedError,
    RenewalTooLateError,
)
from node.renewing.parent import RenewalGround, Renewer
from node.renewing.proof import (
    RenewAnswer,
    RenewAsked,
    Renewed,
    child_words,
    parent_words,
    transcript,
    write_renewal,
)
from node.revocation.book import RevokedBook
from node.revocation.entries import Entry, Target, Word, sign_entry
from node.security.authority import JoinRequest, create_region, install_node, load_authority
from node.security.authority import sign_node as sign
from node.security.caller import CallerKind
from node.security.certificates import (
    PrivateKey,
    certificate_request,
    certificates_from_pem,
    new_private_key,
    private_key_from_pem,
)
from node.security.credentials import issue_credentials, load_node_credentials
from node.security.errors import PeerRevokedError
from node.security.folders import CredentialsFolder, NodeFolder
from node.security.former import key_digest
from node.security.key_files import read_secret
from node.security.signatures import Signer
from tests.contracts.joining.place import DAY_MS, HIERARCHY, START_MS, HandClock
from tests.unit.security.region import CITY, COUNTY, SIBLING, TOWNSHIP, VILLAGE

CERTIFICATE = b"the certificate of the door"
AWAY_MS = 400 * DAY_MS
SINCE_MS = 90 * DAY_MS
NONCE = b"n" * 32


class Door:
    """A door in the same process. `change`: what somebody does to the question on its way."""

    def __init__(self, place: Place, change: Callable[[RenewAsked], RenewAsked]) -> None:
        self.certificate = CERTIFICATE
        self._place = place
        self._change = change
        self._child_nonce = b""

    def begin(self, node_id: str, nonce: bytes) -> Begun:
        self._child_nonce = nonce
        return Begun(b"s" * 16, STRETCH, NONCE)

    def renew(self, asked: RenewAsked) -> Renewed:
        asked = self._change(asked)
        said = transcript(asked, self._child_nonce, CERTIFICATE)
        return self._place.answer(self._place.renewer.renew(asked, said), said)


class Place:
    """A township and its village, certified at one moment; both clocks are set by hand."""

    def __init__(self, root: Path) -> None:
        self.folders = create_region(root, HIERARCHY, at(START_MS))
        self.parent_clock, self.clock = HandClock(), HandClock()
        self.book = RevokedBook(HIERARCHY)
        self.admitted: list[JoinRequest] = []
        self.answer: Callable[[Renewed, bytes], Renewed] = lambda renewed, _: renewed
        self.grace_days = 365
        self._open()

    def _open(self) -> None:
        # The township has been renewed in time, since its own parent was there.
        self.parent_credentials = load_node_credentials(
            self.folders[TOWNSHIP], TOWNSHIP, HIERARCHY, at(self.parent_clock.now_ms())
        )
        self.renewer = Renewer(
            RenewalGround(
                self.folders[TOWNSHIP],
                TOWNSHIP,
                HIERARCHY,
                self.parent_credentials,
                self.grace_days,
                self.book,
                None,
                self.admitted.append,
                self.parent_clock,
            )
        )

    def away(self, ms: int = AWAY_MS) -> None:
        """Time passes; the township is certified anew meanwhile."""
        self.parent_clock.ms += ms
        self.clock.ms += ms
        folder = NodeFolder(self.folders[TOWNSHIP])
        keys = [
            certificate_request(private_key_from_pem(read_secret(path)))
            for path in (folder.tls.private_key, folder.authority_key)
        ]
        above = load_authority(self.folders[COUNTY])
        request = JoinRequest(TOWNSHIP, *keys)
        now = at(self.parent_clock.now_ms())
        install_node(
            self.folders[TOWNSHIP],
            sign(above, folder.tls.root.read_bytes(), request, HIERARCHY, now),
        )
        self._open()

    def ask(
        self,
        change: Callable[[RenewAsked], RenewAsked] = lambda asked: asked,
        node: NodeId = VILLAGE,
    ) -> bool:
        """Ask as the village does."""

        def opened(_address: str) -> AbstractContextManager[Door]:
            return _line(Door(self, change))

        asker = Asker(self.folders[node], node, TOWNSHIP, HIERARCHY, self.clock, os.urandom, opened)
        return asker.ask("township:4511")

    def ends(self) -> datetime:
        """When the village's certificate ends."""
        chain = NodeFolder(self.folders[VILLAGE]).tls.chain.read_bytes()
        return certificates_from_pem(chain)[0].not_valid_after_utc

    def key(self, node: NodeId = VILLAGE) -> PrivateKey:
        """A node's own key."""
        return private_key_from_pem(read_secret(NodeFolder(self.folders[node]).tls.private_key))

    def signer(self, node: NodeId) -> Signer:
        """A node's own signature."""
        chain = NodeFolder(self.folders[node]).tls.chain.read_bytes()
        return Signer(self.key(node), certificates_from_pem(chain))

    def revoke(self, *keys: Any) -> Entry:
        """The city revokes keys of the village."""
        digests = tuple(key_digest(key.public_key()) for key in keys)
        word = Word(CITY, 1, Target.NODE, VILLAGE, digests, (), 0, "stolen", "op", START_MS)
        entry = sign_entry(self.signer(CITY), word)
        self.book.add([entry])
        return entry


def at(ms: int) -> datetime:
    """A moment."""
    return datetime.fromtimestamp(ms / 1000, UTC)


@contextmanager
def _line(door: Door) -> Iterator[Door]:
    yield door


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Nobody is away yet."""
    return Place(tmp_path)


def test_a_village_that_was_away_is_renewed(place: Place) -> None:
    """For a year from then on, with the keys it has, and its authority too."""
    key, before = place.key().public_key(), place.ends()
    place.away()
    assert place.ask()
    assert place.ends() - before > timedelta(days=390)
    held = load_node_credentials(place.folders[VILLAGE], VILLAGE, HIERARCHY, at(place.clock.ms))
    assert held.limited is None
    assert held.signer.public_key == key
    assert [each.node_id for each in place.admitted] == [VILLAGE]
    assert not place.ask()


def test_nobody_is_renewed_before_the_end(place: Place) -> None:
    """A chain that holds by both clocks stays; nothing is signed."""
    assert not place.ask()
    assert place.admitted == []


@pytest.mark.parametrize(("days", "comes_back"), [(366, True), (729, True), (731, False)])
def test_the_grace_has_an_end(place: Place, days: int, comes_back: bool) -> None:
    """A year after the end of a certificate of a year; then somebody has to look at the machine."""
    place.away(days * DAY_MS)
    if comes_back:
        assert place.ask()
        return
    with pytest.raises(RenewalTooLateError) as raised:
        place.ask()
    assert "365" in raised.value.message


@dataclass(frozen=True)
class Clocks:
    """How far two clocks are off, in days, after so many days away."""

    title: str
    child: int
    parent: int
    away: int = 100


CLOCKS = [
    Clocks("the child's battery is empty", -3_000, 0),
    Clocks("the child is years ahead", 3_000, 0),
    Clocks("the child is years ahead, and was away", 3_000, 0, 400),
    Clocks("the child is years behind, and was away", -3_000, 0, 400),
    Clocks("the parent is behind", 0, -50, 400),
]


@pytest.mark.parametrize("clocks", CLOCKS, ids=lambda each: each.title)
def test_a_wrong_clock_is_named_with_both_times(place: Place, clocks: Clocks) -> None:
    """Nothing is installed by it; when it is set, the same question is answered."""
    place.away(clocks.away * DAY_MS - SINCE_MS)
    place.clock.ms += SINCE_MS
    place.parent_clock.ms += SINCE_MS
    before = place.ends()
    place.clock.ms += clocks.child * DAY_MS
    place.parent_clock.ms += clocks.parent * DAY_MS
    with pytest.raises(ClockWrongError) as raised:
        place.ask()
    for clock in (place.clock, place.parent_clock):
        assert f"{at(clock.ms):%Y-%m-%d}" in raised.value.message
    assert place.ends() == before
    place.clock.ms -= clocks.child * DAY_MS
    place.parent_clock.ms -= clocks.parent * DAY_MS
    assert place.ask() is (clocks.away > 365)


def other_key(asked: RenewAsked) -> RenewAsked:
    """For a key that nobody has certified."""
    return replace(asked, tls_request=certificate_request(new_private_key()))


def other_authority(asked: RenewAsked) -> RenewAsked:
    """For an authority that nobody has certified."""
    return replace(asked, authority_request=certificate_request(new_private_key()))


def chain_of(place: Place, node: NodeId) -> bytes:
    """A node's chain, PEM."""
    return NodeFolder(place.folders[node]).tls.chain.read_bytes()


def authority_of(place: Place, node: NodeId) -> bytes:
    """The chain of a node's authority, PEM."""
    return NodeFolder(place.folders[node]).authority_chain.read_bytes()


def staff_chain(place: Place) -> tuple[PrivateKey, bytes]:
    """A member of the township's staff."""
    out = place.folders[TOWNSHIP] / "staff"
    issue_credentials(
        place.folders[TOWNSHIP],
        CallerKind.STAFF,
        "x",
        out,
        address="a:1",
        server_name="x",
        now=at(START_MS),
        lifetime=timedelta(days=10),
    )
    files = CredentialsFolder(out).tls
    return private_key_from_pem(read_secret(files.private_key)), files.chain.read_bytes()


Attack = Callable[[Place, RenewAsked], RenewAsked]

ON_THE_WAY: dict[str, Attack] = {
    "another key in the request": lambda _, a: other_key(a),
    "another authority in the request": lambda _, a: other_authority(a),
    "the chain of a sibling": lambda p, a: replace(a, tls_chain=chain_of(p, SIBLING)),
    "the authority of a sibling": lambda p, a: replace(a, authority_chain=authority_of(p, SIBLING)),
    "the name of a sibling": lambda _, a: replace(a, node_id=SIBLING),
    "no signature": lambda _, a: replace(a, signature=b""),
    "a signature cut short": lambda _, a: replace(a, signature=a.signature[:-1]),
    "an altered signature": lambda _, a: replace(a, signature=a.signature[:-1] + b"\x00"),
    "another nonce": lambda _, a: replace(a, parent_nonce=b"m" * 32),
    "no chain": lambda _, a: replace(a, tls_chain=b""),
    "no authority": lambda _, a: replace(a, authority_chain=b""),
    "a chain that is none": lambda _, a: replace(a, tls_chain=b"chain"),
    "an authority that is none": lambda _, a: replace(a, authority_chain=b"chain"),
    "a request that is none": lambda _, a: replace(a, tls_request=b"request"),
    "an authority's request that is none": lambda _, a: replace(a, authority_request=b"request"),
    "an endless chain": lambda _, a: replace(a, tls_chain=a.tls_chain * 16),
    "the leaf alone": lambda _, a: replace(a, tls_chain=_first(a.tls_chain)),
    "the authority alone": lambda _, a: replace(a, authority_chain=_first(a.authority_chain)),
    "the authority as a leaf": lambda _, a: replace(a, tls_chain=a.authority_chain),
    "a leaf as the authority": lambda _, a: replace(a, authority_chain=a.tls_chain),
}


def _first(chain: bytes) -> bytes:
    end = b"-----END CERTIFICATE-----\n"
    return chain[: chain.index(end) + len(end)]


@pytest.mark.parametrize("title", ON_THE_WAY)
def test_what_was_altered_on_the_way_is_refused(place: Place, title: str) -> None:
    """Nothing is signed, nothing installed; asked again in order, it is renewed."""
    place.away()
    before = place.ends()
    with pytest.raises(RenewalRefusedError):
        place.ask(lambda asked: ON_THE_WAY[title](place, asked))
    assert place.admitted == []
    assert place.ends() == before
    assert place.ask()


def asked_by(
    place: Place, node: NodeId, key: PrivateKey, **change: Any
) -> tuple[RenewAsked, bytes]:
    """A question that somebody signs properly, with whatever key and chain he has."""
    folder = NodeFolder(place.folders[node])
    authority = private_key_from_pem(read_secret(folder.authority_key))
    asked = RenewAsked(
        node,
        NONCE,
        certificate_request(key),
        certificate_request(authority),
        folder.tls.chain.read_bytes(),
        folder.authority_chain.read_bytes(),
    )
    asked = replace(asked, **change)
    said = transcript(asked, b"c" * 32, CERTIFICATE)
    chain = certificates_from_pem(folder.tls.chain.read_bytes())
    return replace(asked, signature=Signer(key, chain).sign(child_words(said))), said


def test_somebody_else_who_signs_properly_is_refused(place: Place, tmp_path: Path) -> None:
    """A thief without the key, a cousin, a parent, staff, another region: none is renewed here."""
    foreign = create_region(tmp_path / "foreign", HIERARCHY, at(START_MS))
    staff_key, staff = staff_chain(place)
    place.away()
    thief = new_private_key()
    foreign_key = private_key_from_pem(read_secret(NodeFolder(foreign[VILLAGE]).tls.private_key))
    questions = {
        "a thief with the chain alone": asked_by(place, VILLAGE, thief),
        "a sibling in the village's name": asked_by(
            place, SIBLING, place.key(SIBLING), node_id=VILLAGE
        ),
        "a sibling's own authority for the village's": asked_by(
            place, VILLAGE, place.key(), authority_chain=authority_of(place, SIBLING)
        ),
        "a county": asked_by(place, COUNTY, place.key(COUNTY)),
        "the township itself": asked_by(place, TOWNSHIP, place.key(TOWNSHIP)),
        "a member of staff": asked_by(place, VILLAGE, staff_key, tls_chain=staff),
        "another key of the village": asked_by(
            place, VILLAGE, place.key(), tls_request=certificate_request(thief)
        ),
        "another authority of the village": asked_by(
            place, VILLAGE, place.key(), authority_request=certificate_request(thief)
        ),
        "a village of another root": asked_by(
            place,
            VILLAGE,
            foreign_key,
            tls_chain=NodeFolder(foreign[VILLAGE]).tls.chain.read_bytes(),
        ),
        "an authority of another root": asked_by(
            place,
            VILLAGE,
            place.key(),
            authority_chain=NodeFolder(foreign[VILLAGE]).authority_chain.read_bytes(),
        ),
    }
    for title, (asked, said) in questions.items():
        with pytest.raises(RenewalRefusedError):
            pytest.fail(f"{title}: {place.renewer.renew(asked, said)}")
    assert place.admitted == []


@pytest.mark.parametrize("which", ["tls", "authority"])
def test_a_revoked_key_is_not_renewed(place: Place, which: str) -> None:
    """Of its connections or of its authority; another node's revocation is not its own."""
    place.away()
    authority = load_authority(place.folders[VILLAGE]).private_key
    place.revoke(place.key(SIBLING))
    assert place.ask()
    place.away()
    place.revoke(place.key() if which == "tls" else authority)
    with pytest.raises(PeerRevokedError):
        place.ask()


def test_a_parent_whose_own_certificate_has_ended_signs_nothing(place: Place) -> None:
    """Nobody would believe its answer; it is asked again later."""
    place.away()
    ms = 366 * DAY_MS
    place.parent_clock.ms += ms
    place.clock.ms += ms
    with pytest.raises(RenewalRefusedError, match="waits"):
        place.ask()


def by_another(place: Place, node: NodeId) -> Callable[[Renewed, bytes], Renewed]:
    """The answer, signed by another node."""

    def answered(renewed: Renewed, said: bytes) -> Renewed:
        signer = place.signer(node)
        signature = signer.sign(parent_words(said, renewed.answer))
        return Renewed(renewed.answer, signer.chain_pem, signature)

    return answered


def saying(place: Place, **change: Any) -> Callable[[Renewed, bytes], Renewed]:
    """The parent's own signature over another answer."""

    def answered(_renewed: Renewed, said: bytes) -> Renewed:
        right = RenewAnswer(VILLAGE, TOWNSHIP, place.parent_clock.ms)
        raw = write_renewal(replace(right, **change))
        signer = place.parent_credentials.signer
        return Renewed(raw, signer.chain_pem, signer.sign(parent_words(said, raw)))

    return answered


LIES: dict[str, Callable[[Place], Callable[[Renewed, bytes], Renewed]]] = {
    "signed by the sibling": lambda p: by_another(p, SIBLING),
    "signed by the county": lambda p: by_another(p, COUNTY),
    "signed for another conversation": lambda p: (
        lambda renewed, said: p.renewer.renew(*asked_by(p, VILLAGE, p.key()))
    ),
    "altered": lambda p: (
        lambda renewed, said: replace(
            renewed, answer=renewed.answer.replace(b'"at_ms":1', b'"at_ms":2')
        )
    ),
    "no JSON": lambda p: lambda renewed, said: replace(renewed, answer=b"["),
    "no chain": lambda p: lambda renewed, said: replace(renewed, chain=b""),
    "for another node": lambda p: saying(p, node_id=SIBLING),
    "from another node": lambda p: saying(p, parent_id=COUNTY),
    "with another node's certificates": lambda p: saying(
        p,
        tls_chain=chain_of(p, TOWNSHIP).decode(),
        authority_chain=authority_of(p, TOWNSHIP).decode(),
    ),
    "with certificates that are none": lambda p: saying(p, tls_chain="x", authority_chain="y"),
    "from before the parent's certificate": lambda p: saying(p, at_ms=1),
    "from the end of time": lambda p: saying(p, at_ms=2**62),
}


@pytest.mark.parametrize("title", LIES)
def test_what_the_parent_has_not_said_is_not_believed(place: Place, title: str) -> None:
    """Nothing is installed, and no clock is called wrong by it."""
    place.away()
    before = place.ends()
    place.answer = LIES[title](place)
    with pytest.raises(RenewalAnswerError):
        place.ask()
    assert place.ends() == before
