"""Lists reach every node, over cuts, restarts, restored stores and neighbours that lie."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, select

from hierarchy_config import NodeId
from node.revocation.desk import Wish
from node.revocation.entries import Target, sign_entry
from node.revocation.errors import RevocationFullError, RevokeNotBelowError
from node.revocation.flooding import ENTRIES, HEADS, parse_body, to_body
from node.revocation.store import load_entries
from node.security.caller import local_operator
from node.security.errors import PeerRevokedError
from node.storage.tables import AUDIT, REVOCATION
from replication.channel import AskRefusedError
from tests.contracts.joining.place import DAY_MS, HIERARCHY
from tests.contracts.revocation.place import NODES, Place
from tests.unit.security.region import CITY, COUNTY, OTHER_COUNTY, TOWNSHIP, VILLAGE

YEARS_MS = 20 * 365 * DAY_MS


def test_a_revocation_reaches_every_node(place: Place) -> None:
    """From the middle of the tree up, beside and down; each keeps it and denies the village."""

    async def works() -> None:
        place.members[TOWNSHIP].store.note_keys(place.keys(VILLAGE))
        made = await place.revoke(TOWNSHIP, VILLAGE)
        assert not made.repeated
        assert made.entry.word.issued_before_ms == 0
        assert place.knowing() == set(NODES)
        for node in (CITY, COUNTY, OTHER_COUNTY, TOWNSHIP):
            with pytest.raises(PeerRevokedError):
                place.members[node].book.refuse(place.chain(VILLAGE))
            assert place.members[node].learnt == [made.entry]

    place.run(works)


def test_the_city_revokes_with_the_keys_that_the_township_has_seen(place: Place) -> None:
    """It asks down the branch; without an answer, all that was issued until now is revoked."""

    async def works() -> None:
        place.members[TOWNSHIP].store.note_keys(place.keys(VILLAGE))
        made = await place.revoke(CITY, VILLAGE)
        assert set(made.entry.word.keys) == {key.digest for key in place.keys(VILLAGE)}
        assert made.entry.word.issued_before_ms == 0
        place.clock.ms += DAY_MS
        blind = await place.revoke(CITY, TOWNSHIP)
        assert blind.entry.word.issued_before_ms == place.clock.now_ms()
        with pytest.raises(PeerRevokedError):
            place.members[CITY].book.refuse(place.chain(TOWNSHIP))

    place.run(works)


def test_the_same_again_signs_nothing_and_new_keys_are_revoked_too(place: Place) -> None:
    """An operator who asks twice; and a place that got another machine which is stolen as well."""

    async def works() -> None:
        store = place.members[TOWNSHIP].store
        store.note_keys(place.keys(VILLAGE))
        first = await place.revoke(TOWNSHIP, VILLAGE)
        again = await place.revoke(TOWNSHIP, VILLAGE)
        assert again.repeated
        assert again.entry == first.entry
        other = replace(place.keys(VILLAGE)[0], digest="ab" * 32)
        store.note_keys([other])
        second = await place.revoke(TOWNSHIP, VILLAGE)
        assert second.entry.word.keys == ("ab" * 32,)
        assert second.entry.word.number == 2

    place.run(works)


def _second_machine(place: Place) -> None:
    """A year later the place has other keys, and its township has certified them."""
    place.clock.ms += 365 * DAY_MS
    others = [
        replace(key, digest=f"{number:064x}") for number, key in enumerate(place.keys(VILLAGE))
    ]
    assert place.members[TOWNSHIP].store.note_keys(others)


def test_a_second_stolen_machine_is_revoked_although_nobody_says_its_keys(place: Place) -> None:
    """The county has an old entry, and no line to the township that knows the new keys."""

    async def works() -> None:
        place.members[TOWNSHIP].store.note_keys(place.keys(VILLAGE))
        await place.revoke(COUNTY, VILLAGE)
        _second_machine(place)
        place.cut(COUNTY, TOWNSHIP)
        second = await place.revoke(COUNTY, VILLAGE)
        assert not second.repeated
        assert second.entry.word.issued_before_ms == place.clock.now_ms()
        assert place.members[COUNTY].book.is_revoked(f"{1:064x}", VILLAGE, place.clock.now_ms())
        assert not (await place.revoke(COUNTY, VILLAGE)).repeated

    place.run(works)


def test_a_parent_put_back_from_before_the_new_machine_revokes_it_all_the_same(
    place: Place,
) -> None:
    """Its backup knows of the first machine and its revocation only; asked at once it repeats."""

    async def works() -> None:
        place.members[TOWNSHIP].store.note_keys(place.keys(VILLAGE))
        await place.revoke(TOWNSHIP, VILLAGE)
        place.clock.ms += 365 * DAY_MS
        second = await place.revoke(TOWNSHIP, VILLAGE)
        assert not second.repeated
        assert second.entry.word.issued_before_ms == place.clock.now_ms()
        assert (await place.revoke(TOWNSHIP, VILLAGE)).repeated

    place.run(works)


def test_the_old_authority_of_a_place_says_nothing_of_its_new_one(place: Place) -> None:
    """Of the second machine only the key of its connections was seen."""

    async def works() -> None:
        store = place.members[TOWNSHIP].store
        store.note_keys(place.keys(VILLAGE))
        await place.revoke(TOWNSHIP, VILLAGE)
        store.note_keys([replace(place.keys(VILLAGE)[0], digest="ab" * 32)])
        second = await place.revoke(TOWNSHIP, VILLAGE)
        assert second.entry.word.keys == ("ab" * 32,)
        assert second.entry.word.issued_before_ms == place.clock.now_ms()

    place.run(works)


def test_a_node_that_was_away_learns_at_its_greeting(place: Place) -> None:
    """The line to the village was cut; it dies meanwhile, and the township too."""

    async def works() -> None:
        place.cut(TOWNSHIP, VILLAGE)
        place.cut(COUNTY, TOWNSHIP)
        await place.revoke(CITY, OTHER_COUNTY)
        assert place.knowing() == {CITY, COUNTY, OTHER_COUNTY}
        place.start(TOWNSHIP, VILLAGE)
        place.cut(TOWNSHIP, VILLAGE, up=True)
        place.cut(COUNTY, TOWNSHIP, up=True)
        await place.settle()
        assert place.knowing() == set(NODES)

    place.run(works)


def test_a_store_that_was_put_back_gets_its_own_list_from_its_neighbours(place: Place) -> None:
    """The backup is older than the revocation; its next number is not used twice."""

    async def works() -> None:
        place.members[TOWNSHIP].store.note_keys(place.keys(VILLAGE))
        await place.revoke(TOWNSHIP, VILLAGE)
        with place.engines[TOWNSHIP].begin() as connection:
            connection.execute(delete(REVOCATION.revocations))
        place.start(TOWNSHIP)
        assert TOWNSHIP not in place.knowing()
        place.members[TOWNSHIP].flooding.greet(COUNTY)
        await place.settle()
        assert TOWNSHIP in place.knowing()
        wish = await place.members[TOWNSHIP].desk.revoke(
            local_operator(TOWNSHIP, HIERARCHY), wish_of_caller()
        )
        assert wish.entry.word.number == 2

    place.run(works)


def wish_of_caller() -> Wish:
    """A caller of this node, by name."""
    return Wish("left", caller="client/ward")


def test_two_entries_of_one_number_both_count(place: Place) -> None:
    """Signed before the restored node had its own list again."""

    async def works() -> None:
        one = place.entry(CITY, COUNTY)
        other = place.entry(CITY, OTHER_COUNTY)
        raws = [each.raw.decode() for each in (one, other)]
        new, invalid = place.members[TOWNSHIP].flooding.accept(COUNTY, raws)
        assert (len(new), invalid) == (2, 0)
        for node in (COUNTY, OTHER_COUNTY):
            with pytest.raises(PeerRevokedError):
                place.members[TOWNSHIP].book.refuse(place.chain(node))

    place.run(works)


def test_an_entry_outlives_the_certificate_of_its_signer(place: Place) -> None:
    """A node that is made anew twenty years later takes the list as the first ones did."""

    async def works() -> None:
        entry = place.entry(CITY, VILLAGE)
        place.clock.ms += YEARS_MS
        new, invalid = place.members[TOWNSHIP].flooding.accept(COUNTY, [entry.raw.decode()])
        assert (new, invalid) == ((entry,), 0)

    place.run(works)


def _forged(place: Place, signer: NodeId, name: NodeId, node: NodeId) -> str:
    return sign_entry(place.signer(signer), place.word(name, node)).raw.decode()


def _mixed(place: Place) -> str:
    one = json.loads(place.entry(CITY, TOWNSHIP).raw)
    other = json.loads(place.entry(CITY, COUNTY).raw)
    return json.dumps(one | {"signature": other["signature"]})


def _said(place: Place, change: dict[str, Any]) -> str:
    """The city's own signature over a body of a wrong shape."""
    envelope = json.loads(place.entry(CITY, VILLAGE).raw)
    body = json.dumps(json.loads(envelope["body"]) | change)
    signed = place.signer(CITY).sign(b"fenhe-revocation-1\0" + body.encode())
    envelope |= {"body": body, "signature": base64.b64encode(signed).decode()}
    return json.dumps(envelope)


