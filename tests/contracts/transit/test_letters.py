"""Letters between nodes that are not neighbours, over stores without a wire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, select

from hierarchy_config.errors import FenheError
from node.storage.tables import CHANGELOG, TRANSIT
from node.transit import Letter, SentLetter
from node.transit.errors import LetterTooLargeError
from node.transit.model import Unanswered
from node.transit.owed import Owed
from replication.changelog import LetterEntries, read_transaction, write_transaction
from replication.core.config import PeerRole
from replication.core.mailbox import PostState
from replication.core.model import Form, Lane, LogEntry
from tests.contracts.storage.region import send, stored_files
from tests.contracts.transit.region import (
    CITY,
    COUNTY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    KeyedNode,
    KeyedRegion,
    authorities,
)

UP = (VILLAGE, TOWNSHIP, COUNTY, CITY)
THERE = (*UP, OTHER_COUNTY)
BACK = tuple(reversed(THERE))
MARKER = b"grandmother's diagnosis"


def post(node: KeyedNode, **letter: Any) -> str:
    """Write a letter in a transaction of its own."""
    said = {"to": OTHER_COUNTY, "kind": "note", "body": MARKER} | letter
    with write_transaction(node.engine) as connection:
        return node.post.send(connection, **said)


def kept(node: KeyedNode, letter_id: str) -> SentLetter:
    """The letter as its author has it."""
    with read_transaction(node.engine) as connection:
        found = node.post.outbox.get(connection, letter_id)
    assert found is not None
    return found


def unanswered(node: KeyedNode) -> list[Unanswered]:
    """Its letters that are not confirmed."""
    with read_transaction(node.engine) as connection:
        return node.post.outbox.unanswered(connection)


def taking(node: KeyedNode, answer: str = "") -> list[Letter]:
    """What the node is handed from now on; it answers each with `answer`."""
    taken: list[Letter] = []

    def handler(_connection: Connection, letter: Letter) -> str:
        taken.append(letter)
        return answer

    node.post.on_letter("note", handler)
    return taken


def causes(node: KeyedNode) -> dict[str, int]:
    """What waits in the node's quarantine."""
    with read_transaction(node.engine) as connection:
        return node.storage.quarantine.by_cause(connection)


def test_a_letter_climbs_to_the_common_ancestor_descends_and_its_receipt_comes_back(
    region: KeyedRegion,
) -> None:
    """From a village of one county to the other county, through the city."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)
    taken = taking(county)

    letter_id = post(village, lane=Lane.CARE)
    region.travel(*THERE)

    [letter] = taken
    assert (letter.sender, letter.to, letter.body) == (VILLAGE, OTHER_COUNTY, MARKER)
    assert (letter.letter_id, letter.kind, letter.lane) == (letter_id, "note", Lane.CARE)
    assert kept(village, letter_id).parcel.state is PostState.SENT
    region.travel(*BACK)
    done = kept(village, letter_id)
    assert done.parcel.state is PostState.CONFIRMED
    assert done.proof is not None
    assert done.proof.signature
    assert done.body is None


def test_relays_keep_it_sealed_and_in_no_table_but_the_log(region: KeyedRegion) -> None:
    """Nothing of the body lies clear in any file of the nodes between, nor a row in any table."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)
    taking(county)

    post(village)
    region.travel(*THERE)

    relays = [region.node(code) for code in (TOWNSHIP, COUNTY, CITY)]
    for node in relays:
        assert [e.form for e in node.entries()] == [Form.SEALED]
        assert MARKER not in node.entries()[0].rows
        with read_transaction(node.engine) as connection:
            for table in (TRANSIT.out, TRANSIT.received, TRANSIT.subjects):
                assert not connection.execute(select(table)).all()
    for path in stored_files(*relays):
        assert MARKER not in path.read_bytes()
    assert MARKER not in b"".join(path.read_bytes() for path in stored_files(village))


