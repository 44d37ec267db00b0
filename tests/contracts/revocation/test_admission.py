"""For which keys a child is certified: over its link, and when its place joins anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hierarchy_config import NodeId
from node.foundations import utc_now
from node.region.context import to_body
from node.region.renewal import Renewal
from node.revocation.room import RevocationRoom
from node.revocation.store import KeyRole, SeenKey
from node.security.authority import JoinRequest, load_authority
from node.security.certificates import (
    Authority,
    AuthorityName,
    PrivateKey,
    Validity,
    certificate_request,
    certificates_to_pem,
    new_private_key,
    private_key_from_pem,
    sign_authority,
)
from node.security.folders import NodeFolder
from node.security.former import key_digest
from node.security.key_files import read_secret
from node.storage.audit import Auditor
from node.storage.transactions import Transactions
from replication.channel import AskRefusedError
from replication.core.model import Request
from tests.contracts.joining.place import DAY_MS, HIERARCHY
from tests.contracts.revocation.place import Place
from tests.unit.security.region import TOWNSHIP, VILLAGE


@dataclass
class Keys:
    """The two keys of a machine."""

    tls: PrivateKey
    authority: PrivateKey

    @property
    def request(self) -> JoinRequest:
        tls, authority = map(certificate_request, (self.tls, self.authority))
        return JoinRequest(VILLAGE, tls, authority)

    @property
    def digests(self) -> set[str]:
        return {key_digest(each.public_key()) for each in (self.tls, self.authority)}


def new_keys() -> Keys:
    """A new machine."""
    return Keys(new_private_key(), new_private_key())


def own_keys(place: Place) -> Keys:
    """The machine that the village has."""
    folder = NodeFolder(place.folders[VILLAGE])
    paths = (folder.tls.private_key, folder.authority_key)
    return Keys(*(private_key_from_pem(read_secret(path)) for path in paths))


class Township:
    """The parent: its room, and its side of a renewal over the link."""

    def __init__(self, place: Place, pins: dict[NodeId, str] | None = None) -> None:
        self.member = member = place.members[TOWNSHIP]
        folder = place.folders[TOWNSHIP]
        base = cast(
            Any,
            SimpleNamespace(
                node_id=TOWNSHIP,
                hierarchy=HIERARCHY,
                paths=SimpleNamespace(data=folder),
                credentials=SimpleNamespace(root_pem=place.root_pem, signer=member.signer),
            ),
        )
        parts = SimpleNamespace(
            transactions=Transactions(member.engine), auditor=Auditor(place.clock)
        )
        store = SimpleNamespace(revoked=member.book, storage=SimpleNamespace(context=parts))
        self.room = RevocationRoom(
            base,
            cast(Any, store),
            cast(Any, member.hub),
            load_authority(folder).private_key.public_key(),
            threads=place.threads,
            clock=place.clock,
        )

        async def blocking(work: Any, *arguments: Any) -> Any:
            return work(*arguments)

        context = SimpleNamespace(
            base=base, blocking=blocking, former=SimpleNamespace(pins=pins or {})
        )
        self.renewal = Renewal(cast(Any, context), place.clock)
        self.renewal.admit = self.room.readmit

    async def renew(self, keys: Keys, chain: Sequence[Any] = ()) -> None:
        asked = keys.request
        said = {
            "tls_request": asked.tls_request.decode(),
            "authority_request": asked.authority_request.decode(),
        }
        if chain:
            said["authority_chain"] = certificates_to_pem(tuple(chain)).decode()
        body = to_body(said)
        await self.renewal.on_certificate(
            VILLAGE, Request(1, (), "region.certificate", 1000, b"", body)
        )

    def noted(self) -> set[str]:
        return {each.digest for each in self.member.store.keys_of(VILLAGE)}


def test_a_place_joins_anew_although_the_thief_had_key_after_key(place: Place) -> None:
    """What is revoked takes no room; of the keys that stand there are as many as ever."""

    async def works() -> None:
        township = Township(place)
        first = place.keys(VILLAGE)[0]
        many = [SeenKey(VILLAGE, f"{n:064x}", KeyRole.TLS) for n in range(62)]
        assert township.member.store.note_keys([*place.keys(VILLAGE), *many])
        assert not township.member.store.note_keys([SeenKey(VILLAGE, "f" * 64, first.role)])
        await place.revoke(TOWNSHIP, VILLAGE)
        place.clock.ms += DAY_MS
        again = new_keys()
        township.room.admit(again.request)
        assert again.digests <= township.noted()

    place.run(works)


def test_a_link_certifies_no_key_that_is_new(place: Place) -> None:
    """Whoever has the machine makes keys as he likes; they are neither signed nor noted."""

    async def works() -> None:
        township, own = Township(place), own_keys(place)
        township.member.store.note_keys(place.keys(VILLAGE))
        await township.renew(own)
        for keys in (new_keys(), Keys(own.tls, new_private_key())):
            with pytest.raises(AskRefusedError):
                await township.renew(keys)
        assert township.noted() == own.digests

    place.run(works)


def test_an_authority_that_proves_its_key_is_renewed(place: Place) -> None:
    """The store has another one of before, as of a place that has moved away and back."""

    async def works() -> None:
        own = own_keys(place)
        township = Township(place, {VILLAGE: key_digest(own.tls.public_key())})
        township.member.store.note_keys(
            [SeenKey(VILLAGE, "a" * 64, KeyRole.AUTHORITY), SeenKey(VILLAGE, "b" * 64, KeyRole.TLS)]
        )
        with pytest.raises(AskRefusedError):
            await township.renew(own)
        await township.renew(own, load_authority(place.folders[VILLAGE]).chain)
        assert own.digests <= township.noted()

    place.run(works)


def test_an_authority_proves_no_other_key_of_its_own(place: Place) -> None:
    """It signs an authority of the same name for a new key; the chain does lead to the root."""

    async def works() -> None:
        township, own = Township(place), own_keys(place)
        township.member.store.note_keys(place.keys(VILLAGE))
        forged = forged_chain(load_authority(place.folders[VILLAGE]), place, new := new_keys())
        with pytest.raises(AskRefusedError):
            await township.renew(Keys(own.tls, new.authority), forged)
        assert township.noted() == own.digests

    place.run(works)


def test_of_an_older_release_the_first_keys_are_noted_and_no_others(place: Place) -> None:
    """A township that has seen none certifies the village's, once."""

    async def works() -> None:
        township, own = Township(place), own_keys(place)
        await township.renew(own)
        assert township.noted() == own.digests
        with pytest.raises(AskRefusedError):
            await township.renew(new_keys())

    place.run(works)


def forged_chain(own: Authority, place: Place, keys: Keys) -> tuple[Any, ...]:
    """An authority of the village that the village's own authority has made."""
    made = sign_authority(
        own,
        AuthorityName(HIERARCHY.region, VILLAGE, HIERARCHY.dns_name(VILLAGE)),
        HIERARCHY.entry(VILLAGE).level,
        keys.authority.public_key(),
        Validity(own.certificate.not_valid_before_utc, utc_now(place.clock).replace(year=2027)),
    )
    return (made, *own.chain)