HOSTILE: dict[str, Callable[[Place], str]] = {
    "a village revokes its parent": lambda p: p.entry(VILLAGE, TOWNSHIP).raw.decode(),
    "a village revokes the city": lambda p: p.entry(VILLAGE, CITY).raw.decode(),
    "a village revokes another branch": lambda p: p.entry(VILLAGE, OTHER_COUNTY).raw.decode(),
    "a village revokes itself": lambda p: p.entry(VILLAGE, VILLAGE).raw.decode(),
    "a county revokes its sibling": lambda p: p.entry(COUNTY, OTHER_COUNTY).raw.decode(),
    "a village signs in the city's name": lambda p: _forged(p, VILLAGE, CITY, TOWNSHIP),
    "a county signs in the city's name": lambda p: _forged(p, COUNTY, CITY, TOWNSHIP),
    "a body that was altered": lambda p: p.entry(CITY, TOWNSHIP).raw.decode().replace("1410", "14"),
    "a signature of another entry": _mixed,
    "a caller of another node": lambda p: p.entry(
        VILLAGE,
        VILLAGE,
        target=Target.CALLER,
        keys=(),
        principals=("spiffe://linfen/1410/operator/chief",),
    ).raw.decode(),
    "the name of a node": lambda p: p.entry(
        TOWNSHIP,
        TOWNSHIP,
        target=Target.CALLER,
        keys=(),
        principals=("spiffe://linfen/141002001",),
    ).raw.decode(),
    "a node that is not there": lambda p: p.entry(
        CITY, CITY, node_id="141099", keys=("ab" * 32,)
    ).raw.decode(),
    "a key that is none": lambda p: _said(p, {"keys": ["x"]}),
    "no keys at all": lambda p: _said(p, {"keys": None}),
    "a number that is none": lambda p: _said(p, {"number": True}),
    "a reason without end": lambda p: _said(p, {"reason": "x" * 1000}),
    "another kind": lambda p: _said(p, {"target": "everybody"}),
    "no JSON": lambda p: "[",
    "deep JSON": lambda p: "[" * 100_000,
    "an empty object": lambda p: "{}",
    "too large": lambda p: json.dumps({"body": "x" * 20_000, "signature": "", "chain": ""}),
}


