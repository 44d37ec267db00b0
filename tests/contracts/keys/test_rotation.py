"""Rotation: new keys at once, the rest row by row, no row changed, old keys gone at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import LargeBinary, event, select, update

from node.errors import NodeError
from node.keys import opening
from node.keys.errors import KeyPurposeError
from node.keys.keeper import RotationLimits
from node.keys.places import PLACES, PURPOSES
from node.security.sealing import GENERAL
from node.storage import METADATA
from node.storage.tables import AUDIT, REPLICATED
from replication.changelog import write_transaction
from replication.core.codec import decode_changes
from tests.contracts.keys.place import KeyedNode
from tests.contracts.storage.region import NOW_MS, bundle, person
from tests.databases import Database

DAY_MS = 86_400_000

NOT_SEALED = {
    ("audit_anchors", "anchor"),
    ("audit_anchors", "anchor_signature"),
    ("audit_anchors", "head"),
    ("audit_anchors", "head_signature"),
    ("audit_findings", "head"),
    ("audit_findings", "head_signature"),
    ("audit_signers", "chain"),
    ("change_log", "entry_uid"),
    ("data_keys", "wrapped"),
    ("home_grants", "chain"),
    ("home_grants", "signature"),
    ("home_grants", "statement"),
    ("invitations", "salt"),
    # Sealed to the parent's certificate by a child, not by this node.
    ("key_escrow", "letter"),
    ("link_inbound", "running_hash"),
    ("link_outbound", "receipt_signature"),
    ("link_outbound", "running_hash"),
    ("node_certificates", "chain"),
    ("quarantine", "item_uid"),
    ("region_epochs", "decision"),
    ("region_epochs", "offer"),
    ("region_epochs", "progress"),
    ("region_epochs", "purge_order"),
    ("region_epochs", "region_text"),
    ("revocations", "entry"),
    # Ids and versions of rows, no words.
    ("residence_moves", "base"),
    ("residence_moves", "held"),
    ("transit_out", "receipt_signature"),
}


def test_every_column_of_bytes_is_sealed_in_a_known_place_or_needs_no_seal() -> None:
    """Rotation would destroy a key that a place it does not know of still names."""
    bytes_ = {
        (table.name, column.name)
        for table in METADATA.sorted_tables
        for column in table.columns
        if isinstance(column.type, LargeBinary)
    }
    sealed = {(place.name, name) for place in PLACES.values() for name in place.columns}
    assert bytes_ - sealed == NOT_SEALED
    assert sealed <= bytes_


def test_each_sealed_table_has_a_key_of_its_own(node: KeyedNode) -> None:
    """A key that is found out opens one table."""
    keys = {key.purpose: key.key_id for key in node.stored.load()}
    assert set(keys) == {*PURPOSES, GENERAL}
    assert len(set(keys.values())) == len(keys)
    for place in ("residents", "identifiers", "change_log"):
        assert node.key_ids(place) == {keys[place]}


def test_a_store_with_one_key_opens_and_gets_new_keys_from_then_on(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the one key sealed goes on opening, and is not touched until a rotation."""
    with monkeypatch.context() as patch:
        patch.setattr(opening, "PURPOSES", ())
        node = KeyedNode(tmp_path / "node", database.url, tmp_path / "shelf")
        (one,) = node.stored.load()
        node.write(3)
        node.fill_places()
    before, clear = node.cells(), node.clear()
    assert {sealed[1:9].hex() for sealed in before.values()} == {one.key_id}

    node.restart()
    assert {key.purpose for key in node.stored.load()} == {*PURPOSES, GENERAL}
    assert node.clear() == clear
    assert node.cells() == before
    node.write(1)
    later = {key: sealed for key, sealed in node.cells().items() if key not in before}
    assert later
    assert one.key_id not in {sealed[1:9].hex() for sealed in later.values()}
    assert node.keeper.step(10) is None

    node.keeper.rotate(node.caller)
    node.reseal()
    assert one.key_id in node.keeper.destroy_unnamed(node.caller)
    node.restart()
    assert clear.items() <= node.clear().items()
    node.close()


