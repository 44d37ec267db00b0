"""Planted bugs: the protocol with one rule removed, each of which the checkers must catch.

A bug that another rule would cover for removes that one too (`broken` names several): defences hide
bugs from each other, and each is to be shown to matter. `faults` narrows the schedule to what can
hurt, so that a bug is found within few seeds.
"""

from __future__ import annotations

from replication.core.link import LinkEnd
from tests.simulation.variants import (
    AltersItsPlace,
    BelievesAnyClaim,
    BelievesAnyPosition,
    BelievesAnyReceipt,
    BulkFirst,
    ChecksNoDigest,
    KeepsPlace,
    MarksEarly,
    ProvesContentAlone,
    ResumesFromOwnBooks,
    RewindsToReceipt,
    SkipsTheGoneBackCheck,
    StepsOverGaps,
    TakesOldReads,
    TellsNoBeginning,
    Variant,
)

__all__ = ["PLANTED_BUGS"]


def _bug(  # a table row, read by its keywords
    name: str,
    *,
    caught_by: str,
    faults: str,
    broken: str = "",
    unchecked: str = "",
    link_end: type[LinkEnd] = LinkEnd,
    writes: int = 45,
    save_after_entries: int = 1000,
    first_seed: int = 0,
) -> Variant:
    return Variant(
        name=name,
        link_end=link_end,
        broken=frozenset(broken.split()),
        caught_by=frozenset(caught_by.split()),
        unchecked=frozenset(unchecked.split()),
        faults=tuple(faults.split()),
        fault_count_max=30,
        writes=writes,
        save_after_entries=save_after_entries,
        first_seed=first_seed,
    )