@pytest.mark.parametrize("title", HOSTILE)
def test_what_a_neighbour_may_not_say_is_not_taken(place: Place, title: str) -> None:
    """Nothing is kept of it, nobody is denied, and what is good beside it is taken."""

    async def works() -> None:
        member = place.members[TOWNSHIP]
        good = place.entry(CITY, OTHER_COUNTY)
        raws = [HOSTILE[title](place), good.raw.decode(), 17]
        new, invalid = member.flooding.accept(COUNTY, raws)
        assert (new, invalid) == ((good,), 2)
        assert load_entries(member.engine) == (good,)
        for node in (CITY, COUNTY, VILLAGE):
            member.book.refuse(place.chain(node))

    place.run(works)


def test_the_key_of_somebody_else_in_a_list_is_toothless(place: Place) -> None:
    """A township that revokes its village names the city's keys: the city goes on."""

    async def works() -> None:
        keys = tuple(key.digest for key in (*place.keys(CITY), *place.keys(TOWNSHIP)))
        entry = place.entry(TOWNSHIP, VILLAGE, keys=keys)
        for node in (CITY, COUNTY, VILLAGE):
            new, _ = place.members[node].flooding.accept(TOWNSHIP, [entry.raw.decode()])
            assert new == (entry,)
            place.members[node].book.refuse(place.chain(CITY))
            place.members[node].book.refuse(place.chain(TOWNSHIP))

    place.run(works)