def test_a_letter_waits_until_its_addressees_key_is_known(region: KeyedRegion) -> None:
    """It is in the outbox, not in the log; once the key is there it goes."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    taken = taking(county)

    letter_id = post(village)

    assert kept(village, letter_id).parcel.state is PostState.WAITING_KEY
    assert not village.entries()
    assert village.carry() == [OTHER_COUNTY]
    village.knows(county)
    assert village.carry() == []
    region.travel(*THERE)
    assert len(taken) == 1


def test_an_unconfirmed_letter_is_sent_again_and_takes_effect_once(region: KeyedRegion) -> None:
    """The second sending is handled by no handler, and answered again."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)
    taken = taking(county)
    letter_id = post(village)
    region.travel(*THERE)

    region.clock.ms += 61_000
    village.carry()
    region.travel(*THERE)

    assert kept(village, letter_id).parcel.attempts == 2
    assert len(taken) == 1
    assert [(each.state, each.count) for each in unanswered(village)] == [(PostState.SENT, 1)]
    region.travel(*BACK)
    assert kept(village, letter_id).parcel.state is PostState.CONFIRMED
    assert unanswered(village) == []


def test_a_refused_letter_waits_there_and_its_author_is_told(region: KeyedRegion) -> None:
    """What the handler refuses is tried again in the quarantine; a second receipt says so."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)
    taking(county, "RESIDENT_UNKNOWN")
    letter_id = post(village)
    region.travel(*THERE)
    region.travel(*BACK)

    refused = kept(village, letter_id)
    assert (refused.parcel.state, refused.parcel.code) == (PostState.REFUSED, "RESIDENT_UNKNOWN")
    [told] = unanswered(village)
    assert (told.to, told.state, told.count) == (OTHER_COUNTY, PostState.REFUSED, 1)
    assert told.oldest_ms == told.newest_ms == region.clock.ms
    assert refused.body == MARKER
    assert causes(county) == {"RESIDENT_UNKNOWN": 1}

    taken = taking(county)
    [item] = county.storage.desk.waiting(county.caller(), after=0, limit=10)[0]
    county.storage.desk.retry(item.item_id)
    region.travel(*BACK)
    assert len(taken) == 1
    assert causes(county) == {}
    assert kept(village, letter_id).parcel.state is PostState.CONFIRMED


def test_a_kind_that_nobody_takes_stays_pending(region: KeyedRegion) -> None:
    """An older release at the addressee is no reason to give a letter up."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)
    letter_id = post(village)
    region.travel(*THERE)
    region.travel(*BACK)

    waiting = kept(village, letter_id).parcel
    assert (waiting.state, waiting.code) == (PostState.SENT, "LETTER_KIND_UNKNOWN")
    assert waiting.next_ms is not None


