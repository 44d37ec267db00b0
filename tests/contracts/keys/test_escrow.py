"""Escrow: a child's keys at its parent, opened by two operators, and a store that lost its key."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from hierarchy_config import NodeId
from hierarchy_config.model import CareLevel, CopyForm, CopyRule
from node.clock import Ids
from node.keys.errors import EscrowInvalidError, EscrowMissingError
from node.keys.escrow import Deposit, Deposits, EscrowMark, goes_to_parent, key_set_of, parse_keys
from node.keys.node_key import find_node_key
from node.keys.recovery import Recoveries
from node.keys.restoring import restore_keys
from node.security.caller import Caller, CallerKind, caller_for
from node.security.errors import SecurityError
from node.security.folders import NodeFolder
from node.security.key_files import create_key, write_secret
from node.security.sealing import unwrap_key
from node.storage.audit import Auditor
from node.storage.data_keys import wrapped_of
from node.storage.tables import AUDIT
from node.storage.transactions import Transactions
from node.transit.keys import NodeVerifier, OwnKey
from tests.contracts.keys.place import KeyedNode
from tests.contracts.storage.region import FakeClock, hierarchy
from tests.databases import Database
from tests.schema import migrated
from tests.unit.security.region import CITY, COUNTY, SIBLING, TOWNSHIP, VILLAGE, Held, create

TREE = hierarchy()
AUTHORITIES = create(TREE)
HELD = {node: AUTHORITIES.node(node) for node in (COUNTY, TOWNSHIP, VILLAGE, SIBLING)}


class Ring:
    """A node's own key."""

    def __init__(self, held: Held) -> None:
        self.held = held

    def own(self) -> OwnKey:
        return OwnKey(self.held.private_key, self.held.chain_pem)


class Township:
    """A parent on a database, with what it holds in escrow."""

    def __init__(self, database: Database) -> None:
        migrated(database.engine)
        self.engine = database.engine
        self.clock = FakeClock()
        self.ring = Ring(HELD[TOWNSHIP])
        self.verifier = NodeVerifier(lambda: AUTHORITIES.root_pem, TREE, self.utc)
        self.deposits = Deposits(
            TOWNSHIP,
            TREE,
            self.ring,
            self.verifier,
            Transactions(self.engine),
            Auditor(self.clock),
            self.clock,
        )
        self.recoveries = Recoveries(self.deposits)

    def utc(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)

    def operator(self, name: str) -> Caller:
        """An operator of the township."""
        principal = f"{TREE.spiffe_id(TOWNSHIP)}/operator/{name}"
        return caller_for(CallerKind.OPERATOR, principal, TOWNSHIP, TREE, "recovery")

    def letter(self, node: KeyedNode, signer: NodeId = VILLAGE, to: NodeId = TOWNSHIP) -> bytes:
        """What a node deposits."""
        deposit = Deposit(
            node.node_id, Ring(HELD[signer]), self.verifier, self.clock, Ids(self.clock, os.urandom)
        )
        held = wrapped_of(node.stored.load())
        key = find_node_key(NodeFolder(node.folder), node.node_id, held, None)
        chain = HELD[to].chain_pem
        return deposit.letter(chain, to, held, lambda each: unwrap_key(node.node_id, key, each))

    def audited(self) -> list[tuple[str, str]]:
        """Who did what with keys, oldest first."""
        query = select(AUDIT.c.principal, AUDIT.c.action).where(
            AUDIT.c.object_table == "key_escrow"
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(AUDIT.c.audit_id))
            return [(str(who).rpartition("/")[2], str(what)) for who, what in rows]


@pytest.fixture
def village(tmp_path: Path) -> Iterator[KeyedNode]:
    """A village with rows."""
    made = KeyedNode(tmp_path / "node", f"sqlite:///{tmp_path / 'one.db'}", tmp_path / "shelf")
    made.write(3)
    yield made
    made.close()


@pytest.fixture
def township(database: Database) -> Township:
    """Its parent."""
    return Township(database)


def test_keys_go_as_far_as_everything_is_copied_in_full() -> None:
    """Village and township deposit; the county's keys are in its backup alone."""
    assert goes_to_parent(TREE, VILLAGE)
    assert goes_to_parent(TREE, TOWNSHIP)
    assert not goes_to_parent(TREE, COUNTY)
    assert not goes_to_parent(TREE, CITY)
    less = CopyRule(CareLevel.VILLAGE, "*", (CopyForm.DEIDENTIFIED,))
    assert not goes_to_parent(replace(TREE, rules=(less,)), VILLAGE)


def test_two_operators_get_what_opens_a_disk_without_its_key(
    township: Township, village: KeyedNode, tmp_path: Path
) -> None:
    """One alone gets nothing, twice as little; both nodes' audits can say who it was."""
    clear = village.clear()
    township.deposits.take(VILLAGE, township.letter(village), key_set_of(village.held()))
    first, second = township.operator("wang"), township.operator("li")
    for _ in range(2):
        said = township.recoveries.ask(first, VILLAGE)
        assert said.keys is None
        assert said.principals == (first.principal,)
    assert township.recoveries.ask(second, VILLAGE, approve_only=True).keys is None
    said = township.recoveries.ask(second, VILLAGE)
    assert said.keys is not None
    assert set(parse_keys(said.keys, VILLAGE)) == village.held()
    assert township.audited() == [
        (VILLAGE, "deposit"),
        ("wang", "approve"),
        ("wang", "approve"),
        ("li", "approve"),
        ("li", "recover"),
    ]
    assert {each.principal for each in township.recoveries.untold()} >= {second.principal}
    for each in township.recoveries.untold():
        township.recoveries.told(each.number)
    assert township.recoveries.untold() == []
    # Both approvals are used up.
    assert township.recoveries.ask(first, VILLAGE).keys is None

    village.store.close()
    folder = NodeFolder(village.folder)
    folder.node_key.unlink()
    file = tmp_path / "recovered"
    write_secret(file, said.keys)
    create_key(folder.node_key, os.urandom)
    with pytest.raises(SecurityError):
        village.open()
    assert restore_keys(village.folder, file, village.clock) == len(village.held())
    village.restart()
    assert village.clear() == clear


