"""What must hold when the faults are over: every acknowledged row where policy sends it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hierarchy_config import CareLevel, CopyForm, NodeId
from node.security.blind_index import Pseudonymizer
from node.security.folders import NodeFolder
from node.security.key_files import load_key
from tests.chaos.acknowledged import Acknowledged
from tests.chaos.faults import Faults, Forgiven
from tests.chaos.place import ChaosPlace, line_of
from tests.services.stores import HeldRow, opened

__all__ = ["Expected", "Verdict", "expected_of", "verify"]

Row = tuple[str, str]
Rows = Mapping[Row, HeldRow]


@dataclass(frozen=True, slots=True)
class Expected:
    """One row: the least number it must have, who wrote it, whose home it belongs to."""

    number: int
    author: NodeId
    home: NodeId


@dataclass
class Verdict:
    """What was found. `lost`: acknowledged and not where it must be, by node."""

    acknowledged: int = 0
    forgiven: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    quarantined: Counter[str] = field(default_factory=Counter)

    @property
    def holds(self) -> bool:
        """Whether nothing is lost, leaked or out of order."""
        return not (self.lost or self.leaks or self.faults)


def expected_of(
    noted: Iterable[Acknowledged], forgiven: Iterable[Forgiven]
) -> tuple[dict[Row, Expected], int]:
    """What must be there, and how many acknowledged row versions are forgiven.

    A version is forgiven if the node that had it alone was put back to a backup. Acknowledged
    again afterwards, the row must be there again.
    """
    pardons: dict[Row, list[Forgiven]] = defaultdict(list)
    for pardon in forgiven:
        pardons[pardon.row].append(pardon)
    expected: dict[Row, Expected] = {}
    forgiven_count = 0
    for ack in noted:
        row = (ack.table, ack.row_id)
        number = ack.number
        own = [p for p in pardons.get(row, ()) if p.node == ack.author and ack.at_ms <= p.until_ms]
        if own and number > (left := min(p.left for p in own)):
            forgiven_count += 1
            number = left
        elif pardons.get(row):
            # Written anew after the loss: it counts from there.
            number = 1
        held = expected.get(row)
        if number > (held.number if held else 0):
            expected[row] = Expected(number, NodeId(ack.author), NodeId(ack.home))
    return expected, forgiven_count


def verify(place: ChaosPlace, noted: list[Acknowledged], faults: Faults) -> Verdict:
    """Compare every node's store with what was acknowledged. The nodes are stopped."""
    expected, pardoned = expected_of(noted, faults.forgiven)
    verdict = Verdict(acknowledged=len(noted), forgiven=pardoned)
    stores: dict[NodeId, Rows] = {}
    for node in place.nodes:
        with opened(place.place, node) as store:
            stores[node] = store.rows()
            verdict.quarantined.update(store.quarantine_causes())
            _check_log(node, [e["sequence"] for e in store.log()], verdict)
            # The audit of a former life went with it.
            since_ms = faults.restored_ms.get(node, 0)
            written = sum(ack.author == node and ack.at_ms > since_ms for ack in noted)
            if store.audited_rows() < written:
                verdict.faults.append(f"{node} audited fewer rows than it acknowledged")
            if store.audit_break() is not None:
                verdict.faults.append(f"the audit's chain of {node} breaks")
    for row, must in expected.items():
        _check_row(place, stores, row, must, verdict)
    for node, rows in stores.items():
        _check_leaks(place, node, rows, verdict)
    _check_digests(place, stores, verdict)
    _check_city(place, stores, verdict)
    return verdict


def _check_row(
    place: ChaosPlace,
    stores: Mapping[NodeId, Rows],
    row: Row,
    must: Expected,
    verdict: Verdict,
) -> None:
    """It is in full at its author, at its home, and on the way from there up to the county."""
    for node in {*line_of(place.place, must.home), *line_of(place.place, must.author)}:
        if place.place.hierarchy.entry(node).level is CareLevel.CITY:
            continue
        held = stores[node].get(row)
        if held is None or held.version[1] < must.number:
            verdict.lost[f"{row[0]} of {must.author} at {node}"] += 1


def _check_leaks(place: ChaosPlace, node: NodeId, rows: Rows, verdict: Verdict) -> None:
    below = place.place.hierarchy.subtree(node)
    is_city = place.place.hierarchy.entry(node).level is CareLevel.CITY
    for key, row in rows.items():
        if row.home not in below and row.author not in below:
            verdict.leaks.append(f"{key[0]} of {row.home} at {node}")
        if is_city and row.form == "full":
            verdict.leaks.append(f"a full row of {key[0]} at the city")


def _check_log(node: NodeId, sequences: list[int | None], verdict: Verdict) -> None:
    numbered = [number for number in sequences if number is not None]
    if len(numbered) != len(set(numbered)):
        verdict.faults.append(f"{node} gave a number twice")


def _check_digests(place: ChaosPlace, stores: Mapping[NodeId, Rows], verdict: Verdict) -> None:
    """Parent and child hold the same of the child's subtree, above and below alike."""
    for node in place.nodes:
        parent = place.parent(node)
        if parent is None or place.place.hierarchy.parent(parent) is None:
            continue
        below = place.place.hierarchy.subtree(node)
        mine = digest({k: r for k, r in stores[node].items() if r.home in below})
        theirs = digest({k: r for k, r in stores[parent].items() if r.home in below})
        if mine != theirs:
            verdict.faults.append(
                f"{node} and {parent} differ in {_differing(stores[node], stores[parent], below)} "
                "rows"
            )


def _differing(mine: Rows, theirs: Rows, below: frozenset[NodeId]) -> int:
    keys = {k for rows in (mine, theirs) for k, r in rows.items() if r.home in below}
    return sum(
        (mine[k].version if k in mine else None) != (theirs[k].version if k in theirs else None)
        for k in keys
    )


def digest(rows: Rows) -> str:
    """SHA-256 of ids and versions, in order."""
    said = json.dumps(sorted([*key, *row.version] for key, row in rows.items()))
    return hashlib.sha256(said.encode()).hexdigest()


def _check_city(place: ChaosPlace, stores: Mapping[NodeId, Rows], verdict: Verdict) -> None:
    """The city has each county's rows as policy says: by pseudonym, at the same version."""
    tree = place.place.hierarchy
    city = stores[NodeId(tree.root)]
    for county in tree.children(NodeId(tree.root)):
        key = NodeFolder(place.place.node_dir(county)).pseudonym_key
        pseudonyms = Pseudonymizer(load_key(key))
        must: dict[Row, tuple[int, int]] = {}
        for (table, row_id), row in stores[county].items():
            forms = tree.copy_forms(county, table)
            if CopyForm.DEIDENTIFIED in forms:
                must[table, pseudonyms.pseudonym(table, row_id)] = row.version
            if CopyForm.INDEX in forms and table == "residents":
                must["resident_index", row_id] = row.version
        below = tree.subtree(county)
        held = {k: row.version for k, row in city.items() if row.home in below}
        missing = {k for k, version in must.items() if held.get(k, (0, 0)) < version}
        if missing:
            verdict.lost[f"of {county} at the city"] += len(missing)
        if more := held.keys() - must.keys():
            verdict.faults.append(f"the city has {len(more)} rows that {county} has not")