def test_an_addressee_with_a_new_key_gets_it_sealed_anew(region: KeyedRegion) -> None:
    """The old certificate is forgotten; the letter goes once the new one is known."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)
    taken = taking(county)
    county.keyring.held = authorities().node(OTHER_COUNTY)
    letter_id = post(village)
    region.travel(*THERE)
    region.travel(*BACK)

    assert not taken
    assert causes(county) == {}
    assert kept(village, letter_id).parcel.code == "LETTER_KEY_OLD"
    assert village.carry() == [OTHER_COUNTY]
    village.knows(county)
    village.carry()
    region.travel(*THERE)
    region.travel(*BACK)
    assert [letter.body for letter in taken] == [MARKER]
    assert kept(village, letter_id).parcel.state is PostState.CONFIRMED


def test_open_letters_are_seen_on_their_way_and_sealed_ones_are_not(region: KeyedRegion) -> None:
    """A relay that wants to see a kind sees it proven, once, and passes it on."""
    village, county, city = (region.node(code) for code in (VILLAGE, OTHER_COUNTY, CITY))
    village.knows(county)
    taken, seen = taking(county), []
    city.post.on_passing("note", lambda _connection, letter: seen.append(letter))

    post(village, open_letter=True)
    post(village)
    region.travel(*THERE)

    assert [letter.body for letter in seen] == [MARKER]
    assert len(taken) == 2


def test_a_letter_to_the_node_itself_is_handled_at_once(region: KeyedRegion) -> None:
    """In the transaction that writes it; nothing goes into the log."""
    village = region.node(VILLAGE)
    taken, told = taking(village), []
    village.post.on_receipt("note", lambda _connection, sent, code: told.append((sent.to, code)))

    letter_id = post(village, to=VILLAGE)

    assert [letter.sender for letter in taken] == [VILLAGE]
    assert told == [(VILLAGE, "")]
    assert kept(village, letter_id).parcel.state is PostState.CONFIRMED
    assert not village.entries()


def test_letters_that_nobody_could_carry_are_not_taken(region: KeyedRegion) -> None:
    """To no node of the region, or larger than an entry."""
    village = region.node(VILLAGE)
    with pytest.raises(FenheError, match="999999"):
        post(village, to="999999")
    with pytest.raises(LetterTooLargeError):
        post(village, body=bytes((2 << 20) + 1))


def test_the_log_of_a_relay_forgets_what_was_handed_on(region: KeyedRegion) -> None:
    """An erased letter keeps its number and is sent to nobody."""
    village, county, town = (region.node(code) for code in (VILLAGE, OTHER_COUNTY, TOWNSHIP))
    village.knows(county)
    post(village)
    region.travel(VILLAGE, TOWNSHIP)
    town.durable_head()
    letters = LetterEntries(CHANGELOG)
    with write_transaction(town.engine) as connection:
        [waiting] = letters.waiting(connection, 0, 100)
        letters.erase(connection, [waiting.sequence])

    [entry] = town.entries()
    assert (entry.rows, entry.home_node) == (b"", OTHER_COUNTY)
    assert region.travel(TOWNSHIP, COUNTY) == []
    with read_transaction(town.engine) as connection:
        assert letters.waiting(connection, 0, 100) == []


def test_a_stream_that_begins_anew_makes_no_second_letter(region: KeyedRegion) -> None:
    """A relay knows an entry of that origin, erased or not."""
    village, county, town = (region.node(code) for code in (VILLAGE, OTHER_COUNTY, TOWNSHIP))
    village.knows(county)
    post(village)
    [sent] = region.travel(VILLAGE, TOWNSHIP)

    outcome = send(town, VILLAGE, PeerRole.CHILD, sent, sent)

    assert outcome.quarantined == 0
    assert len(town.entries()) == 1


# -- what a dishonest neighbour could do ---------------------------------------------------------


def letter_entry(region: KeyedRegion, **changed: Any) -> LogEntry:
    """A letter from the village to the other county, as the township is sent it."""
    village = region.node(VILLAGE)
    village.knows(region.node(OTHER_COUNTY))
    post(village)
    return replace(region.travel(VILLAGE, TOWNSHIP)[-1], **changed)


def arrives(node: KeyedNode, peer: str, role: PeerRole, entry: LogEntry) -> dict[str, int]:
    """Causes after an entry came from a peer."""
    send(node, peer, role, entry)  # type: ignore[arg-type]
    return causes(node)


def test_a_child_speaks_for_nobody_beside_it(region: KeyedRegion) -> None:
    """An entry under a sibling's name is set aside."""
    entry = letter_entry(region)
    forged = replace(entry, origin_sequence=99)
    town = region.node(TOWNSHIP)
    assert arrives(town, VILLAGE_2, PeerRole.CHILD, forged) == {"LETTER_SENDER_NOT_BELOW": 1}


def test_a_child_that_signs_as_another_below_it_is_found_out(region: KeyedRegion) -> None:
    """A county may hand on letters of its village; it cannot write them."""
    county, addressee = region.node(COUNTY), region.node(OTHER_COUNTY)
    county.knows(addressee)
    taken = taking(addressee)
    post(county)
    region.travel(COUNTY, CITY)
    entry = county.entries()[0]
    head = entry.rows.replace(b'"sender":"141002"', b'"sender":"141002001201"')
    length = int.from_bytes(entry.rows[:4], "big") + len("001201")
    forged = replace(
        entry,
        rows=length.to_bytes(4, "big") + head[4:],
        origin_node=VILLAGE,
        origin_sequence=77,
    )
    assert arrives(addressee, CITY, PeerRole.PARENT, forged) == {"LETTER_SIGNATURE": 1}
    assert not taken