def test_a_neighbour_without_end_is_not_asked_for_ever(place: Place) -> None:
    """It hands over rubbish, page after page: shunned after some, others are asked as before."""
    asked: list[str] = []

    def lie(method: str, body: bytes) -> bytes:
        asked.append(method)
        if method == HEADS:
            return to_body({"heads": {VILLAGE: f"{len(asked)}"}})
        after = parse_body(body)["after"]
        return to_body({"entries": ["{}"] * 16, "next": after + "f"})

    async def works() -> None:
        member = place.members[TOWNSHIP]
        member.hub.lies[VILLAGE] = lie
        for _ in range(5):
            member.flooding.greet(VILLAGE)
            await member.flooding.idle()
        assert asked.count(ENTRIES) == 3
        await place.revoke(CITY, OTHER_COUNTY)
        assert TOWNSHIP in place.knowing()

    place.run(works)


def test_a_village_cannot_fill_the_disks_of_the_region(place: Place) -> None:
    """What its subtree cannot need is left out, and its own operator is told."""

    async def works() -> None:
        member = place.members[TOWNSHIP]
        raws = [
            place.entry(
                VILLAGE,
                VILLAGE,
                number=number,
                target=Target.CALLER,
                keys=(f"{number:064x}",),
            ).raw.decode()
            for number in range(300)
        ]
        for start in range(0, 300, 50):
            member.flooding.accept(VILLAGE, raws[start : start + 50])
        assert len(load_entries(member.engine)) == 288
        place.members[VILLAGE].store.keep(
            member.book.entries, local_operator(VILLAGE, HIERARCHY), VILLAGE
        )
        with pytest.raises(RevocationFullError):
            await place.members[VILLAGE].desk.revoke(
                local_operator(VILLAGE, HIERARCHY), wish_of_caller()
            )

    place.run(works)


@pytest.mark.parametrize("node", [CITY, COUNTY, TOWNSHIP, OTHER_COUNTY, "141099"])
def test_an_operator_revokes_only_what_is_below(place: Place, node: str) -> None:
    """Not what is above, beside, itself, or nowhere."""

    async def works() -> None:
        with pytest.raises(RevokeNotBelowError):
            await place.revoke(TOWNSHIP, NodeId(node))
        assert place.knowing() == set()

    place.run(works)


def test_every_deed_is_in_the_audit(place: Place) -> None:
    """Who revoked whom here, and from whom an entry came."""

    async def works() -> None:
        await place.revoke(TOWNSHIP, VILLAGE)
        await place.revoke(CITY, OTHER_COUNTY)

    place.run(works)
    query = select(AUDIT.c.principal, AUDIT.c.action, AUDIT.c.object_id).order_by(AUDIT.c.audit_id)
    with place.engines[TOWNSHIP].connect() as connection:
        found = [tuple(row) for row in connection.execute(query)]
    operator = local_operator(TOWNSHIP, HIERARCHY).principal
    county = HIERARCHY.spiffe_id(COUNTY)
    assert found == [(operator, "revoke", VILLAGE), (county, "revoke", OTHER_COUNTY)]


def test_a_neighbour_of_an_older_release_is_no_trouble(place: Place) -> None:
    """It knows no such question; the link and the other neighbours go on."""

    def old(_method: str, _body: bytes) -> bytes:
        raise AskRefusedError("UNKNOWN_METHOD", "revocation.heads is not known here")

    async def works() -> None:
        place.members[TOWNSHIP].hub.lies[VILLAGE] = old
        await place.revoke(CITY, OTHER_COUNTY)
        assert TOWNSHIP in place.knowing()

    place.run(works)


def test_a_place_with_more_keys_than_an_entry_holds_is_revoked_by_time(place: Place) -> None:
    """Whoever asked for key after key: whatever was issued to him until now counts no more."""

    async def works() -> None:
        store = place.members[TOWNSHIP].store
        first = place.keys(VILLAGE)[0]
        many = [replace(first, digest=f"{number:064x}") for number in range(20)]
        assert store.note_keys([*place.keys(VILLAGE), *many])
        made = await place.revoke(TOWNSHIP, VILLAGE)
        assert made.entry.word.issued_before_ms == place.clock.now_ms()
        place.members[CITY].book.refuse(place.chain(COUNTY))
        with pytest.raises(PeerRevokedError):
            place.members[CITY].book.refuse(place.chain(VILLAGE))
        assert not store.note_keys([replace(first, digest=f"{n:064x}") for n in range(100)])

    place.run(works)