PLANTED_BUGS = (
    _bug(
        "numbers_given_before_commit",
        broken="numbers_at_begin",
        faults="delay",
        caught_by="I2 MARK",
    ),
    _bug(
        "acknowledged_before_commit",
        broken="acknowledge_before_commit",
        faults="crash",
        caught_by="I1",
    ),
    _bug(
        "receipt_before_commit",
        broken="receipt_before_commit cursor_not_compared",
        link_end=ResumesFromOwnBooks,
        unchecked="I5 MARK",
        faults="crash crash_now",
        caught_by="I7 I2",
    ),
    _bug("cursor_before_rows", broken="cursor_before_rows", faults="crash", caught_by="I2 MARK"),
    _bug(
        "log_outside_transaction",
        broken="log_outside_transaction",
        unchecked="MARK",
        faults="crash",
        caught_by="I2 I6",
    ),
    _bug("version_guard", broken="version_guard", faults="restore crash_now", caught_by="I3 I4"),
    _bug(
        "routing_by_author_alone",
        broken="route_by_author admission",
        faults="delay",
        caught_by="I9",
    ),
    _bug(
        "own_books_after_peer_restore",
        link_end=ResumesFromOwnBooks,
        faults="restore",
        caught_by="I2 MARK",
    ),
    _bug(
        "claim_of_another_epoch",
        link_end=BelievesAnyClaim,
        faults="restore",
        caught_by="I2 I8 MARK",
    ),
    _bug("epoch_kept", broken="epoch_kept", faults="restore", caught_by="I7 I10"),
    _bug(
        "epoch_kept_is_noticed",
        broken="epoch_kept",
        unchecked="I7 I10 MARK",
        faults="restore",
        caught_by="I2 I8",
    ),
    _bug(
        "epoch_kept_unnoticed",
        broken="epoch_kept",
        link_end=SkipsTheGoneBackCheck,
        unchecked="I7 I10 MARK",
        faults="restore",
        caught_by="I3 I2",
    ),
    _bug(
        "amends_after_restore", broken="amends_after_restore", faults="restore", caught_by="I1 I2"
    ),
    _bug(
        "place_kept_after_refusal",
        link_end=KeepsPlace,
        faults="lose_frame fill_disk",
        caught_by="I2 MARK",
    ),
    _bug(
        "old_read_after_refusal",
        link_end=TakesOldReads,
        faults="fill_disk",
        writes=250,
        caught_by="I2 MARK",
    ),
    _bug(
        "rewound_behind_what_was_saved",
        link_end=RewindsToReceipt,
        faults="fill_disk prune lose_frame",
        writes=120,
        save_after_entries=4,
        caught_by="I7",
    ),
    _bug("mark_before_receipts", link_end=MarksEarly, faults="delay slow", caught_by="MARK"),
    _bug(
        "gap_stepped_over",
        broken="cursor_not_compared",
        link_end=StepsOverGaps,
        faults="lose_frame",
        caught_by="I5",
    ),
    _bug(
        "gap_loses",
        broken="cursor_not_compared",
        link_end=BelievesAnyReceipt,
        unchecked="I5 I7 MARK",
        faults="lose_frame",
        caught_by="I2",
    ),
    _bug(
        "cursor_not_compared",
        broken="cursor_not_compared",
        faults="dial_twice slow break_stream",
        caught_by="I5 I7",
    ),
    _bug(
        "fsync_failure_ignored",
        broken="sync_failure_ignored",
        unchecked="I3 I5 I6 I7 I10 MARK",
        faults="fail_syncs",
        caught_by="I1 I2",
    ),
    _bug("digest_not_checked", link_end=ChecksNoDigest, faults="alter_frame", caught_by="MARK I2"),
    _bug(
        "digest_without_place",
        link_end=ProvesContentAlone,
        faults="alter_frame",
        caught_by="I2 MARK I8",
    ),
    _bug(
        "receipt_not_checked",
        link_end=AltersItsPlace,
        unchecked="I7 MARK",
        faults="alter_frame break_stream crash_now",
        caught_by="I2 I8",
    ),
    _bug("bulk_before_care", link_end=BulkFirst, faults="narrow slow", caught_by="FAIR"),
    _bug(
        "lane_heads_of_before",
        broken="lane_heads_of_before",
        faults="delay",
        caught_by="I2 I8 MARK",
    ),
    _bug("letter_sent_once", broken="letters_sent_once", faults="restore", caught_by="I2 I8"),
    _bug(
        "letter_done_at_first_hop",
        broken="letter_done_at_first_hop",
        faults="restore",
        caught_by="I2",
    ),
    _bug(
        "letter_receipt_overtakes_rows",
        broken="receipt_in_another_lane",
        faults="restore narrow",
        writes=120,
        first_seed=530,
        caught_by="I2",
    ),
    _bug(
        "letter_receipt_before_rows",
        broken="receipt_before_rows",
        faults="restore",
        writes=120,
        caught_by="I2",
    ),
    _bug(
        "letter_applied_twice",
        broken="letter_applied_twice version_guard",
        unchecked="I4",
        faults="older_peer",
        caught_by="I3",
    ),
    _bug(
        "letter_stored_by_relay",
        broken="letter_stored_by_relay",
        unchecked="I6",
        faults="delay",
        caught_by="I3 I9",
    ),
    _bug("letter_kept_by_relay", broken="letters_kept", faults="delay", caught_by="I8 I9"),
    _bug(
        "letter_dropped_for_older_peer",
        broken="old_peers_letters_dropped letters_sent_once",
        faults="older_peer",
        caught_by="I2 I8",
    ),
    _bug(
        "prune_ignores_reader",
        broken="prune_ignores_reader",
        faults="prune isolate",
        caught_by="I2 I8 MARK",
    ),
    _bug(
        "snapshot_covers_later",
        broken="snapshot_covers_later",
        faults="prune isolate narrow",
        writes=120,
        caught_by="I2 MARK",
    ),
    _bug(
        "snapshot_without_letters",
        broken="snapshot_without_letters letters_sent_once",
        faults="prune isolate",
        caught_by="I2 I8",
    ),
    _bug(
        "snapshot_position_of_another_stream",
        link_end=BelievesAnyPosition,
        faults="restore narrow",
        writes=120,
        caught_by="I2 I8 MARK",
    ),
    _bug(
        "snapshot_beginning_untold", link_end=TellsNoBeginning, faults="restore", caught_by="I2 I8"
    ),
    _bug(
        "recovery_owned_without_letters",
        broken="owned_without_letters",
        faults="restore",
        caught_by="I2",
    ),
    _bug(
        "recovery_answered_early",
        broken="recovery_answered_early",
        faults="restore",
        caught_by="I2",
    ),
    _bug(
        "recovery_goes_no_further",
        broken="returned_stay_here",
        faults="restore",
        caught_by="MARK I2",
    ),
    _bug(
        "recovering_node_amends",
        broken="amends_while_recovering",
        unchecked="I3",
        faults="restore isolate",
        caught_by="I2 I4",
    ),
    _bug(
        "two_grants_for_one_epoch",
        broken="two_grants",
        unchecked="I2 I4 I8",
        faults="move delay isolate",
        caught_by="MOVE",
    ),
    _bug("move_without_shipping", broken="move_without_shipping", faults="move", caught_by="I2"),
    _bug(
        "move_without_fence",
        broken="move_without_fence",
        faults="move delay",
        writes=120,
        caught_by="I2 MOVE",
    ),
    _bug(
        "home_epoch_not_checked",
        broken="home_epoch_not_checked",
        unchecked="I9",
        faults="move delay isolate",
        writes=120,
        caught_by="MOVE",
    ),
    _bug(
        "same_version_of_a_new_home_skipped",
        broken="held_epoch_ignored",
        faults="move",
        caught_by="I2",
    ),
    _bug("grant_not_known", broken="grant_not_known", faults="move", caught_by="I2"),
    _bug(
        "late_edit_dropped",
        broken="late_edit_dropped",
        faults="move delay isolate",
        writes=120,
        caught_by="MOVE",
    ),
)
"""Each must be caught within 1,000 seeds; docs/robustness-record.md says in how many it is."""