def test_everything_is_sealed_anew_and_says_the_same(node: KeyedNode) -> None:
    """In every place; afterwards nothing names an old key, and the old keys are gone."""
    node.fill_places()
    before, clear, unchanged = node.cells(), node.clear(), node.log_head()
    old = node.held()
    made = node.keeper.rotate(node.caller)
    assert len(made) == len(PURPOSES) + 1
    assert node.held() == old | set(made)
    assert node.cells() == before, "nothing is re-sealed by the call itself"

    node.reseal(3)

    assert node.clear() == clear
    assert node.log_head() == unchanged
    after = node.cells()
    assert set(after) == set(before)
    assert {sealed[1:9].hex() for sealed in after.values()} <= set(made)
    assert set(node.keeper.destroy_unnamed(node.caller)) == old
    assert node.held() == set(made)
    node.restart()
    assert node.clear() == clear
    # The log's readers find what they had not read yet.
    with node.store.engine.connect() as connection:
        entries = node.store.log.read(connection, after=0, lane=None, bytes_max=1 << 30)
        rows = [change for e in entries.entries[:10] for change in decode_changes(e.codec, e.rows)]
    assert rows
    assert node.store.storage.verify_audit() is None


def test_one_table_alone_is_rotated(node: KeyedNode) -> None:
    """Others keep their keys, and are not read."""
    node.fill_places()
    others = {key: sealed for key, sealed in node.cells().items() if key[0] != "residents"}
    (made,) = node.keeper.rotate(node.caller, ["residents"])
    node.reseal()
    assert node.key_ids("residents") == {made}
    assert {key: sealed for key, sealed in node.cells().items() if key[0] != "residents"} == others
    assert len(node.keeper.destroy_unnamed(node.caller)) == 1


def test_what_is_written_after_the_rotation_is_under_the_new_key(node: KeyedNode) -> None:
    """At once, before any re-sealing."""
    old = node.key_ids("residents")
    (made,) = node.keeper.rotate(node.caller, ["residents"])
    node.write(1)
    assert node.key_ids("residents") == old | {made}


@pytest.mark.parametrize("table", ["nowhere", "", "data_keys"])
def test_a_table_without_a_key_of_its_own_is_refused(village: KeyedNode, table: str) -> None:
    """And nothing is rotated with it."""
    held = village.held()
    with pytest.raises(KeyPurposeError):
        village.keeper.rotate(village.caller, ["residents", table])
    assert village.held() == held


