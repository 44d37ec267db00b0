"""The log is pruned: what everybody has, what is too much; letters stay, readers are seeded."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select, update

from node.storage.tables import CHANGELOG
from replication.changelog import LetterEntries, NewEntry, read_transaction, write_transaction
from replication.changelog.letters import CODEC_ERASED
from replication.changelog.pruning import (
    LogFigures,
    LogReader,
    cut_at,
    log_figures,
    sweep_letters,
)
from replication.core.config import PeerRole
from replication.core.model import Form, Lane
from tests.contracts.storage.region import (
    NOW_MS,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    NodeStore,
    Region,
    bundle,
    observation,
    person,
)
from tests.contracts.storage.seeding import parts, prune_all

FIGURES = LogFigures(head=10_000, pruned_to=100, entry_bytes=1000)
MB = 1 << 20


@pytest.mark.parametrize(
    ("readers", "keep_bytes", "up_to", "left_behind"),
    [
        ([LogReader("parent", 9_000), LogReader("child", 4_000)], 100 * MB, 4_000, ()),
        ([LogReader("child", 4_000, is_absent=True)], 100 * MB, 9_500, ("child",)),
        ([LogReader("parent", 50), LogReader("backup", 9_000)], 5 * MB, 4_758, ("parent",)),
        ([LogReader("parent", 10)], 100 * MB, 100, ("parent",)),
        ([], 100 * MB, 9_500, ()),
        ([LogReader("old", 3_000, takes_log_only=True)], 2 * MB, 3_000, ()),
        ([LogReader("old", 200, takes_log_only=True)], 2 * MB, 1_612, ("old",)),
    ],
)
def test_the_last_reader_holds_the_log_up_to_its_limit(
    readers: list[LogReader], keep_bytes: int, up_to: int, left_behind: tuple[str, ...]
) -> None:
    """Whoever is away for long holds nothing; nobody holds more than the limit."""
    cut = cut_at(FIGURES, readers, keep_bytes=keep_bytes, entries_min=500)

    assert (cut.up_to, cut.left_behind) == (up_to, left_behind)


def write_some(node: NodeStore, count: int) -> None:
    """So many entries of bulk, each a version of one record."""
    [resident] = node.storage.put_bundle(node.caller(), bundle("one-1", person())).resident_ids
    [record] = node.storage.put_bundle(
        node.caller(), bundle("row-1", observation(resident))
    ).record_ids
    for n in range(count):
        node.storage.put_bundle(
            node.caller(), bundle(f"v-{n}", observation(resident, float(n), record_id=record))
        )


def letter(to: str = OTHER_COUNTY) -> NewEntry:
    """A letter on its way."""
    return NewEntry(
        origin_node=VILLAGE,
        origin_epoch=0,
        origin_sequence=None,
        lane=Lane.BULK,
        home_node=to,
        form=Form.SEALED,
        codec=2,
        schema_version=1,
        committed_at_ms=NOW_MS,
        row_count=0,
        rows=b"sealed to somebody else",
    )


def test_letters_outlive_the_pruning_and_are_sent_with_the_snapshot(region: Region) -> None:
    """They are in no table; once they are handed on they are swept away.

    Behind the rows: a receipt among them speaks of rows that whoever relays it must hold by then.
    """
    village, letters = region.node(VILLAGE), LetterEntries(CHANGELOG)
    write_some(village, 5)
    with write_transaction(village.engine) as connection:
        village.log.append(connection, [letter()])
    write_some_more(village)
    head = village.durable_head()
    with write_transaction(village.engine) as connection:
        waiting = letters.waiting(connection, 0, head)
        village.log.prune(connection, head, keep=[each.sequence for each in waiting])
    with read_transaction(village.engine) as connection:
        assert [each.sequence for each in letters.waiting(connection, 0, head)] == [
            waiting[0].sequence
        ]
        assert village.log.pruned_to(connection) == head

    sent = [
        entry
        for part in parts(village, region.another(TOWNSHIP), Lane.BULK, bytes_max=300)
        for entry in part.entries
    ]

    assert [entry.form for entry in sent] == [Form.FULL, Form.SEALED]
    assert sent[-1].rows == b"sealed to somebody else"
    with write_transaction(village.engine) as connection:
        letters.erase(connection, [waiting[0].sequence])
        assert sweep_letters(connection, CHANGELOG, entries_max=10) == 1
        count = connection.execute(select(func.count()).select_from(CHANGELOG.change_log))
        assert count.scalar_one() == 0


def write_some_more(node: NodeStore) -> None:
    """One more entry, behind the letter."""
    node.storage.put_bundle(node.caller(), bundle("more-1", person("142601197003032222", "李四")))


def test_pruning_goes_step_by_step(region: Region) -> None:
    """No transaction deletes more than it is allowed; unnumbered entries stay."""
    village = region.node(VILLAGE)
    write_some(village, 10)
    head = village.durable_head()
    village.storage.put_bundle(
        village.caller(), bundle("last-1", person("142601197003032222", "李四"))
    )
    steps = []
    for _ in range(5):
        with write_transaction(village.engine) as connection:
            village.log.prune(connection, head, entries_max=5)
            steps.append(village.log.pruned_to(connection))
    assert steps == [5, 10, head, head, head]
    with read_transaction(village.engine) as connection:
        assert village.log.left_unnumbered(connection) + village.log.head(connection) > head
        figures = log_figures(connection, CHANGELOG)
    assert figures.pruned_to == head
    assert figures.entry_bytes >= 400


def test_the_columnar_feed_reads_the_tables(region: Region) -> None:
    """Current rows by id, retracted ones left out, each once."""
    village = region.node(VILLAGE)
    write_some(village, 3)
    prune_all(village)

    found = village.storage.columnar_rows("observations", "", 10)
    rest = village.storage.columnar_rows("observations", found.seen[-1], 10)

    assert [row["value"] for row in found.rows["observations"]] == [2.0]
    assert rest.seen == ()
    assert len(village.storage.columnar_rows("residents", "", 10).rows["residents"]) == 1


def test_erased_letters_are_sent_to_nobody(region: Region) -> None:
    """Their number stays, their payload is gone."""
    village = region.node(VILLAGE)
    with write_transaction(village.engine) as connection:
        village.log.append(connection, [letter()])
    head = village.durable_head()
    with write_transaction(village.engine) as connection:
        t = CHANGELOG.change_log
        connection.execute(update(t).values(codec=CODEC_ERASED, payload=b"", bytes=0))
    part = village.storage.outgoing_part(TOWNSHIP, PeerRole.PARENT, Lane.BULK, 0, 1000)
    assert (part.entries, part.scanned_to) == ((), head)