def test_an_approval_holds_for_an_hour(township: Township, village: KeyedNode) -> None:
    """Not longer, and not before it was given, whatever the clock says."""
    township.deposits.take(VILLAGE, township.letter(village), "aa")
    first, second = township.operator("wang"), township.operator("li")
    township.recoveries.ask(first, VILLAGE)
    township.clock.ms += 3_600_000
    assert township.recoveries.ask(second, VILLAGE).keys is None
    township.clock.ms -= 3_000_000
    assert township.recoveries.ask(first, VILLAGE).keys is None, "the other's is from the future"
    township.clock.ms += 3_500_000
    assert township.recoveries.ask(second, VILLAGE).keys is not None


def test_the_newest_deposit_is_what_is_held(township: Township, village: KeyedNode) -> None:
    """It is made again after each rotation, and holds the keys that seal now."""
    township.deposits.take(VILLAGE, township.letter(village), "aa")
    village.keeper.rotate(village.caller)
    township.deposits.take(VILLAGE, township.letter(village), "bb")
    (held,) = township.deposits.all()
    assert held.key_set == "bb"
    assert set(parse_keys(township.deposits.opened(held), VILLAGE)) == village.held()


def test_what_is_not_the_childs_own_is_refused(township: Township, village: KeyedNode) -> None:
    """Signed by a sibling, in another's name, to another node, altered, no letter, no child."""
    good = township.letter(village)
    bad = {
        "a sibling's": township.letter(village, signer=SIBLING),
        "the county's": township.letter(village, to=COUNTY),
        "altered": good[:-1] + bytes([good[-1] ^ 1]),
        "cut": good[:-20],
        "nothing": b"",
        "too much": good + bytes(1 << 20),
    }
    for letter in bad.values():
        with pytest.raises(EscrowInvalidError):
            township.deposits.take(VILLAGE, letter, "aa")
    for stranger in (SIBLING, COUNTY, NodeId("999999")):
        with pytest.raises(EscrowInvalidError):
            township.deposits.take(stranger, good, "aa")
    assert township.deposits.all() == []
    with pytest.raises(EscrowMissingError):
        township.recoveries.ask(township.operator("wang"), VILLAGE)


def test_what_may_no_longer_lie_here_is_deleted(township: Township, village: KeyedNode) -> None:
    """A child that moved away, or sends less now: above the boundary nothing is held."""
    township.deposits.take(VILLAGE, township.letter(village), "aa")
    assert township.deposits.drop_strangers() == 0
    less = CopyRule(CareLevel.VILLAGE, "*", (CopyForm.DEIDENTIFIED,))
    later = replace(township.deposits, hierarchy=replace(TREE, rules=(less,)))
    with pytest.raises(EscrowMissingError):
        Recoveries(later).ask(township.operator("wang"), VILLAGE)
    assert later.drop_strangers() == 1
    assert later.all() == []


def test_a_parent_with_another_key_cannot_open_and_says_so(
    township: Township, village: KeyedNode
) -> None:
    """It joined anew: the child deposits again; until then nothing is used up."""
    township.deposits.take(VILLAGE, township.letter(village), "aa")
    township.ring.held = AUTHORITIES.node(TOWNSHIP)
    township.recoveries.ask(township.operator("wang"), VILLAGE)
    with pytest.raises(EscrowInvalidError):
        township.recoveries.ask(township.operator("li"), VILLAGE)
    township.ring.held = HELD[TOWNSHIP]
    assert township.recoveries.ask(township.operator("li"), VILLAGE).keys is not None


def test_a_deposit_is_renewed_when_anything_of_it_changed(village: KeyedNode) -> None:
    """Keys, parent, the parent's key, or a month: each alone."""
    mark = EscrowMark(TOWNSHIP, "k" * 64, "s" * 64, 1_000)
    transactions = village.store.storage.transactions
    assert transactions.read(EscrowMark.load) is None
    transactions.write(mark.save)
    assert transactions.read(EscrowMark.load) == mark
    assert mark.is_fresh(replace(mark, at_ms=2_000))
    assert mark.is_fresh(replace(mark, at_ms=0)), "a clock that went back"
    for change in (
        {"parent": COUNTY},
        {"sealed_to": "l" * 64},
        {"key_set": "t" * 64},
        {"at_ms": 1_000 + 31 * 86_400_000},
    ):
        assert not mark.is_fresh(replace(mark, **change))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"node_id": 1}', json.dumps({"node_id": VILLAGE, "keys": [{"key_id": "a"}]})],
)
def test_keys_that_cannot_be_read_are_refused(text: str) -> None:
    """Whatever it is."""
    with pytest.raises(EscrowInvalidError):
        parse_keys(text.encode(), VILLAGE)