def test_a_row_that_is_written_meanwhile_keeps_its_newer_value(
    node: KeyedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row changed after it was read for re-sealing: the writer's value stands, and opens."""
    context = node.store.storage.context
    made = node.store.storage.put_bundle(node.caller, bundle("first", person(name="王五")))
    resident = made.resident_ids[0]
    node.keeper.rotate(node.caller, ["residents"])
    t = REPLICATED["residents"]
    raced: list[bool] = []
    opened = node.store.keys.open

    def race(sealed: bytes, aad: bytes, key_id: str | None = None) -> bytes:
        """Between the reading of the rows and their update another connection amends one."""
        if not raced:
            raced.append(True)
            amended = bundle("second", person(name="王六", resident_id=resident))
            node.store.storage.put_bundle(node.caller, amended)
        return opened(sealed, aad, key_id)

    with monkeypatch.context() as patch:
        patch.setattr(node.store.keys, "open", race)
        node.reseal()
    assert raced
    with node.store.engine.connect() as connection:
        row = connection.execute(select(t).where(t.c.row_id == resident)).mappings().one()
    assert context.cells.open_cell("residents", "name", resident, row["name"]) == "王六"
    assert row["version_number"] == 2
    assert len(node.keeper.destroy_unnamed(node.caller)) == 1


def test_a_late_writer_under_the_old_key_is_found_before_its_key_is_destroyed(
    node: KeyedNode,
) -> None:
    """It sealed before the rotation and committed after the last pass: the key stays."""
    t = REPLICATED["residents"]
    with node.store.engine.connect() as connection:
        row = connection.execute(select(t.c.row_id, t.c.name)).first()
    assert row is not None
    node.keeper.rotate(node.caller, ["residents"])
    node.reseal()
    with write_transaction(node.store.engine) as connection:
        connection.execute(update(t).where(t.c.row_id == row.row_id).values(name=row.name))
    assert node.keeper.destroy_unnamed(node.caller) == []
    standing, _ = node.keeper.standing()
    assert [(each.table, each.rows) for each in standing if each.rows] == [("residents", 1)]

    node.keeper.rotate(node.caller, ["residents"])
    node.reseal()
    assert len(node.keeper.destroy_unnamed(node.caller)) == 2
    assert node.clear()


def test_a_key_lives_until_whoever_sealed_with_it_has_ended(node: KeyedNode) -> None:
    """Ten minutes in the same process; a new process has no such writers."""
    node.grace_ms = 600_000
    node.hold()
    node.keeper.rotate(node.caller, ["residents"])
    node.reseal()
    node.clock.ms += 599_000
    assert node.keeper.destroy_unnamed(node.caller) == []
    node.clock.ms += 1_000
    assert len(node.keeper.destroy_unnamed(node.caller)) == 1

    node.keeper.rotate(node.caller, ["identifiers"])
    node.reseal()
    node.restart()
    assert len(node.keeper.destroy_unnamed(node.caller)) == 1


def test_a_key_is_not_destroyed_before_its_table_was_gone_through(node: KeyedNode) -> None:
    """Also not if nothing happens to name it."""
    node.keeper.rotate(node.caller, ["medications"])
    assert node.keeper.destroy_unnamed(node.caller) == []
    node.reseal()
    assert len(node.keeper.destroy_unnamed(node.caller)) == 1


def test_a_cell_that_does_not_open_keeps_its_key_and_stops_nothing(node: KeyedNode) -> None:
    """Everything else is re-sealed; the status names the row, and the key is kept for it."""
    t = REPLICATED["residents"]
    with write_transaction(node.store.engine) as connection:
        row = connection.execute(select(t.c.row_id, t.c.name)).first()
        assert row is not None
        broken = bytes(row.name)[:-1] + bytes([row.name[-1] ^ 1])
        connection.execute(update(t).where(t.c.row_id == row.row_id).values(name=broken))
    node.keeper.rotate(node.caller, ["residents"])
    node.reseal(2)
    assert node.keeper.destroy_unnamed(node.caller) == []
    _, work = node.keeper.standing()
    assert [(each.place, each.state, each.unreadable) for each in work] == [
        ("residents", "done", 1)
    ]


class Death(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("seed", range(2))
def test_re_sealing_goes_on_after_a_death_at_any_commit(node: KeyedNode, seed: int) -> None:
    """Killed before a commit, again and again: nothing is lost, and it comes to its end."""
    node.fill_places()
    clear = node.clear()
    node.keeper.rotate(node.caller)
    deaths = 0
    for life in range(100):
        # A step takes four or five commits, those that only read among them.
        countdown = [3 + (life * 5 + seed) % 11]

        def die(_connection: object, left: list[int] = countdown) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Death

        event.listen(node.store.engine, "commit", die)
        try:
            node.reseal(2)
        except Death:
            deaths += 1
            node.restart()
            continue
        break
    assert deaths > 3
    event.remove(node.store.engine, "commit", die)
    node.reseal()
    assert node.clear() == clear
    node.keeper.destroy_unnamed(node.caller)
    node.restart()
    assert node.clear() == clear


def test_a_rotation_that_dies_before_its_commit_has_not_been(node: KeyedNode) -> None:
    """No key in memory that is not stored."""
    held = node.held()

    def die(_connection: object) -> None:
        raise Death

    event.listen(node.store.engine, "commit", die)
    with pytest.raises(Death):
        node.keeper.rotate(node.caller)
    event.remove(node.store.engine, "commit", die)
    assert node.held() == held
    assert node.store.keys.key_id in held
    node.write(1)
    node.restart()
    assert node.clear()


def test_keys_are_replaced_by_age_and_by_count(node: KeyedNode) -> None:
    """Each by itself; one under way is not begun anew, and a clock from the future does no harm."""
    limits = RotationLimits(days=365, seals=1 << 31)
    assert node.keeper.rotate_due(node.caller, limits) == []
    node.keeper.count_seals()
    sealed = {key.purpose: key.seals for key in node.stored.load()}
    assert sealed["residents"] > 0
    assert sealed["quarantine"] == 0
    few = RotationLimits(days=0, seals=sealed["identifiers"])
    due = node.keeper.rotate_due(node.caller, few)
    assert "identifiers" in due
    assert "quarantine" not in due
    assert node.keeper.rotate_due(node.caller, few) == []
    node.reseal()

    node.clock.ms = NOW_MS - 10 * 365 * DAY_MS
    assert node.keeper.rotate_due(node.caller, limits) == []
    node.clock.ms = NOW_MS + 366 * DAY_MS
    assert len(node.keeper.rotate_due(node.caller, limits)) == len(PURPOSES) + 1
    assert node.keeper.rotate_due(node.caller, limits) == []


def test_rotation_and_destruction_stand_in_the_audit(node: KeyedNode) -> None:
    """Who, what, which key; never a key."""
    node.keeper.rotate(node.caller, ["residents"])
    node.reseal()
    (gone,) = node.keeper.destroy_unnamed(node.caller)
    query = select(AUDIT.c.action, AUDIT.c.object_id).where(AUDIT.c.object_table == "data_keys")
    with node.store.engine.connect() as connection:
        said = [tuple(row) for row in connection.execute(query.order_by(AUDIT.c.audit_id))]
    assert said == [("rotate", "residents"), ("destroy", gone)]


def test_errors_of_this_room_are_the_nodes() -> None:
    """So that a caller gets their code."""
    assert issubclass(KeyPurposeError, NodeError)