def test_the_parent_hands_down_only_what_is_for_here_and_from_elsewhere(
    region: KeyedRegion,
) -> None:
    """A letter for another branch, or under the name of a node here, is set aside."""
    entry = letter_entry(region)
    town = region.node(TOWNSHIP)
    assert arrives(town, COUNTY, PeerRole.PARENT, replace(entry, origin_sequence=98)) == {
        "LETTER_SENDER_NOT_ABOVE": 1
    }
    other = region.node(OTHER_COUNTY)
    elsewhere = letter_entry(region, origin_sequence=97)
    moved = _readdressed(elsewhere, CITY)
    assert arrives(other, CITY, PeerRole.PARENT, moved) == {"LETTER_NOT_FOR_HERE": 1}


def test_a_letter_for_the_childs_own_subtree_is_not_taken_from_it(region: KeyedRegion) -> None:
    """So no letter goes round between two nodes whose region files differ."""
    village, second = region.node(VILLAGE), region.node(VILLAGE_2)
    village.knows(second)
    post(village, to=VILLAGE_2)
    [entry] = region.travel(VILLAGE, TOWNSHIP)
    county = region.node(COUNTY)
    assert arrives(county, TOWNSHIP, PeerRole.CHILD, entry) == {"LETTER_TURNED_BACK": 1}


def test_a_relay_that_readdresses_a_letter_is_found_out(region: KeyedRegion) -> None:
    """The header is signed: what is sealed to one node opens at no other."""
    entry = _readdressed(letter_entry(region), CITY)
    city = region.node(CITY)
    taken = taking(city)
    assert arrives(city, COUNTY, PeerRole.CHILD, entry) == {"LETTER_SIGNATURE": 1}
    assert not taken


def test_an_entry_that_contradicts_its_letter_is_set_aside(region: KeyedRegion) -> None:
    """The address outside is the address inside."""
    entry = letter_entry(region, home_node=CITY)
    assert arrives(region.node(CITY), COUNTY, PeerRole.CHILD, entry) == {"LETTER_MALFORMED": 1}


@pytest.mark.parametrize("rows", [b"", b"\x00\x00\x00\x04abc", b"x" * 40])
def test_bytes_that_are_no_letter_are_set_aside(region: KeyedRegion, rows: bytes) -> None:
    """And the lane goes on."""
    entry = letter_entry(region, rows=rows, origin_sequence=95)
    assert arrives(region.node(COUNTY), TOWNSHIP, PeerRole.CHILD, entry) == {"LETTER_MALFORMED": 1}


def test_an_altered_letter_does_not_open(region: KeyedRegion) -> None:
    """A flipped bit in the body breaks the signature."""
    entry = letter_entry(region)
    flipped = entry.rows[:-1] + bytes([entry.rows[-1] ^ 1])
    addressee = region.node(OTHER_COUNTY)
    taken = taking(addressee)
    forged = replace(entry, rows=flipped)
    assert arrives(addressee, CITY, PeerRole.PARENT, forged) == {"LETTER_SIGNATURE": 1}
    assert not taken


def test_a_receipt_counts_only_from_the_addressee(region: KeyedRegion) -> None:
    """Another node that signs a receipt for the letter confirms nothing."""
    village, city = region.node(VILLAGE), region.node(CITY)
    village.knows(region.node(OTHER_COUNTY))
    letter_id = post(village)
    with write_transaction(city.engine) as connection:
        city.post._answer(  # noqa: SLF001  # what a dishonest city would write
            connection,
            Owed(VILLAGE, letter_id, Lane.BULK, 0),
            "",
            region.clock.ms,
        )
    region.travel(CITY, COUNTY, TOWNSHIP, VILLAGE)
    assert kept(village, letter_id).parcel.state is PostState.SENT


def _readdressed(entry: LogEntry, to: str) -> LogEntry:
    """The letter with another addressee in its header and outside."""
    before, after = f'"to":"{OTHER_COUNTY}"'.encode(), f'"to":"{to}"'.encode()
    rows = entry.rows.replace(before, after)
    length = int.from_bytes(entry.rows[:4], "big") + len(after) - len(before)
    return replace(entry, rows=length.to_bytes(4, "big") + rows[4:], home_node=to)
